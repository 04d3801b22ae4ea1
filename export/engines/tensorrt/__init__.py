"""TensorRT plans from ONNX graphs."""
