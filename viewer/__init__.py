"""`kvt view`: a local web page over run folders. It reads through the analyzer and the runner's status; nobody imports
it but the command line."""
