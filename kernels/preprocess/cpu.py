"""Preprocessing on the CPU: OpenCV resizes, and one pass looks every level up in a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.compiled import compiled, share, writable
from errseg_rt.kernels.preprocess.checks import check
from errseg_rt.kernels.preprocess.reference import resize

DTYPES = ("float32", "float16")


def preprocess(
    frame: npt.NDArray[np.uint8],  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
    dtype: str = "float32",
    threads: int = 1,
) -> npt.NDArray[Any]:  # [1, 3, Hi, Wi]
    """Preprocess a NumPy array; `errseg_rt.kernels.preprocess` says it in full."""
    check(frame, content_size, input_size, mean, std, color, reduce, dtype, DTYPES)
    is_bgr = color == "bgr"
    if frame.strides[2] < 0:  # say `frame[..., ::-1]`, whose copy would take longer than all the rest
        frame, is_bgr = frame[..., ::-1], not is_bgr
    content = np.ascontiguousarray(resize(frame, content_size, reduce))
    if is_bgr:
        mean, std = mean[::-1], std[::-1]
    levels = np.arange(256) / 255
    table = np.stack(
        [(levels - channel_mean) / channel_std for channel_mean, channel_std in zip(mean, std, strict=True)]
    )
    # The padding holds the mean colour, which normalises to zero.
    planes = np.zeros((1, 3, *input_size), dtype)
    # By the channels of the frame; as bits, since numba has no float16 on the CPU.
    ordered = planes[0, ::-1] if is_bgr else planes[0]
    raw = np.dtype(f"uint{8 * planes.itemsize}")
    operands = writable(content), table.astype(dtype).view(raw), [plane.view(raw) for plane in ordered]
    share(threads, content_size[0], lambda begin, end: _look_up(operands[0], operands[1], *operands[2], begin, end))
    return planes


@compiled
def _look_up(content, table, first, second, third, begin, end):
    """Write the rows from `begin` to `end` of three planes, one for each channel of the content."""
    for y in range(begin, end):
        for x in range(content.shape[1]):
            first[y, x] = table[0, content[y, x, 0]]
        for x in range(content.shape[1]):
            second[y, x] = table[1, content[y, x, 1]]
        for x in range(content.shape[1]):
            third[y, x] = table[2, content[y, x, 2]]
