"""A model and uint8 images -> Gaussians: the one place that runs models."""
