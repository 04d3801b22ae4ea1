"""How much of the dense stage a frame's supports cost, and when dense is the faster way."""

from __future__ import annotations

from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select import Selection

# Share of the dense stage's multiply-adds above which ONNX Runtime's dense convolutions are faster than `refine`:
# the lowest that `python -m benchmarks.refine` found, rounded down.
BREAK_EVEN = 0.75


def share_of_work(weights: RefineWeights, selection: Selection) -> float:
    """Multiply-adds of stage 3 on a selection's supports over those of the dense stage, 0 to 1."""
    height, width = selection.grid_size
    return selection.work(weights.layers) / (height * width * weights.layers.of_pixel)
