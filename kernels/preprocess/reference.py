"""The definition, in float64."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.preprocess.checks import check


def preprocess_reference(
    frame: npt.NDArray[np.uint8],  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
) -> npt.NDArray[np.float64]:  # [1, 3, Hi, Wi]
    """Resize, order the channels as RGB, normalise, and pad at bottom and right with the mean colour.

    Arguments and what is raised as those of `preprocess`.
    """
    check(frame, content_size, input_size, mean, std, color, reduce, "float64", ("float64",))
    content = resize(frame, content_size, reduce)
    rgb = content[..., ::-1] if color == "bgr" else content
    padded = np.broadcast_to(np.asarray(mean) * 255.0, (*input_size, 3)).copy()
    padded[: content_size[0], : content_size[1]] = rgb
    normalised = (padded / 255.0 - mean) / std
    return normalised.transpose(2, 0, 1)[None]


def resize(frame: npt.NDArray[np.uint8], size: tuple[int, int], reduce: str = "area") -> npt.NDArray[np.uint8]:
    """Resize with half-pixel centres: by area where no side grows and `reduce` says so, else bilinearly."""
    if frame.shape[:2] == size:
        return frame
    by_area = reduce == "area" and shrinks(frame.shape[:2], size)
    interpolation = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size[::-1], interpolation=interpolation), np.uint8)


def shrinks(frame_size: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether no side grows."""
    return size[0] <= frame_size[0] and size[1] <= frame_size[1]
