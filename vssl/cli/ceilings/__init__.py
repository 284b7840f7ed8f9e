"""Measures for `vssl bench`: what this machine can do at most, and what vssl reaches."""
