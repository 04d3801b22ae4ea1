"""Refinement on the CPU, in float32: only the supports are computed, and nothing is gathered but the inputs.

A layer's result is an array of rows, one for each pixel of its support in raster order, with a row of zeros between one
row of the grid and the next. A support holds all that a kernel reaches from the next one's pixels, so the three pixels
under a row of a 3x3 kernel are three array rows that follow one another, at the border of the map too. A convolution
therefore needs three addresses a pixel, one where it is 1x1, from which the tiles (`tile.py`) read as they multiply.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from errseg_rt.kernels.refine.checks import check_inputs, check_selection
from errseg_rt.kernels.refine.loops import BAND, CHUNK, ROOM, convolve, finish, mix, plan, project
from errseg_rt.kernels.refine.panels import padded_channels
from errseg_rt.kernels.refine.turns import Step, run_in_turn
from errseg_rt.kernels.refine.upsampling import interpolation
from errseg_rt.kernels.refine.weights import Array, RefineWeights
from errseg_rt.kernels.select import Selection
from errseg_rt.kernels.team import Team

# Multiply-adds below which another thread costs more than it brings, about 0.4 ms on one core.
WORK_OF_A_THREAD = 20_000_000


def refine(
    weights: RefineWeights,
    selection: Selection,
    logits: Array,  # [K, h, w]
    low: Array,  # [Cl, h, w]
    coarse: Array,  # [Cc, h8, w8]
    gate: Array,  # [C]
    *,
    threads: int = 1,
) -> Array:  # [n3, K]
    """Refine on NumPy arrays; `errseg_rt.kernels.refine` says it in full."""
    check_selection(selection)
    check_inputs(weights, selection.grid_size, logits, low, coarse, gate)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    height, width = selection.grid_size
    (n1, n2, n3), panels = selection.counts.tolist(), weights.panels
    rows1, rows2, rows3 = (selection.support(layer) for layer in (1, 2, 3))
    slot1, slot2, _ = selection.slots
    stride = len(panels.low_bias)
    low_side, side1, side2 = weights.layers.kernels
    ys = interpolation(coarse.shape[1], height, weights.align_corners)
    xs = interpolation(coarse.shape[2], width, weights.align_corners)
    x = np.empty((n1 + height + 3, stride), np.float32)
    y = np.empty((n2 + height + 3, stride), np.float32)
    out = np.empty((n3, weights.classes), np.float32)
    starts = np.empty(height + 1, np.int64)
    coarse_pixels = coarse.shape[1] * coarse.shape[2]
    coarse_rows, coarse_slots = np.empty(coarse_pixels, np.int32), np.full(coarse_pixels, -1, np.int32)
    count = plan(
        rows1, rows2, rows3, ys.lower, xs.lower, *coarse.shape[1:], x, y, starts,
        coarse_rows, coarse_slots,
    )  # fmt: skip
    is_sound = count >= 0
    projected = np.empty((max(count, 0), stride), np.float32)
    low_weights, low_bias = panels.gated(gate)

    def project_chunks(counter: Any) -> bool:
        packed, begins = np.empty(CHUNK * len(coarse), np.float32), np.empty(ROOM, np.int64)
        return project(
            counter, coarse.reshape(len(coarse), -1), coarse_rows[:count], panels.project, panels.project_bias,
            panels.widths, projected, packed, begins, *_scratch(1),
        )  # fmt: skip

    def mix_bands(counter: Any) -> bool:
        packed = np.zeros((BAND + 2) * (width + 2) * len(low), np.float32)
        support = np.empty((BAND + 2, width + 2), np.uint8)
        pixels, pixel_places = np.empty(width, np.int32), np.empty(width, np.int64)
        return mix(
            counter, low.reshape(len(low), -1), rows1, starts, low_weights, low_bias, panels.widths,
            ys.lower, ys.weight.astype(np.float32), xs.lower, xs.weight.astype(np.float32), coarse.shape[2],
            coarse_slots, projected, x, packed, support, pixels, pixel_places, *_scratch(low_side),
        )  # fmt: skip

    def convolve_chunks(counter: Any) -> bool:
        return convolve(
            counter, x, n1, slot1, rows2, height, width, weights.channels, panels.first,
            panels.bias1, panels.widths, y, *_scratch(side1),
        )  # fmt: skip

    def finish_chunks(counter: Any) -> bool:
        z = np.empty(CHUNK * stride, np.float32)
        sums = np.zeros(CHUNK * padded_channels(weights.classes), np.float32)
        return finish(
            counter, y, n2, slot2, rows3, height, width, weights.channels, panels.second,
            panels.bias2, panels.widths, panels.head, weights.head_bias, panels.head_widths, weights.residual,
            logits.reshape(len(logits), -1), out, z, sums, *_scratch(side2), np.empty((ROOM, 1), np.int64),
        )  # fmt: skip

    steps = (
        Step(project_chunks, -(-count // CHUNK)),
        Step(mix_bands, -(-height // BAND)),
        Step(convolve_chunks, -(-n2 // CHUNK)),
        Step(finish_chunks, -(-n3 // CHUNK)),
    )
    with Team(min(threads, 1 + selection.work(weights.layers) // WORK_OF_A_THREAD)) as team:
        is_sound = is_sound and run_in_turn(team, steps)
    if not is_sound:
        raise ValueError(f"supports must be those of flagged pixels, as select makes them, got {selection.counts = }")
    return out


def _scratch(size: int) -> tuple[Any, ...]:
    """Corners and places of a chunk, for a kernel of this size."""
    return np.empty((ROOM, size), np.int64), np.empty(ROOM, np.int64)
