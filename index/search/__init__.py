"""Gaussians and queries -> nearest neighbours: exact with a proof, or approximate and reranked."""
