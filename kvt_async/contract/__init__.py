"""What runner and analyzer share: the schema, opening a database, settings, paths, errors. Nothing heavy."""
