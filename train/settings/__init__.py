"""Recipes and options -> the one frozen value that decides a run."""
