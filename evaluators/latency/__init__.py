"""Latency: measurement with confidence intervals, and prediction from operators measured on this machine."""
