"""The verbs that answer one question each: check, compare, show, plan, export."""
