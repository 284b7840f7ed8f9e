"""embeddings -> gallery: search with variance scores, and evaluation."""
