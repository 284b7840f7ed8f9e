"""A run from its first step to its last: what is updated, at which rate, and how it resumes."""
