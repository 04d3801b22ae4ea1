"""Calibration: from error logits to error probabilities, by a map that is linear between knots.

`errseg_rt.bundle.calibration.Calibration` is the map. `cpu` is for NumPy arrays, `launches` for a GPU.
"""
