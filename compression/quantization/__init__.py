"""Quantization while training: fake quantizers, learned ranges, and the plan that export carries out."""
