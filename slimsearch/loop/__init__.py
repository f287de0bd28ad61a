"""Runs: their setup, and their phases (search, compression, repetitions, finalists)."""
