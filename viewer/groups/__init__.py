"""The groups in the folders that were given, and how far each of them is."""
