"""The bytes of a reply -> text, marks, and how it ended."""
