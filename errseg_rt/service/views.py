"""What a stream carries of a frame: one binary message, a JSON head and behind it the parts that it names.

    length of the head, 4 bytes, little-endian | head, JSON in UTF-8 | parts, one behind the other

`head["parts"]` lists name, form (`"jpeg"`, or `"deflate"`: zlib around `uint8` values, row by row), bytes, height and
width of each. Labels are compressed without loss and unpacked by the browser's own `DecompressionStream`: no
canvas, whose colours some browsers change, comes between.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service.answers import figures

PARTS = ("labels", "error", "semantic")
"""Parts that may be asked for, beside the frame of the service's own source."""
_QUALITY = 80  # of a frame's JPEG
_LARGEST = 1 << 20  # pixels of a view; larger frames are reduced to every second, third... pixel
_FINEST = 1 << 17  # pixels of the error map, which is smooth: it comes of the grid


def message_of(
    result: Segmentation,
    more: Mapping[str, Any],
    parts: Collection[str] = PARTS,
    frame: npt.NDArray[np.uint8] | None = None,
) -> bytes:
    """The message of a frame.

    Args:
        result: What the runtime says of it.
        more: What the head says beside its figures.
        parts: Parts that are wanted, of `PARTS`; those that the result lacks are left out.
        frame: The frame itself, BGR `uint8 [H, W, 3]`, where it is to be seen, too.
    """
    step = _step(result.labels.size)
    coded: list[tuple[str, str, bytes, tuple[int, ...]]] = []
    if frame is not None:
        size = tuple(-(-side // step) for side in frame.shape[:2])
        seen = frame if step == 1 else cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", seen, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
        coded.append(("frame", "jpeg", jpeg, size))
    if "labels" in parts:
        coded.append(_deflated("labels", result.labels[::step, ::step]))
    if "semantic" in parts and result.semantic_labels is not None:
        coded.append(_deflated("semantic", result.semantic_labels[::step, ::step]))
    if "error" in parts and result.error_probability is not None:
        coded.append(_deflated("error", _levels(result.error_map())))
    head = {
        **figures(result),
        **more,
        "parts": [[name, form, len(data), *size] for name, form, data, size in coded],
    }
    text = json.dumps(head, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(data for _, _, data, _ in coded)])


def _step(pixels: int) -> int:
    """Every how many rows and columns one is shown."""
    step = 1
    while pixels > step * step * _LARGEST:
        step += 1
    return step


def _levels(error: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """An error map in 256 levels, halved until it is small."""
    while error.size > _FINEST and min(error.shape) > 1:
        height, width = error.shape
        error = np.asarray(cv2.resize(error, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA))
    return np.rint(error * 255).astype(np.uint8)


def _deflated(name: str, plane: npt.NDArray[np.uint8]) -> tuple[str, str, bytes, tuple[int, ...]]:
    return name, "deflate", zlib.compress(np.ascontiguousarray(plane).tobytes(), 1), plane.shape
