"""Latency of deployed files: measurement, prediction from operators, and exclusive use of the machine."""
