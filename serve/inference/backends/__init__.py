"""What runs a graph: onnxruntime, OpenVINO, or a Triton server."""
