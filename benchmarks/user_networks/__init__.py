"""Networks as users bring them: written for another purpose, trained by others, exported with `torch.onnx.export`."""
