"""Elastic networks: trained networks whose widths and depths can be chosen."""
