"""Supernets: weights that all networks of a space share, their training and evaluation."""
