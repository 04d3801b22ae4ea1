"""Calibration on a GPU, as a launch."""

from __future__ import annotations

import math
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, cdiv, next_power_of_2

PIXELS, WARPS = 512, 4
# With the detail branch's doubt: fewer, so that a thread's masks stay in predicates instead of being spilled.
FINAL_PIXELS = 256


def enqueue_calibrate(
    launcher: Launcher,
    error_logit: Any,  # [h, w]
    knots: Any,  # [2, n]
    detail: Any | None = None,  # [C, h, w], or [m, C]
    where: Any | None = None,  # [h, w], bool for a map, int32 for rows
    detail_knots: Any | None = None,  # [2, k]
    above: float = -math.inf,
) -> Any:  # [h, w] float32
    """Error probability in float32; `errseg_rt.kernels.calibrate.reference` is the definition.

    With detail logits it is that of the final label.

    Args:
        launcher: Of the GPU that holds the operands.
        error_logit: float32, float16 or bfloat16, contiguous.
        knots: float32, contiguous: logits, never decreasing, and probabilities, likewise. There is at least one.
        detail: Detail logits, of every pixel or of some, as `fuse_labels` takes them.
        where: Which pixels take theirs from `detail`, likewise; given with it.
        detail_knots: Those of the map of the detail branch's doubt, given with it.
        above: The error logit that pixels exceed for which that map was made; others have the first one.

    Raises:
        ValueError: An operand has another shape, or gaps, or only some of the last three are given.
    """
    if len(error_logit.shape) != 2 or not error_logit.is_contiguous():
        raise ValueError(f"error_logit must be contiguous [h, w], got {list(error_logit.shape)}")
    count = _knot_count("knots", knots)
    height, width = (int(length) for length in error_logit.shape)
    pixels = height * width
    probability = launcher.empty((height, width), "float32")
    given = [operand is not None for operand in (detail, where, detail_knots)]
    if any(given) and not all(given):
        raise ValueError("detail, where and detail_knots go together, and one of them is None")
    if not pixels:
        return probability
    kernel, tile, constants = "calibrate.calibrate", PIXELS, dict[str, Any]()
    operands: tuple[Any, ...] = (error_logit, pixels, knots, count)
    if detail is not None:
        as_rows, more = len(detail.shape) == 2, _knot_count("detail_knots", detail_knots)
        kernel, tile = "calibrate.calibrate_final", FINAL_PIXELS
        constants = {"CLASSES": int(detail.shape[1 if as_rows else 0]), "AS_ROWS": as_rows}
        operands = *operands, detail, where, int(detail.shape[0]), detail_knots, more, float(above)
        count = max(count, more)
    arguments = (*operands, next_power_of_2(count) // 2, probability)
    launcher.launch(Launch(kernel, (cdiv(pixels, tile),), arguments, {**constants, "PIXELS": tile}, WARPS))
    return probability


def _knot_count(name: str, knots: Any) -> int:
    """How many there are; ValueError unless they are knots."""
    if len(knots.shape) != 2 or knots.shape[0] != 2 or not knots.shape[1] or not knots.is_contiguous():
        raise ValueError(f"{name} must be contiguous [2, n] with n of at least 1, got {list(knots.shape)}")
    return int(knots.shape[1])
