"""From a frame to a network's input."""

from errseg_rt.kernels.preprocess.cpu import preprocess
from errseg_rt.kernels.preprocess.reference import preprocess_reference

__all__ = ["preprocess", "preprocess_reference"]
