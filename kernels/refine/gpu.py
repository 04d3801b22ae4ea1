"""Refinement on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.device import capability, on_device_of
from errseg_rt.kernels.refine.checks import check_inputs
from errseg_rt.kernels.refine.triton_kernels import classify, convolve, convolve_low, interpolate, pack, project
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select import DeviceSelection

FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Tile:
    """What a program of a convolution computes at once.

    Attributes:
        pixels: Rows.
        depth: Input channels of a step.
        width: Output channels at most, of a 3x3 convolution: it reads its inputs again for each such tile.
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
# Output channels of a tile of a 1x1 convolution; pixels, channels and warps of a tile that is only moved.
POINT_WIDTH = 64
MOVED_PIXELS, MOVED_DEPTH, MOVED_WARPS = 64, 64, 4


@dataclass(frozen=True, eq=False)
class DeviceWeights:
    """Stage 3 as the GPU reads it: input channels by output channels, both padded with zeros to multiples of 16.

    Attributes:
        host: The weights it was made from.
        low: [9 * Cl, C], the kernel's taps row by row.
        project: [Cc, C].
        first: [9 * C, C].
        second: [9 * C, C].
        head: [C, K].
        biases: float32: of low, project, first, second [C], and head [K].
    """

    host: RefineWeights
    low: torch.Tensor
    project: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    head: torch.Tensor
    biases: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, weights: RefineWeights, device: torch.device | str, dtype: torch.dtype) -> DeviceWeights:
        """Bring weights to a device, once.

        Args:
            weights: The weights.
            device: A GPU.
            dtype: float32, float16 or bfloat16: that of the tensors they will be used with. Biases stay float32.
        """
        channels, classes = stride_of(weights.channels), stride_of(weights.classes)
        low, first, second = (
            _laid_out(torch.from_numpy(weight), stride_of(weight.shape[1]), channels).to(device, dtype)
            for weight in (weights.low_weight, weights.weight1, weights.weight2)
        )
        project, head = (
            torch.from_numpy(weight)[..., None, None] for weight in (weights.project_weight, weights.head_weight)
        )
        return cls(
            weights,
            low,
            _laid_out(project, weights.coarse_channels, channels).to(device, dtype),
            first,
            second,
            _laid_out(head, channels, classes).to(device, dtype),
            tuple(
                torch.nn.functional.pad(torch.from_numpy(bias), (0, stride - len(bias))).to(device)
                for bias, stride in (
                    (weights.low_bias, channels),
                    (weights.project_bias, channels),
                    (weights.bias1, channels),
                    (weights.bias2, channels),
                    (weights.head_bias, classes),
                )
            ),
        )


def refine(
    weights: DeviceWeights,
    selection: DeviceSelection,
    logits: torch.Tensor,  # [K, h, w]
    low: torch.Tensor,  # [Cl, h, w], planes or channels last
    coarse: torch.Tensor,  # [Cc, h8, w8]
    gate: torch.Tensor,  # [C]
) -> torch.Tensor:  # [h * w, K]
    """Refine on CUDA tensors; `errseg_rt.kernels.refine` says it in full."""
    if not isinstance(weights, DeviceWeights):
        raise ValueError(f"tensors want weights that are DeviceWeights, got {type(weights).__name__}")
    if not isinstance(selection, DeviceSelection):
        raise ValueError(f"tensors want supports that are a DeviceSelection, got {type(selection).__name__}")
    height, width = selection.grid_size
    dtypes, place = (str(weights.low.dtype).removeprefix("torch."),), str(low.device)
    check_inputs(
        weights.host, (height, width), logits, low, coarse, gate,
        dtypes=dtypes, place=place, is_low_packed=is_channels_last(low),
    )  # fmt: skip
    check_array("weights", weights.low, dtypes, tuple(weights.low.shape), place=place)
    for name in ("rows", "slots"):
        check_array(name, getattr(selection, name), ("int32",), (3, height * width), place=place)
    check_array("counts", selection.counts, ("int32",), (3,), place=place)
    tensors = [weights.low, weights.project, weights.first, weights.second, weights.head, *weights.biases]
    out: torch.Tensor = torch.ops.errseg_rt.refine(
        logits, low, coarse, gate, selection.rows, selection.slots, selection.counts, tensors,
        weights.host.residual, weights.host.align_corners,
    )  # fmt: skip
    return out


@torch.library.custom_op("errseg_rt::refine", mutates_args=())
def _refine(
    logits: torch.Tensor,
    low: torch.Tensor,
    coarse: torch.Tensor,
    gate: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    counts: torch.Tensor,
    weights: Sequence[torch.Tensor],
    residual: bool,
    align_corners: bool,
) -> torch.Tensor:
    """Detail logits `[h * w, K]`, of which the first n3 rows are written; weights as `DeviceWeights` has them."""
    by_low, by_project, by_first, by_second, by_head, *biases = weights
    (low_channels, height, width), (coarse_channels, *coarse_size) = low.shape, coarse.shape
    pixels, coarse_pixels, stride = height * width, coarse_size[0] * coarse_size[1], by_low.shape[1]
    low_stride = len(by_low) // 9
    large, small = tiles(low)
    point, classes = point_width(stride), len(logits)
    class_point = point_width(by_head.shape[1])
    widths = tile_widths(stride, large.width)
    columns = triton.cdiv(stride, sum(widths))
    many, few = (triton.cdiv(pixels, tile.pixels) for tile in (large, small))
    wide, narrow = options(large), options(small)
    shape = {"STRIDE": stride, "WIDTH": widths[0], "REST": widths[1]}
    moved = {"PIXELS": MOVED_PIXELS, "DEPTH": MOVED_DEPTH, "num_warps": MOVED_WARPS}
    channel_step, pixel_step = (1, low_channels) if is_channels_last(low) else (pixels, 1)
    is_packed = channel_step == 1 and low_stride == low_channels
    packed = low if is_packed else low.new_empty((pixels, low_stride))
    projected = low.new_empty((coarse_pixels, stride))
    x, y, z = (low.new_empty((pixels, stride)) for _ in range(3))
    out = _output(logits)
    with on_device_of(low):
        if not is_packed:
            pack[(triton.cdiv(pixels, MOVED_PIXELS), triton.cdiv(low_stride, MOVED_DEPTH))](
                low, channel_step, pixel_step, slots[0], height, width, packed,
                CHANNELS=low_channels, STRIDE=low_stride, **moved,
            )  # fmt: skip
        project[(triton.cdiv(coarse_pixels, small.pixels), triton.cdiv(stride, point))](
            coarse, coarse_pixels, by_project, biases[1], projected,
            CHANNELS=coarse_channels, STRIDE=stride, WIDTH=point, **narrow,
        )  # fmt: skip
        convolve_low[(columns, many)](
            packed, rows[0], counts, height, width, by_low, biases[0], gate, x,
            CHANNELS=len(gate), SOURCE_STRIDE=low_stride, **shape, **wide,
        )  # fmt: skip
        interpolate[(triton.cdiv(pixels, MOVED_PIXELS), triton.cdiv(stride, MOVED_DEPTH))](
            projected, *coarse_size, rows[0], counts, height, width, x,
            STRIDE=stride, ALIGN_CORNERS=align_corners, **moved,
        )  # fmt: skip
        convolve[(columns, many)](
            x, slots[0], rows[1], counts[1:], height, width, by_first, biases[2], y, **shape, **wide
        )
        convolve[(columns, few)](
            y, slots[1], rows[2], counts[2:], height, width, by_second, biases[3], z, **shape, **narrow
        )
        classify[(triton.cdiv(classes, class_point), few)](
            z, rows[2], counts[2:], by_head, biases[4], logits, pixels, out,
            CLASSES=classes, CLASS_STRIDE=by_head.shape[1], STRIDE=stride, RESIDUAL=residual, WIDTH=class_point,
            **narrow,
        )  # fmt: skip
    return out


@_refine.register_fake
def _(
    logits: torch.Tensor,
    low: torch.Tensor,
    coarse: torch.Tensor,
    gate: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    counts: torch.Tensor,
    weights: Sequence[torch.Tensor],
    residual: bool,
    align_corners: bool,
) -> torch.Tensor:
    return _output(logits)


def _output(logits: torch.Tensor) -> torch.Tensor:
    return logits.new_empty((logits.shape[1] * logits.shape[2], logits.shape[0]))


def tiles(tensor: torch.Tensor) -> tuple[Tile, Tile]:
    """Tiles of the layers on F1 and F2, and of all else."""
    if tensor.dtype == torch.float32:
        return FLOAT32, FLOAT32
    return LARGE if (9, 0) <= capability(tensor) < (12, 0) else SMALL, SMALL


def options(tile: Tile) -> dict[str, int]:
    """Launch options of a tile."""
    return {"PIXELS": tile.pixels, "DEPTH": tile.depth, "num_warps": tile.warps, "num_stages": tile.stages}


def is_channels_last(maps: torch.Tensor) -> bool:
    """Whether maps `[C, h, w]` hold the channels of a pixel one behind the other, and pixels without gaps."""
    return maps.ndim == 3 and not maps.is_contiguous() and maps.permute(1, 2, 0).is_contiguous()


def stride_of(channels: int) -> int:
    """Channels, padded so that rows begin at multiples of 16 bytes and more."""
    return -(-channels // 16) * 16


def tile_widths(stride: int, most: int) -> tuple[int, int]:
    """Output channels of a tile's two parts, powers of two: 144 are 128 and 16, so that few are computed in vain.

    The second part is 0 where the first is enough.
    """
    tiles = -(-stride // most)
    share = stride_of(-(-stride // tiles))
    width = 1 << (share.bit_length() - 1)
    return width, int(triton.next_power_of_2(share - width)) if share > width else 0


def point_width(stride: int) -> int:
    """Output channels of a 1x1 convolution's tile."""
    return min(POINT_WIDTH, int(triton.next_power_of_2(stride)))


def _laid_out(weight: torch.Tensor, inputs: int, outputs: int) -> torch.Tensor:  # [C, Cin, kh, kw]
    """Lay weights out as `[kh * kw * inputs, outputs]`, padded with zeros."""
    padded = torch.nn.functional.pad(
        weight.permute(2, 3, 1, 0), (0, outputs - weight.shape[0], 0, inputs - weight.shape[1])
    )
    return padded.reshape(-1, outputs).contiguous()
