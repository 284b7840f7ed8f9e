"""Data set files as their makers publish them, read in place -> an ImageSource."""
