"""Scripts to run from a checkout: run.py, benchmarks, reproductions and a comparison of compression methods."""
