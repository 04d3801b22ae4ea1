"""Finding instances on a GPU, as launches of kernels, the same ones whatever a frame shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.fuse_labels.launches import DETAIL_MAP, DETAIL_ROWS, NO_DETAIL, position_type
from errseg_rt.kernels.geometry import Axis, Geometry
from errseg_rt.kernels.instances.operands import InstanceMap, share_of_areas, steps, thing_table
from errseg_rt.kernels.instances.spec import InstanceSpec
from errseg_rt.kernels.launch import Launch, Launcher, Wide, cdiv, next_power_of_2

# Of a tile of the grid or the frame, of a tile of hypotheses, and of the programs that work on a whole mask alone: in
# these a thread has one pixel at a time, as for more some compilers spill.
PIXELS, WARPS = 512, 4
GROUP_PIXELS, GROUP_WARPS = 256, 8
SORTED, OTHERS = 128, 32
# Of what tells a pixel's places in a mask's list apart: an index of 24 bits, and which of up to 8 classes.
PIXEL_BITS = 24


class DeviceThings(NamedTuple):
    """Which classes have instances, for kernels.

    Attributes:
        spec: How instances are found.
        table: float32 [C], which thing each class is, and -1 for a class without instances; whole numbers.
    """

    spec: InstanceSpec
    table: Any

    @classmethod
    def brought(
        cls, spec: InstanceSpec, classes: int, bring: Callable[[npt.NDArray[np.float32], str], Any]
    ) -> DeviceThings:
        """Those of a spec, among so many classes, brought to a GPU."""
        return cls(spec, bring(thing_table(spec, classes).astype(np.float32), "float32"))


def enqueue_instances(
    launcher: Launcher,
    semantic: Any,  # [C, h, w]
    detail: Any | None,  # [C, h, w], or [n, C]
    flagged: Any | None,  # [h, w], bool for a map, int32 for rows
    boxes: Any,  # [4 T, h, w]
    labels: Any,  # [H, W]
    geometry: Geometry,
    things: DeviceThings,
) -> InstanceMap[Any]:
    """Tell instances apart; `errseg_rt.kernels.instances` says it in full.

    Raises:
        ValueError: The grid has more pixels than a key can tell apart.
    """
    spec, table = things
    classes, height, width = (int(length) for length in semantic.shape)
    pixels, count = height * width, len(spec.classes)
    if pixels > 1 << PIXEL_BITS:
        raise ValueError(f"a grid has at most {1 << PIXEL_BITS} pixels, got {height} x {width}")
    top, most = min(spec.top, classes), spec.most
    masks, lines = count * top, top * (top + 1) // 2
    tiles = cdiv(pixels, PIXELS)
    kind = NO_DETAIL if detail is None else DETAIL_ROWS if len(detail.shape) == 2 else DETAIL_MAP

    def launch(kernel: str, grid: tuple[int, ...], *arguments: Any, warps: int = WARPS, **constants: Any) -> None:
        launcher.launch(Launch(f"instances.{kernel}", grid, arguments, constants, warps))

    of_pixels = [launcher.empty((top, pixels), "int32") for _ in range(3)]
    thing, rank, score = of_pixels
    corners = launcher.empty((5, top, pixels), "float32")
    launch(
        "rank_pixels", (tiles,),
        semantic, semantic if detail is None else detail, semantic if flagged is None else flagged, boxes, table,
        0 if detail is None else detail.shape[0], height, width, *geometry.seen(), *of_pixels, corners,
        CLASSES=classes, DETAIL=kind, TOP=top, PIXELS=PIXELS,
    )  # fmt: skip

    placed = corners
    if spec.hops:
        placed = launcher.empty((5, top, pixels), "float32")
        launch(
            "hop_boxes", (tiles, top),
            boxes, thing, corners, height, width, float(share_of_areas(spec.overlap)), placed,
            HOPS=spec.hops, PIXELS=PIXELS,
        )  # fmt: skip

    counts, found = (launcher.empty((masks,), "int32") for _ in range(2))
    members, owner = (launcher.empty((lines * pixels,), "int32") for _ in range(2))
    turns, begins = launcher.empty((lines * pixels,), "int64"), launcher.empty((masks,), "int64")
    sizes, totals = (launcher.zeros((masks * most,), dtype) for dtype in ("int32", "int64"))
    firsts = launcher.empty((masks * most,), "int32")
    owners = launcher.empty((lines, pixels), "int32")
    launch("clear", (cdiv(lines * pixels, PIXELS),), owners, lines * pixels, VALUE=-1, PIXELS=PIXELS)
    whole = {"PIXELS": GROUP_PIXELS, "warps": GROUP_WARPS}
    launch("count_members", (count, top), thing, pixels, counts, **whole)
    launch(
        "group_members", (count, top),
        thing, rank, placed, counts, pixels, most, float(share_of_areas(spec.overlap)),
        members, turns, owner, begins, found, firsts, THINGS=next_power_of_2(count), **whole,
    )  # fmt: skip
    launch(
        "weigh_members", (cdiv(top * pixels, PIXELS), masks),
        members, owner, counts, begins, firsts, score, placed, corners, pixels, most, top,
        owners, sizes, totals, AGREEMENT=spec.agreement, PIXELS=PIXELS,
    )  # fmt: skip

    keys = launcher.empty((masks * most,), "int64")
    order, valid = launcher.empty((masks * most,), "int32"), launcher.zeros((1,), "int32")
    of_hypotheses = cdiv(masks * most, PIXELS)
    launch(
        "make_keys", (of_hypotheses,),
        found, sizes, totals, firsts, placed, masks, most, top, pixels,
        steps(spec.least_score), spec.least_pixels, float(spec.least_fill), keys, PIXELS=PIXELS,
    )  # fmt: skip
    launch(
        "sort_keys", (cdiv(masks * most, SORTED),),
        keys, found, masks, most, order, valid, PIXELS=SORTED, OTHERS=OTHERS,
    )  # fmt: skip

    number_of = launcher.zeros((masks * most,), "int32")
    labels_of, scores, total = (
        launcher.empty((most,), "int32"), launcher.empty((most,), "float32"), launcher.empty((), "int32"),
    )  # fmt: skip
    results = number_of, labels_of, scores, total
    if top == 1:  # masks of the best class have no pixel in common
        launch(
            "number_all", (cdiv(most, PIXELS),), order, valid, keys, table, most, *results,
            CLASSES=next_power_of_2(classes), TABLE=classes, PIXELS=PIXELS,
        )  # fmt: skip
    else:
        shared, sizes_of = launcher.zeros((most + 1,), "int32"), launcher.empty((most + 1,), "int32")
        launch(
            "number_apart", (1,), order, valid, keys, table, most, *results,
            members, owner, begins, counts, sizes, owners, pixels, float(share_of_areas(spec.region_overlap)),
            shared, sizes_of, CLASSES=next_power_of_2(classes), TABLE=classes, TOP=top, LINES=lines, THINGS=count,
            **whole,
        )  # fmt: skip

    on_grid, output = launcher.empty((height, width), "int32"), launcher.empty(geometry.output_size, "int32")
    launch("number_pixels", (tiles,), owners, number_of, pixels, on_grid, LINES=lines, PIXELS=PIXELS)
    position = position_type(geometry)
    launch(
        "paint", (cdiv(geometry.output_size[0] * geometry.output_size[1], PIXELS),),
        on_grid, labels_of, labels, height, width, *geometry.output_size,
        *(number for axis in geometry.axes() for number in _axis_arguments(axis, position)), output,
        POSITION=position, PIXELS=PIXELS,
    )  # fmt: skip
    return InstanceMap(output, labels_of, scores, total)


def _axis_arguments(axis: Axis, position: str) -> tuple[int | Wide, ...]:
    places = axis.slope, axis.offset, axis.first, axis.last, axis.unit
    return *(Wide(place) if position == "int64" else place for place in places), max(axis.lines - 2, 0)
