"""Arrays -> numbers that say how good retrieval and its uncertainty are; pure functions."""
