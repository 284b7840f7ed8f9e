"""model.onnx + images -> Gaussian embeddings, in files (extract) or over HTTP."""
