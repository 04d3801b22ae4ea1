"""Refinement on a GPU, as a sequence of launches that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, cdiv, dtype_of, next_power_of_2
from errseg_rt.kernels.refine.operands import DeviceWeights, stride_of
from errseg_rt.kernels.select import Selection


@dataclass(frozen=True)
class Tile:
    """What a program of a convolution computes at once.

    Attributes:
        pixels: Rows.
        depth: Input channels of a step.
        width: Output channels at most, of a convolution between supports: it reads its inputs again for each such tile.
        warps: Of 32 threads.
        stages: Steps that are loaded at a time, the running one among them.
    """

    pixels: int
    depth: int
    width: int
    warps: int
    stages: int


# Each program reads all weights of its output channels: the more rows share them, the less comes from the cache. The
# large tile halves that, and fits where a multiprocessor has 227 KiB of shared memory, from compute capability 9.0 on,
# but for those with 99 KiB (12.x). On F3, which has few rows, small tiles fill more multiprocessors.
SMALL, LARGE = Tile(64, 64, 160, 4, 3), Tile(128, 64, 160, 8, 4)
FLOAT32 = Tile(64, 32, 64, 4, 3)  # no tensor cores, and more registers
# Programs along the rows of a convolution at most, each of which does tile after tile; 0: one for each tile that a
# full support would need, most of which end at once. benchmarks/gpu.py tries as many as the multiprocessors hold.
PROGRAMS = 0
# Output channels of a tile of a 1x1 convolution; pixels, channels and warps of a tile that is only moved.
POINT_WIDTH = 64
MOVED_PIXELS, MOVED_DEPTH, MOVED_WARPS = 64, 64, 4


def enqueue_refine(
    launcher: Launcher,
    weights: DeviceWeights,
    selection: Selection,
    logits: Any,  # [K, h, w]
    low: Any,  # [Cl, h, w], planes or channels last
    coarse: Any,  # [Cc, h8, w8]
    gate: Any,  # [C]
) -> Any:  # [h * w, K]
    """Detail logits, of which the first n3 rows are written; `errseg_rt.kernels.refine` says it in full."""
    host, (rows, slots, counts) = weights.host, (selection.rows, selection.slots, selection.counts)
    return enqueue_layers(
        launcher, weights.arrays, rows, slots, counts, logits, low, coarse, gate, host.residual, host.align_corners
    )


def enqueue_layers(
    launcher: Launcher,
    weights: Sequence[Any],
    rows: Any,
    slots: Any,
    counts: Any,
    logits: Any,
    low: Any,
    coarse: Any,
    gate: Any,
    residual: bool,
    align_corners: bool,
) -> Any:
    """The same on arrays alone: weights as `DeviceWeights.arrays` has them, the rest as in a `Selection`."""
    by_low, by_project, by_first, by_second, by_head, *biases = weights
    classes, height, width = logits.shape
    low_channels, (coarse_channels, *coarse_size) = low.shape[0], coarse.shape
    pixels, coarse_pixels = height * width, coarse_size[0] * coarse_size[1]
    stride, low_stride, class_stride = by_low.shape[1], stride_of(low_channels), by_head.shape[1]
    dtype = dtype_of(low)
    large, small = tiles(dtype, launcher.capability)
    widths = tile_widths(stride, large.width)
    columns = cdiv(stride, sum(widths))
    many, few = (cdiv(pixels, tile.pixels) for tile in (large, small))
    point, class_point = point_width(stride), point_width(class_stride)
    shape = {"STRIDE": stride, "WIDTH": widths[0], "REST": widths[1]}
    if PROGRAMS:
        shape["PERSISTENT"] = True
    moved = {"PIXELS": MOVED_PIXELS, "DEPTH": MOVED_DEPTH}
    projected = launcher.empty((coarse_pixels, stride), dtype)
    x, y, z = (launcher.empty((pixels, stride), dtype) for _ in range(3))
    out = launcher.empty((pixels, classes), dtype)

    low_side = side_of(by_low, low_stride)
    is_last = is_channels_last(low)
    packed = low
    if not is_last or low_stride != low_channels:
        packed = launcher.empty((pixels, low_stride), dtype)
        launcher.launch(
            Launch(
                "refine.pack",
                (cdiv(pixels, MOVED_PIXELS), cdiv(low_stride, MOVED_DEPTH)),
                (low, slots, height, width, packed),
                {"CHANNELS": low_channels, "STRIDE": low_stride, "CHANNELS_LAST": is_last, "SIDE": low_side, **moved},
                MOVED_WARPS,
            )
        )
    launcher.launch(
        Launch(
            "refine.project",
            (cdiv(coarse_pixels, small.pixels), cdiv(stride, point)),
            (coarse, coarse_pixels, by_project, biases[1], projected),
            {"CHANNELS": coarse_channels, "STRIDE": stride, "WIDTH": point, **steps(small)},
            small.warps,
            small.stages,
        )
    )
    launcher.launch(
        Launch(
            "refine.convolve_low",
            (programs_of(many), columns),
            (packed, rows, counts, height, width, by_low, biases[0], gate, x),
            {"CHANNELS": gate.shape[0], "SIDE": low_side, "SOURCE_STRIDE": low_stride, **shape, **steps(large)},
            large.warps,
            large.stages,
        )
    )
    launcher.launch(
        Launch(
            "refine.interpolate",
            (cdiv(pixels, MOVED_PIXELS), cdiv(stride, MOVED_DEPTH)),
            (projected, *coarse_size, rows, counts, height, width, x),
            {"STRIDE": stride, "ALIGN_CORNERS": align_corners, **moved},
            MOVED_WARPS,
        )
    )
    for source, layer, kernel, bias, target, tile, programs in (
        (x, 1, by_first, biases[2], y, large, many),
        (y, 2, by_second, biases[3], z, small, few),
    ):
        launcher.launch(
            Launch(
                "refine.convolve",
                (programs_of(programs), columns),
                (source, slots, rows, counts, height, width, kernel, bias, target),
                {"LAYER": layer, "SIDE": side_of(kernel, stride), **shape, **steps(tile)},
                tile.warps,
                tile.stages,
            )
        )
    launcher.launch(
        Launch(
            "refine.classify",
            (few, cdiv(classes, class_point)),
            (z, rows, counts, by_head, biases[4], logits, pixels, out),
            {
                "CLASSES": classes,
                "CLASS_STRIDE": class_stride,
                "STRIDE": stride,
                "RESIDUAL": residual,
                "WIDTH": class_point,
                **steps(small),
            },
            small.warps,
            small.stages,
        )
    )
    return out


def side_of(kernel: Any, stride: int) -> int:
    """Side of a kernel `[side * side * stride, outputs]`."""
    return 1 if kernel.shape[0] == stride else 3


def programs_of(tiles: int) -> int:
    """Programs along the rows of a convolution, of so many tiles."""
    return min(tiles, PROGRAMS) if PROGRAMS else tiles


def tiles(dtype: str, capability: tuple[int, int]) -> tuple[Tile, Tile]:
    """Tiles of the layers on F1 and F2, and of all else."""
    if dtype == "float32":
        return FLOAT32, FLOAT32
    return LARGE if (9, 0) <= capability < (12, 0) else SMALL, SMALL


def steps(tile: Tile) -> dict[str, int]:
    """Constants of a tile."""
    return {"PIXELS": tile.pixels, "DEPTH": tile.depth}


def is_channels_last(maps: Any) -> bool:
    """Whether maps `[C, h, w]` hold the channels of a pixel one behind the other, and pixels without gaps."""
    return len(maps.shape) == 3 and not maps.is_contiguous() and maps.permute(1, 2, 0).is_contiguous()


def tile_widths(stride: int, most: int) -> tuple[int, int]:
    """Output channels of a tile's two parts, powers of two: 144 are 128 and 16, so that few are computed in vain.

    The second part is 0 where the first is enough.
    """
    count = cdiv(stride, most)
    share = stride_of(cdiv(stride, count))
    width = 1 << (share.bit_length() - 1)
    return width, next_power_of_2(share - width) if share > width else 0


def point_width(stride: int) -> int:
    """Output channels of a 1x1 convolution's tile."""
    return min(POINT_WIDTH, next_power_of_2(stride))
