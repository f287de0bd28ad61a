"""The surrogate model of `graph_gp`: encoding, Gaussian process, candidate pool, training paths."""
