"""Command-line pieces that both programs use."""
