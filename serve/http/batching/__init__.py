"""Images of many requests -> batches for the model, and what is refused when too many wait."""
