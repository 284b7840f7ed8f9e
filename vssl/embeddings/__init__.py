"""Gaussian embeddings: in memory, and in Parquet files."""
