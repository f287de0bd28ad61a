"""Benchmarks: what the README and docs/ quote, each table by one command."""
