"""A run, a published backbone or another tool's ONNX file -> an encoder that export can calibrate."""
