"""Preprocessing on an NVIDIA GPU, as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from errseg_rt.kernels.device import on_device_of
from errseg_rt.kernels.preprocess.checks import check
from errseg_rt.kernels.preprocess.triton_kernels import AREA, BILINEAR, COPY, preprocess_pixels

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PIXELS, WARPS = 512, 4


def preprocess(
    frame: torch.Tensor,  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    dtype: str = "float32",
) -> torch.Tensor:  # [1, 3, Hi, Wi]
    """Preprocess a CUDA tensor; `errseg_rt.kernels.preprocess` says it in full."""
    check(frame, content_size, input_size, mean, std, color, dtype, tuple(DTYPES))
    planes: torch.Tensor = torch.ops.errseg_rt.preprocess(
        frame, content_size, input_size, mean, std, color == "bgr", DTYPES[dtype]
    )
    return planes


@torch.library.custom_op("errseg_rt::preprocess", mutates_args=())
def _preprocess(
    frame: torch.Tensor,
    content_size: Sequence[int],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    bgr: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    height, width = frame.shape[:2]
    planes = frame.new_empty((1, 3, *input_size), dtype=dtype)
    if (height, width) == tuple(content_size):
        resize = COPY
    elif content_size[0] <= height and content_size[1] <= width:
        resize = AREA
    else:
        resize = BILINEAR
    with on_device_of(frame):
        preprocess_pixels[(triton.cdiv(input_size[0] * input_size[1], PIXELS),)](
            frame,
            planes,
            height,
            width,
            *frame.stride(),
            *content_size,
            *input_size,
            *(1 / (255 * deviation) for deviation in std),
            *(average / deviation for average, deviation in zip(mean, std, strict=True)),
            RESIZE=resize.value,
            BGR=bgr,
            POSITION=position_type((height, width), content_size),
            PIXELS=PIXELS,
            num_warps=WARPS,
        )
    return planes


@_preprocess.register_fake
def _(
    frame: torch.Tensor,
    content_size: Sequence[int],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    bgr: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    return frame.new_empty((1, 3, *input_size), dtype=dtype)


def position_type(frame_size: Sequence[int], content_size: Sequence[int]) -> tl.dtype:
    """The smallest integer type that holds every position on the frame."""
    largest = max(2 * (content + 1) * (side + 1) for content, side in zip(content_size, frame_size, strict=True))
    return tl.int32 if largest < 2**31 else tl.int64
