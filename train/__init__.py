"""images -> checkpoint: variational self-supervised learning."""
