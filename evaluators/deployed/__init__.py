"""Deployed files: inference, agreement with the network, statistics on accuracy."""
