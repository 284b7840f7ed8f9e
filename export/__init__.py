"""checkpoint -> one verified, calibrated, self-describing ONNX file."""
