"""A gallery: a durable store of Gaussians and the indexes over it, on disk or in Milvus."""
