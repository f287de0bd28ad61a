"""The command line, the search loop, the run directory, reports and benchmarks."""
