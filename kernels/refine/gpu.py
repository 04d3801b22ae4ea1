"""Refinement on an NVIDIA GPU, as an operator of torch that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton

from errseg_rt.kernels.arrays import check_array
from errseg_rt.kernels.device import on_device_of
from errseg_rt.kernels.refine.checks import check_inputs
from errseg_rt.kernels.refine.triton_kernels import classify, convolve, convolve_low, interpolate, pack, project
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.select import DeviceSelection

FLOATS = ("float32", "float16", "bfloat16")
# Of a tile: pixels, input channels of a step, and output channels at most, of a 3x3 convolution, which reads its inputs
# again for each such tile, and of a 1x1. float32 has no tensor cores, and needs more registers.
PIXELS, POINT_WIDTH, WARPS, STAGES = 64, 64, 4, 3
DEPTH, MOST_WIDTH = 64, 160
DEPTH_FLOAT32, MOST_WIDTH_FLOAT32 = 32, 64
# Pixels and channels of a tile that is only moved.
MOVED_PIXELS, MOVED_DEPTH = 64, 64


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
    low: torch.Tensor,  # [Cl, h, w]
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
    check_inputs(weights.host, (height, width), logits, low, coarse, gate, dtypes=dtypes, place=place)
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
    depth, most_width = (DEPTH_FLOAT32, MOST_WIDTH_FLOAT32) if low.dtype == torch.float32 else (DEPTH, MOST_WIDTH)
    tiles, point_tiles = triton.cdiv(pixels, PIXELS), triton.cdiv(coarse_pixels, PIXELS)
    point, classes = point_width(stride), len(logits)
    class_point = point_width(by_head.shape[1])
    widths = tile_widths(stride, most_width)
    columns = triton.cdiv(stride, sum(widths))
    tile = {"PIXELS": PIXELS, "DEPTH": depth, "num_warps": WARPS, "num_stages": STAGES}
    shape = {"STRIDE": stride, "WIDTH": widths[0], "REST": widths[1], **tile}
    moved = {"PIXELS": MOVED_PIXELS, "DEPTH": MOVED_DEPTH, "num_warps": WARPS}
    packed = low.new_empty((pixels, low_stride))
    projected = low.new_empty((coarse_pixels, stride))
    x, y, z = (low.new_empty((pixels, stride)) for _ in range(3))
    out = _output(logits)
    with on_device_of(low):
        pack[(triton.cdiv(pixels, MOVED_PIXELS), triton.cdiv(low_stride, MOVED_DEPTH))](
            low, slots[0], height, width, packed, CHANNELS=low_channels, STRIDE=low_stride, **moved
        )
        project[(point_tiles, triton.cdiv(stride, point))](
            coarse, coarse_pixels, by_project, biases[1], projected,
            CHANNELS=coarse_channels, STRIDE=stride, WIDTH=point, **tile,
        )  # fmt: skip
        convolve_low[(columns, tiles)](
            packed, rows[0], counts, height, width, by_low, biases[0], gate, x,
            CHANNELS=len(gate), SOURCE_STRIDE=low_stride, **shape,
        )  # fmt: skip
        interpolate[(triton.cdiv(pixels, MOVED_PIXELS), triton.cdiv(stride, MOVED_DEPTH))](
            projected, *coarse_size, rows[0], counts, height, width, x,
            STRIDE=stride, ALIGN_CORNERS=align_corners, **moved,
        )  # fmt: skip
        convolve[(columns, tiles)](x, slots[0], rows[1], counts[1:], height, width, by_first, biases[2], y, **shape)
        convolve[(columns, tiles)](y, slots[1], rows[2], counts[2:], height, width, by_second, biases[3], z, **shape)
        classify[(triton.cdiv(classes, class_point), tiles)](
            z, rows[2], counts[2:], by_head, biases[4], logits, pixels, out,
            CLASSES=classes, CLASS_STRIDE=by_head.shape[1], STRIDE=stride, RESIDUAL=residual, WIDTH=class_point, **tile,
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
