"""The same in float32, a channel at a time and without a copy of the padded frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.preprocess.reference import resize


def preprocess(
    frame: npt.NDArray[np.uint8],  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
) -> npt.NDArray[np.float32]:  # [1, 3, Hi, Wi]
    """Normalised, padded network input of a frame.

    Args:
        frame: `uint8 [H, W, 3]`.
        content_size: Height and width of the frame within the input, in pixels.
        input_size: Height and width of the padded input, in pixels.
        mean: Mean colour, RGB in 0..1; also what the padding holds.
        std: Standard deviation of the colours, RGB in 0..1.
        color: Channel order of the frame, `"bgr"` or `"rgb"`.

    Returns:
        RGB planes, `float32 [1, 3, Hi, Wi]`.

    Raises:
        ValueError: The frame is not `uint8 [H, W, 3]` with pixels, the content does not fit the input, or the order of
            colours is unknown.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"a frame is uint8 [H, W, 3] with pixels, got {frame.dtype} {frame.shape}")
    if color not in ("bgr", "rgb"):
        raise ValueError(f"color must be 'bgr' or 'rgb', got {color!r}")
    if any(content > padded for content, padded in zip(content_size, input_size, strict=True)):
        raise ValueError(f"the content must fit in the input: {content_size = }, {input_size = }")
    content = resize(frame, content_size)
    # The padding holds the mean colour, which normalises to zero.
    planes = np.zeros((1, 3, *input_size), np.float32)
    for channel in range(3):
        plane = planes[0, channel, : content_size[0], : content_size[1]]
        source = content[..., 2 - channel if color == "bgr" else channel]
        np.multiply(source, np.float32(1 / (255 * std[channel])), out=plane, casting="unsafe")
        plane -= np.float32(mean[channel] / std[channel])
    return planes
