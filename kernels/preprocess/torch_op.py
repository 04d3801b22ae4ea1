"""Preprocessing on an NVIDIA GPU, as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from errseg_rt.kernels.launch import dtype_name
from errseg_rt.kernels.preprocess.checks import check
from errseg_rt.kernels.preprocess.launches import enqueue_preprocess
from errseg_rt.kernels.torch_launcher import TorchLauncher

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def preprocess(
    frame: torch.Tensor,  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
    dtype: str = "float32",
) -> torch.Tensor:  # [1, 3, Hi, Wi]
    """Preprocess a CUDA tensor; `errseg_rt.kernels.preprocess` says it in full."""
    check(frame, content_size, input_size, mean, std, color, reduce, dtype, tuple(DTYPES))
    planes: torch.Tensor = torch.ops.errseg_rt.preprocess(
        frame, content_size, input_size, mean, std, color, reduce, DTYPES[dtype]
    )
    return planes


@torch.library.custom_op("errseg_rt::preprocess", mutates_args=())
def _preprocess(
    frame: torch.Tensor,
    content_size: Sequence[int],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    color: str,
    reduce: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    launcher = TorchLauncher(frame.device)
    planes: torch.Tensor = enqueue_preprocess(
        launcher,
        frame,
        content_size,
        input_size,
        mean=mean,
        std=std,
        color=color,
        reduce=reduce,
        dtype=dtype_name(dtype),
    )
    return planes


@_preprocess.register_fake
def _(
    frame: torch.Tensor,
    content_size: Sequence[int],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    color: str,
    reduce: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    return frame.new_empty((1, 3, *input_size), dtype=dtype)
