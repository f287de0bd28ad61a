"""A study in a database that several drivers share."""
