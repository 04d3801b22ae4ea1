"""Finding instances on the CPU.

Candidates are sorted once; each then asks the hypotheses before it whose boxes may overlap with its own, which are
noted in bins by their centres: an IoU above a bound leaves two centres no farther apart than a share of either's size.
Of the frame, only cells whose corners disagree need any arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.compiled import share, writable
from errseg_rt.kernels.fuse_labels.cpu import Operands
from errseg_rt.kernels.fuse_labels.reference import FLOATS, Flagged, Logits
from errseg_rt.kernels.geometry import Axis, Geometry
from errseg_rt.kernels.instances.loops import (
    FEW,
    MOST_THINGS,
    PIXEL_BITS,
    SIDE,
    accept,
    group,
    list_candidates,
    number_pixels,
    paint_rows,
    rank_rows,
    weigh,
)
from errseg_rt.kernels.instances.operands import ONE, InstanceMap, check, share_of_areas, steps, thing_table
from errseg_rt.kernels.instances.spec import InstanceSpec

# Grid pixels, and frame pixels, below which another thread costs more than it brings.
GRID_OF_A_THREAD, FRAME_OF_A_THREAD = 20_000, 300_000


def instances(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w] or [n, C]
    flagged: Flagged | None,  # [h, w]
    boxes: npt.NDArray[np.float32],  # [4 T, h, w]
    labels: npt.NDArray[np.uint8],  # [H, W]
    geometry: Geometry,
    spec: InstanceSpec,
    *,
    threads: int = 1,
) -> InstanceMap[npt.NDArray[Any]]:
    """Tell instances apart; `errseg_rt.kernels.instances` says it in full."""
    check(semantic, detail, flagged, boxes, labels, geometry, spec, FLOATS)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    height, width = geometry.grid_size
    if height * width > 1 << PIXEL_BITS:
        raise ValueError(f"a grid has at most {1 << PIXEL_BITS} pixels, got {height} x {width}")
    ranked = _Ranked.of(semantic, detail, flagged, geometry, spec, min(threads, 1 + height * width // GRID_OF_A_THREAD))
    found = _Hypotheses.of(ranked, writable(boxes), spec).accepted(spec)
    if not found.count:
        return replace(found, map=np.zeros(geometry.output_size, np.int32))
    output = np.empty(geometry.output_size, np.int32)
    workers = min(threads, 1 + output.size // FRAME_OF_A_THREAD)
    _paint(found.map.reshape(height, width), found.classes, writable(labels), geometry, workers, output)
    return replace(found, map=output)


@dataclass(frozen=True)
class _Ranked:
    """The n best classes of each grid pixel, as far as they are things; in the rows and columns that are seen.

    Attributes:
        things: int32 [n, h * w], -1 for none.
        margins: float32 [n, h * w].
        scores: int32 [n, h * w], in steps.
    """

    things: npt.NDArray[np.int32]
    margins: npt.NDArray[np.float32]
    scores: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls,
        semantic: Logits,
        detail: Logits | None,
        flagged: Flagged | None,
        geometry: Geometry,
        spec: InstanceSpec,
        threads: int,
    ) -> _Ranked:
        operands = Operands.of(semantic, detail, flagged, threads)
        table, (rows, cols) = thing_table(spec, len(semantic)), geometry.seen()
        classes, (height, width), top = len(semantic), geometry.grid_size, min(spec.top, len(semantic))
        ranked = cls(
            np.full((top, height * width), -1, np.int32),
            np.empty((top, height * width), np.float32),
            np.empty((top, height * width), np.int32),
        )

        def rank(begin: int, end: int) -> None:
            rank_rows(
                *operands.all(),
                table,
                cols,
                begin,
                end,
                np.empty((classes, width), np.float32),
                np.empty(width, np.int32),
                np.empty(width, np.float32),
                np.empty((2, width), np.int64),
                np.empty((top, width), np.int32),
                np.empty((top, width), np.float32),
                ranked.things,
                ranked.margins,
                ranked.scores,
            )

        share(threads, rows, rank)
        return ranked


@dataclass(frozen=True)
class _Hypotheses:
    """What may be instances, mask by mask.

    Attributes:
        owners: int32 [n (n + 1) / 2, h * w]: the hypothesis of each pixel, -1 for none, in a line for each of the
            classes of a pixel in each of the top-n masks.
        sizes: int64 [m], pixels of each.
        totals: int64 [m], sums of their scores, each as far as its pixel's box agrees where that is asked for.
        areas: float32 [m], areas of the boxes of their first pixels.
        classes: int32 [m], class ids.
    """

    owners: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, ranked: _Ranked, boxes: npt.NDArray[np.float32], spec: InstanceSpec) -> _Hypotheses:
        top, pixels = ranked.things.shape
        height, width = boxes.shape[1:]
        owners = np.full((top * (top + 1) // 2, pixels), -1, np.int32)
        keys = [_sorted_candidates(ranked, n) for n in range(1, top + 1)]
        begins = [np.searchsorted(of_mask, first_keys(len(spec.classes) + 1)) for of_mask in keys]
        bins = -(-height // SIDE) * -(-width // SIDE)
        first, last = np.full(bins, -1, np.int32), np.empty(bins, np.int32)
        most = min(spec.most, max(map(len, keys)))
        notes, seeds = np.empty((2, FEW * most), np.int32), np.empty((5, most), np.float32)
        wide = np.empty(most, np.int32)
        areas, reach = share_of_areas(spec.overlap), reach_of(spec.overlap)
        masks: list[tuple[npt.NDArray[np.int64], int]] = []
        of_boxes = [np.empty(0, np.float32)]
        count = 0
        for thing, label in enumerate(spec.classes):
            for n in range(1, top + 1):
                own = keys[n - 1][begins[n - 1][thing] : begins[n - 1][thing + 1]]
                if not len(own):
                    continue
                owner, weights = np.empty((2, len(own)), np.int32)
                of_thing = boxes[4 * thing : 4 * thing + 4]
                boxes_of = of_thing, ranked.things, thing, spec.hops, spec.agreement
                found = group(own, *boxes_of, areas, reach, seeds, first, last, *notes, wide, owner, weights)
                of_mask = np.zeros((2, found), np.int64)
                weigh(own, owner, weights, thing, ranked.things, ranked.scores, n, count, owners, *of_mask)
                masks.append((of_mask, label))
                of_boxes.append(seeds[4, :found].copy())
                count += found
        sizes, totals = np.concatenate([np.empty((2, 0), np.int64), *(mask for mask, _ in masks)], axis=1)
        classes = np.repeat([label for _, label in masks], [mask.shape[1] for mask, _ in masks])
        return cls(owners, sizes, totals, np.concatenate(of_boxes), classes.astype(np.int32))

    def accepted(self, spec: InstanceSpec) -> InstanceMap[npt.NDArray[Any]]:
        """Those that are kept, by falling confidence; their map is that of the grid, `[h * w]`."""
        means = self.totals // np.maximum(self.sizes, 1)
        order = np.argsort(-means, kind="stable")  # ties: as they were found
        is_full = self.sizes.astype(np.float32) >= np.float32(spec.least_fill) * self.areas
        is_kept = (means >= steps(spec.least_score)) & (self.sizes >= spec.least_pixels) & is_full
        order = order[is_kept[order]]
        number_of = np.zeros(len(means), np.int32)
        if len(self.owners) == 1:  # masks of the best class have no pixel in common
            order = order[: spec.most]
            number_of[order] = np.arange(1, len(order) + 1)
        else:
            self._accept(order, spec, number_of)
            order = order[number_of[order] > 0]
        classes, scores = np.zeros(spec.most, np.int32), np.zeros(spec.most, np.float32)
        classes[: len(order)], scores[: len(order)] = self.classes[order], means[order] / ONE
        on_grid = np.empty(self.owners.shape[1], np.int32)
        number_pixels(self.owners, number_of, on_grid)
        return InstanceMap(on_grid, classes, scores, np.array(len(order), np.int32))

    def _accept(self, order: npt.NDArray[np.int64], spec: InstanceSpec, number_of: npt.NDArray[np.int32]) -> None:
        """Number those that overlap with no more confident one."""
        flat = self.owners.ravel()
        at = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
        begins = np.append(0, np.cumsum(self.sizes))
        shared = np.zeros(len(self.sizes), np.int64)
        areas = share_of_areas(spec.region_overlap)
        accept(order, begins, at % self.owners.shape[1], self.owners, self.sizes, areas, spec.most, number_of, shared)


def reach_of(overlap: float) -> np.float32:
    """How far apart the centres of two boxes with an IoU above `overlap` lie at most, as a share of a side of either.

    Their intersection is above `overlap` times the area of each, so along one axis it is above that times each side a
    and b. It is at most (a + b) / 2 less the distance d: d < (a + b) / 2 - overlap max(a, b). With b <= a that is at
    most (1 - overlap) a; with b > a it grows with b for overlaps below a half, up to b = a / overlap.
    """
    return np.float32(max(1 - overlap, (1 / overlap - 1) / 2))


def first_keys(things: int) -> npt.NDArray[np.int64]:
    """The least key that each of some things, counted from 0, can have."""
    return (np.arange(things, dtype=np.int64) - MOST_THINGS // 2) << (32 + PIXEL_BITS)


def _sorted_candidates(ranked: _Ranked, top: int) -> npt.NDArray[np.int64]:
    """Keys of the candidates of the top-n masks, sorted: by thing, falling margin and index."""
    keys = np.empty(np.count_nonzero(ranked.things[:top] >= 0), np.int64)
    list_candidates(ranked.things, ranked.margins, top, keys)
    keys.sort()
    return keys


def _places(axis: Axis) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The grid line before each output pixel, and the share of the next one, in parts of the axis's unit."""
    position = np.clip(axis.slope * np.arange(axis.pixels, dtype=np.int64) + axis.offset, axis.first, axis.last)
    lower = np.minimum(position // axis.unit, max(axis.lines - 2, 0))
    return lower, position - lower * axis.unit


def _paint(
    on_grid: npt.NDArray[np.int32],
    classes: npt.NDArray[np.int32],
    labels: npt.NDArray[np.uint8],
    geometry: Geometry,
    threads: int,
    output: npt.NDArray[np.int32],
) -> None:
    rows, cols = geometry.axes()
    row_lower, row_weight = _places(rows)
    col_lower, col_weight = _places(cols)
    col_first = np.searchsorted(col_lower, np.arange(max(cols.lines - 1, 1) + 1))

    def paint(begin: int, end: int) -> None:
        lines = np.empty((2, output.shape[1]), np.int32)
        places = row_lower, row_weight, rows.unit, col_weight, cols.unit, col_first
        paint_rows(on_grid, classes, labels, *places, begin, end, np.empty(cols.lines, np.int32), *lines, output)

    share(threads, len(output), paint)
