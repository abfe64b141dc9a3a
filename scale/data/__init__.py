"""Training data and benchmarks as Parquet: `python -m scale prepare`."""
