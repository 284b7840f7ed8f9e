"""Image folders + model.onnx -> an embeddings folder, resumable."""
