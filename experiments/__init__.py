"""The command line, the search loop, the run directory, and reports."""
