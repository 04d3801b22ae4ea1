"""From an ONNX file of anybody's network to a bundle, without torch: what is read of the file, and how it is cut."""
