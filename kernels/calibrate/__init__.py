"""Calibration: from error logits to error probabilities, by a map that is linear between knots.

Where the detail branch has given the label, a second map, of that branch's own doubt, makes it the error probability of
that label. `errseg_rt.bundle.calibration.Calibration` is a map. `cpu` is for NumPy arrays, `launches` for a GPU.
"""
