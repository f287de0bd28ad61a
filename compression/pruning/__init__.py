"""Pruning: dependent channels, importances, schedules, and the cut itself."""
