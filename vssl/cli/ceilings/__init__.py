"""Measures for `vssl bench`: what this machine can do at most, beside what vssl does on it."""
