"""Benchmarks: what the README quotes, each table by one command."""
