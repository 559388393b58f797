"""Conversations of several turns as the load of a bench: their prompts, and who sends the next turn."""
