"""When a request is sent, and again: limits, tries, retries, breaker."""
