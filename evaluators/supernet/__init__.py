"""Supernet: weights shared by all networks of a space, their training, and evaluation with inherited weights."""
