"""Checks of a space before it is searched."""
