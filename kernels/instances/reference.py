"""The definition, in NumPy; scores in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.fuse_labels.reference import FLOATS, Flagged, Logits, selected_probabilities
from errseg_rt.kernels.geometry import Axis, Geometry
from errseg_rt.kernels.instances.operands import LEAST_SIDE, ONE, InstanceMap, check, share_of_areas, steps
from errseg_rt.kernels.instances.spec import InstanceSpec

Float32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What may be an instance.

    Attributes:
        label: Class id.
        pixels: Flat indices on the grid.
        score: Confidence, in steps, rounded down.
        area: Of its first pixel's box, in grid cells.
    """

    label: int
    pixels: Int
    score: int
    area: np.float32


def instances_reference(
    semantic: Logits,  # [C, h, w]
    detail: Logits | None,  # [C, h, w] or [n, C]
    flagged: Flagged | None,  # [h, w]
    boxes: Float32,  # [4 T, h, w]
    labels: npt.NDArray[np.uint8],  # [H, W]
    geometry: Geometry,
    spec: InstanceSpec,
) -> InstanceMap[npt.NDArray[Any]]:
    """Tell instances apart; arguments, result and what is raised as those of `instances`."""
    check(semantic, detail, flagged, boxes, labels, geometry, spec, FLOATS)
    logits = selected_logits(semantic, detail, flagged)
    scores = np.floor(selected_probabilities(semantic, detail, flagged) * ONE + 0.5).astype(np.int64)
    is_seen = np.zeros(geometry.grid_size, bool)
    is_seen[: geometry.seen()[0], : geometry.seen()[1]] = True
    found = []
    for thing, label in enumerate(spec.classes):
        place, margin = place_and_margin(logits, label)
        of_thing = boxes[4 * thing : 4 * thing + 4]
        own = corners_of(of_thing)
        corners = own[:, hopped(of_thing, own, (place == 0) & is_seen, spec)]
        for top in range(1, spec.top + 1):
            candidates = np.flatnonzero((place < top) & is_seen)
            for pixels in grouped(candidates, margin.ravel()[candidates], corners[:, candidates], spec):
                first, weights = corners[:, pixels[0]], scores[label].ravel()[pixels]
                if spec.agreement:
                    weights = weights * agreements(first, own[:, pixels]) // ONE
                found.append(Hypothesis(label, pixels, int(weights.sum()) // len(pixels), first[4]))
    chosen = accepted(found, spec)
    on_grid = np.zeros(geometry.grid_size, np.int32)
    for number, hypothesis in reversed(list(enumerate(chosen, 1))):  # the most confident one comes last, and stays
        on_grid.ravel()[hypothesis.pixels] = number
    classes, confidences = np.zeros(spec.most, np.int32), np.zeros(spec.most, np.float32)
    classes[: len(chosen)] = [hypothesis.label for hypothesis in chosen]
    confidences[: len(chosen)] = [hypothesis.score / ONE for hypothesis in chosen]
    of_frame = on_frame(on_grid, classes, labels, geometry)
    return InstanceMap(of_frame, classes, confidences, np.array(len(chosen), np.int32))


def selected_logits(semantic: Logits, detail: Logits | None, flagged: Flagged | None) -> Float32:
    """Logits on the grid, float32 [C, h, w]: of the detail branch where flagged, else of the semantic branch."""
    logits = semantic.astype(np.float32)
    if detail is not None and flagged is not None:
        if detail.ndim == 3:
            return np.where(flagged, detail.astype(np.float32), logits)
        used = flagged >= 0
        logits[:, used] = detail.T.astype(np.float32)[:, flagged[used]]
    return logits


def place_and_margin(logits: Float32, label: int) -> tuple[Int, Float32]:
    """How many classes come before a class at each pixel, and how far it lies above the best other one.

    Of classes with the same logit the lower one comes first.
    """
    own = logits[label]
    place = (logits > own).sum(axis=0) + (logits[:label] == own).sum(axis=0)
    return place, own - np.delete(logits, label, axis=0).max(axis=0)


def corners_of(boxes: Float32) -> Float32:
    """Top, left, bottom and right of every pixel's box, and its area, float32 [5, h * w]."""
    rows, cols = np.mgrid[: boxes.shape[1], : boxes.shape[2]].astype(np.float32)
    y, x = rows + boxes[0], cols + boxes[1]
    height, width = (np.float32(0.5) * np.maximum(side, np.float32(LEAST_SIDE)) for side in boxes[2:])
    top, left, bottom, right = y - height, x - width, y + height, x + width
    return np.stack([top, left, bottom, right, (bottom - top) * (right - left)]).reshape(5, -1)


def hopped(boxes: Float32, corners: Float32, is_thing: npt.NDArray[np.bool_], spec: InstanceSpec) -> Int:
    """Whose box each pixel has after some hops, as flat indices [h * w].

    A pixel hops to the one in whose cell the centre of its box lies, if there is one, its best class is the same thing,
    and its box overlaps with the one that gives way by more than `overlap`: else that centre is hidden by another.

    Args:
        boxes: Of one thing, [4, h, w].
        corners: As `corners_of` makes them.
        is_thing: Whether it is a pixel's best class, [h, w].
        spec: How many hops.
    """
    height, width = is_thing.shape
    (dy, dx), share = boxes[:2].reshape(2, -1), share_of_areas(spec.overlap)
    found = np.arange(height * width)
    for _ in range(spec.hops):
        y, x = (found // width).astype(np.float32) + dy[found], (found % width).astype(np.float32) + dx[found]
        y, x = y + np.float32(0.5), x + np.float32(0.5)
        in_grid = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        i, j = (np.where(in_grid, place, 0).astype(np.int64) for place in (y, x))
        centre = i * width + j
        old, new = corners[:, found], corners[:, centre]
        is_over = intersections(old, new) > share * (old[4] + new[4])
        found = np.where(in_grid & is_thing.ravel()[centre] & is_over, centre, found)
    return found


def grouped(pixels: Int, margin: Float32, corners: Float32, spec: InstanceSpec) -> list[Int]:
    """Pixels of each hypothesis of a mask, its first one first, as they are found: greedy NMS of the boxes."""
    order = np.argsort(-margin, kind="stable")  # ties: the lower index first
    pixels, corners = pixels[order], corners[:, order]
    share = share_of_areas(spec.overlap)
    groups: list[Int] = []
    while len(pixels) and len(groups) < spec.most:
        is_taken = intersections(corners[:, 0], corners) > share * (corners[4, 0] + corners[4])
        is_taken[0] = True
        groups.append(pixels[is_taken])
        pixels, corners = pixels[~is_taken], corners[:, ~is_taken]
    return groups


def intersections(box: Float32, boxes: Float32) -> Float32:
    """Area that each box [5, n] shares with one, [5], or with its own one, [5, n]."""
    height = np.minimum(box[2], boxes[2]) - np.maximum(box[0], boxes[0])
    width = np.minimum(box[3], boxes[3]) - np.maximum(box[1], boxes[1])
    return np.asarray(np.maximum(height, np.float32(0)) * np.maximum(width, np.float32(0)))


def agreements(box: Float32, boxes: Float32) -> Int:
    """IoU of a box [5] with others [5, n], in steps; 0 where they share no area, or one beyond all numbers.

    With a share s of the sum of both areas it is s / (1 - s), and s is a half at most, rounded or not.
    """
    shared = intersections(box, boxes)
    is_some = (shared > 0) & (shared < np.inf)
    share = np.where(is_some, shared, np.float32(0)) / np.where(is_some, box[4] + boxes[4], np.float32(1))
    return np.floor(share / (1 - share) * np.float32(ONE) + np.float32(0.5)).astype(np.int64)


def accepted(found: list[Hypothesis], spec: InstanceSpec) -> list[Hypothesis]:
    """Those that are kept, by falling confidence, ties as they were found: region NMS."""
    least, fill, share = steps(spec.least_score), np.float32(spec.least_fill), share_of_areas(spec.region_overlap)
    kept: list[Hypothesis] = []
    for hypothesis in sorted(found, key=lambda each: -each.score):
        if len(kept) == spec.most:
            break
        is_small = len(hypothesis.pixels) < spec.least_pixels
        if hypothesis.score < least or is_small or np.float32(len(hypothesis.pixels)) < fill * hypothesis.area:
            continue
        masks = ((len(np.intersect1d(hypothesis.pixels, each.pixels)), len(each.pixels)) for each in kept)
        size = len(hypothesis.pixels)
        if not any(np.float32(shared) > share * np.float32(size + other) for shared, other in masks):
            kept.append(hypothesis)
    return kept


def on_frame(
    on_grid: npt.NDArray[np.int32],  # [h, w]
    classes: npt.NDArray[np.int32],  # by number, less 1
    labels: npt.NDArray[np.uint8],  # [H, W]
    geometry: Geometry,
) -> npt.NDArray[np.int32]:
    """The instance of each pixel's class with the largest share of it; ties: the lower number."""
    (top, down), (left, right) = (_shares(axis) for axis in geometry.axes())
    rows, cols = top[0], left[0]
    below, beside = np.minimum(rows + 1, len(on_grid) - 1), np.minimum(cols + 1, on_grid.shape[1] - 1)
    label_of = np.append(-1, classes)
    numbers, shares = [], []
    for i, row_share in ((rows, top[1]), (below, down[1])):
        for j, col_share in ((cols, left[1]), (beside, right[1])):
            number = on_grid[np.ix_(i, j)]
            numbers.append(np.where(label_of[number] == labels, number, 0))
            shares.append(row_share[:, None] * col_share)
    best, largest = np.zeros(labels.shape, np.int32), np.zeros(labels.shape, np.int64)
    for number in numbers:
        share = sum(np.where(other == number, share, 0) for other, share in zip(numbers, shares, strict=True))
        is_better = (number > 0) & ((share > largest) | ((share == largest) & (number < best)))
        best, largest = np.where(is_better, number, best), np.where(is_better, share, largest)
    return best


def _shares(axis: Axis) -> tuple[tuple[Int, Int], tuple[Int, Int]]:
    """Of every output pixel the grid line before it, and the share of that; the line, and the share of the next."""
    position = np.clip(axis.slope * np.arange(axis.pixels, dtype=np.int64) + axis.offset, axis.first, axis.last)
    lower = np.minimum(position // axis.unit, max(axis.lines - 2, 0))
    weight = position - lower * axis.unit
    return (lower, axis.unit - weight), (lower, weight)
