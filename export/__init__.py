"""From a trained cascade to a bundle: ONNX graphs, model card, parity with torch."""
