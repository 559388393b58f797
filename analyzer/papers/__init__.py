"""Results to take along: tables and figures as files for papers, sheets and pages."""
