"""A gallery in one folder: a durable store of record, and FAISS indexes derived from it."""
