"""Benchmarks: each script measures one thing and writes the tables that the documentation quotes."""
