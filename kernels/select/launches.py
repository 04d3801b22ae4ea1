"""Selection as launches of kernels, the same ones whatever a frame shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, Wide, cdiv, next_power_of_2
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.kernels.select.operands import Selection

# Of a tile.
PIXELS, WARPS = 512, 8
# Of a turn, which is what the budget goes by: 32 bits are the logit's, the others the pixel's index.
BITS, DIGITS = 12, 5
INDEX_BITS = BITS * DIGITS - 32
# Whether the program that comes last narrows a digit, once and for all, or each program of the next launch for itself;
# benchmarks/gpu.py tries the former.
TICKET = False
# Tiles that one compiled kernel numbers at least, so that frames of usual sizes share it.
USUAL_TILES = 512


def enqueue_select(
    launcher: Launcher,
    error_logit: Any,  # [h, w]
    limits: Any,  # [2] int64
    *,
    seen: Sequence[int],
    layers: Layers,
) -> Selection:
    """Launch what `errseg_rt.kernels.select` describes; limits are data, which may differ from replay to replay.

    Args:
        launcher: Of the GPU that holds the operands.
        error_logit: `[h, w]`, float32, float16 or bfloat16.
        limits: Threshold and budget, as `Bounds.words` has them.
        seen: Rows and columns.
        layers: What a pixel of F1, F2 and F3 costs, and how far F1 and F2 reach.

    Raises:
        ValueError: The grid has more pixels than a budget can tell apart.
    """
    height, width = (int(side) for side in error_logit.shape)
    pixels = height * width
    if pixels > 1 << INDEX_BITS:
        raise ValueError(f"a grid has at most {1 << INDEX_BITS} pixels, got {height} x {width}")
    tiles = cdiv(pixels, PIXELS)
    reach = {"REACH1": layers.reach[0], "REACH2": layers.reach[1]}
    logits = (error_logit, limits, height, width, *seen)
    flagged, left_out = launcher.empty((height, width), "bool"), launcher.zeros((), "int32")
    turns = launcher.empty((3, pixels), "int64")
    lines = DIGITS + TICKET
    found, work = launcher.empty((lines, 2), "int64"), launcher.zeros((lines, 1 << BITS), "int64")
    digits = {"BITS": BITS, "DIGITS": DIGITS, **({"TICKET": True} if TICKET else {})}

    def launch(kernel: str, *arguments: Any, **constants: int) -> None:
        launcher.launch(Launch(f"select.{kernel}", (tiles,), arguments, {"PIXELS": PIXELS, **constants}, WARPS))

    launch("flag", *logits, flagged)
    launch("enter", *logits, turns, INDEX_BITS=INDEX_BITS, **reach)
    for digit in range(DIGITS):
        launch("weigh", turns, pixels, *map(Wide, layers.work), limits, digit, found, work, **digits)
    launch("cut", turns, pixels, limits, found, work, flagged, left_out, **digits)

    sums = launcher.empty((3, tiles), "int32")
    rows, slots = (launcher.empty((3, pixels), "int32") for _ in range(2))
    counts = launcher.empty((3,), "int32")
    launch("count", flagged, height, width, sums, **reach)
    most = max(USUAL_TILES, next_power_of_2(tiles))
    launch("number", flagged, height, width, sums, rows, slots, counts, TILES=most, **reach)
    return Selection(rows, slots, counts, left_out, flagged)
