"""Labelled or paired embeddings -> fitted constants, match probabilities, and when to abstain."""
