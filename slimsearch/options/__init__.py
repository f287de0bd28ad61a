"""Options of a run: the configuration, chosen architectures, initial weights, and recipes to search."""
