"""A model file -> the folders that other programs serve or load it from."""
