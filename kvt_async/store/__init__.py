"""The only writer of run facts; knows no server."""
