"""The command line: one command per file in `commands`."""
