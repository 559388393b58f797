"""Results -> charts. They draw and never compute."""
