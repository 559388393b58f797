"""How a budget reaches the server."""
