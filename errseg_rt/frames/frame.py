"""What a frame is, wherever it lies, before and while it is segmented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import FrameError

_MOST_PADDING = 4  # times as many pixels as a frame may have, scaled: only the padding of a sliver makes more


class DeviceFrame(Protocol):
    """A frame `uint8 [H, W, 3]` on a GPU: a tensor of torch, CuPy, JAX or another library that exports DLPack."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """A capsule with the tensor."""
        ...

    def __dlpack_device__(self) -> tuple[Any, int]:
        """Kind and number of its device."""
        ...


class Ask(NamedTuple):
    """What is wanted of a frame.

    Attributes:
        color: Its channel order, `"bgr"` or `"rgb"`.
        confidence: Also the fused probability of each label.
        semantic: Also the labels of the semantic branch alone, and their error probability.
        instances: Also its instances, where the bundle has boxes to find them by.
    """

    color: str = "bgr"
    confidence: bool = False
    semantic: bool = False
    instances: bool = True

    def checked(self) -> Ask:
        """This; ValueError where the order is none."""
        if self.color not in ("bgr", "rgb"):
            raise ValueError(f"color must be 'bgr' or 'rgb', got {self.color!r}")
        return self


def check_frame(dtype: str, shape: tuple[int, ...], spec: InputSpec, max_pixels: int) -> None:
    """Raise FrameError unless a frame can be segmented.

    Args:
        dtype: Its element type, say `"uint8"`.
        shape: Its shape.
        spec: How it becomes the network's input.
        max_pixels: Largest height times width that is taken.
    """
    if dtype != "uint8":
        raise FrameError(f"a frame is uint8, got {dtype}; scale it to 0..255 and convert it")
    if len(shape) != 3 or shape[2] != 3:
        raise FrameError(f"a frame is [H, W, 3], got {list(shape)}; convert grey or alpha with cv2.cvtColor")
    height, width = shape[:2]
    if height * width == 0:
        raise FrameError(f"the frame has no pixels: {list(shape)}")
    if height * width > max_pixels:
        raise FrameError(
            f"the frame has {height}x{width} pixels, over the limit of {max_pixels}; shrink it, or raise max_pixels"
        )
    # Judged without the limit on work: reduced, a sliver is padded by as much all the same.
    padded = replace(spec, work_pixels=0).input_size((height, width))
    if padded[0] * padded[1] > _MOST_PADDING * max(1.0, spec.scale) ** 2 * max_pixels:
        raise FrameError(
            f"the frame of {height}x{width} pixels is so narrow that the network's input would be "
            f"{padded[0]}x{padded[1]}; cut it into parts"
        )
