"""The only writer of facts; knows no server."""
