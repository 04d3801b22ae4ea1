"""What does selection take, with and without a budget that binds?

python -m benchmarks.select
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.report import Row, compare, finish
from errseg_rt.kernels import Selection, select, select_reference
from errseg_rt.kernels.refine.weights import layers_of
from errseg_rt.scenes import StreetScene

GRID = (257, 513)
SHARES = (0.03, 0.1, 0.3)
# Stage 3 with 144 channels, 256 of them low-level, and 19 classes.
LAYERS = layers_of(144, 256, 19, (3, 3, 3))


def error_logits() -> npt.NDArray[np.float32]:
    """Doubt near the boundaries of a rendered street, with some noise."""
    labels = StreetScene(0, 4 * GRID[0] - 3, 4 * GRID[1] - 3).frame(0).labels[::4, ::4]
    edges = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    distance = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, 3)
    noise = np.random.default_rng(0).standard_normal(GRID)
    return np.asarray(2 - distance + noise, np.float32)


def plain(error_logit: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """The threshold alone: what is paid in any case."""
    return error_logit > np.log(threshold) - np.log1p(-threshold)


def measure(error_logit: npt.NDArray[np.float32], share: float) -> list[Row]:
    """Time selection of a share of the grid, after checking it where the definition is fast enough."""
    threshold = float(1 / (1 + np.exp(-np.quantile(error_logit, 1 - share))))
    everything = select(error_logit, threshold, layers=LAYERS)
    budget = everything.work(LAYERS) // 2

    def free() -> Selection:
        return select(error_logit, threshold, layers=LAYERS)

    def bound() -> Selection:
        return select(error_logit, threshold, layers=LAYERS, budget=budget)

    if not np.array_equal(free().support(1), select_reference(error_logit, threshold).support(1)):
        raise RuntimeError("the supports differ from the definition's; nothing was timed")
    if not bound().work(LAYERS) <= budget or not bound().left_out:
        raise RuntimeError("the budget does not bind, or does not hold; nothing was timed")
    return [
        _row(f"select/free@{share:.0%}", free, error_logit, threshold, everything),
        _row(f"select/budget@{share:.0%}", bound, error_logit, threshold, bound()),
    ]


def _row(
    name: str,
    work: Callable[[], Selection],
    error_logit: npt.NDArray[np.float32],
    threshold: float,
    found: Selection,
) -> Row:
    row = compare(name, work, lambda: plain(error_logit, threshold), pairs=60)
    note = f"{GRID[0]}x{GRID[1]}, {found.counts[2]} flagged, {found.left_out} left out, one thread"
    return Row(row.name, row.value, row.unit, note=note)


if __name__ == "__main__":
    logits = error_logits()
    finish([row for share in SHARES for row in measure(logits, share)], "select")
