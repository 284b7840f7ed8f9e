"""model.onnx -> a version of a model in a Triton repository."""
