"""When to cut: how much of the final sparsity is reached at which part of the training; one schedule per file."""

from slimsearch.compression.pruning.schedules._schedule import Schedule

__all__ = ["Schedule"]
