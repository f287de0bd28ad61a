"""Surrogate models of model-based samplers: encoding, Gaussian process, candidate pool, dominance."""
