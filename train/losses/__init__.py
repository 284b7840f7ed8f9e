"""Embeddings of two views -> numbers to make small; each term its own pure function."""
