"""Preprocessing on a GPU, as a launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, cdiv

COPY, BILINEAR, AREA = 0, 1, 2
PIXELS, WARPS = 512, 4


def enqueue_preprocess(
    launcher: Launcher,
    frame: Any,  # [H, W, 3] uint8
    content_size: Sequence[int],
    input_size: Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    color: str,
    reduce: str = "area",
    dtype: str,
) -> Any:  # [1, 3, Hi, Wi]
    """Preprocess a frame; `errseg_rt.kernels.preprocess` says it in full."""
    height, width = frame.shape[:2]
    planes = launcher.empty((1, 3, *input_size), dtype)
    if (height, width) == tuple(content_size):
        resize = COPY
    elif reduce == "area" and content_size[0] <= height and content_size[1] <= width:
        resize = AREA
    else:
        resize = BILINEAR
    launcher.launch(
        Launch(
            "preprocess.preprocess_pixels",
            (cdiv(input_size[0] * input_size[1], PIXELS),),
            (
                frame,
                planes,
                height,
                width,
                *frame.stride(),
                *content_size,
                *input_size,
                *(1 / (255 * deviation) for deviation in std),
                *(average / deviation for average, deviation in zip(mean, std, strict=True)),
            ),
            {
                "RESIZE": resize,
                "BGR": color == "bgr",
                "POSITION": position_type((height, width), content_size),
                "PIXELS": PIXELS,
            },
            WARPS,
        )
    )
    return planes


def position_type(frame_size: Sequence[int], content_size: Sequence[int]) -> str:
    """The smallest integer type that holds every position on the frame."""
    largest = max(2 * (content + 1) * (side + 1) for content, side in zip(content_size, frame_size, strict=True))
    return "int32" if largest < 2**31 else "int64"
