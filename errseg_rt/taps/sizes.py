"""At which sizes a network is looked at, and which stride a map of it has at these."""

from __future__ import annotations

from collections.abc import Sequence

from errseg_rt.bundle.contract import on_stride
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.taps.maps import STRIDES

_SIDES = (5, 7), (9, 10)  # of the two images that a network is shown, in steps of at least `_LEAST` pixels
_LEAST = 32
Shape = tuple[int, ...]


def probe_sizes(spec: InputSpec) -> list[Size]:
    """Sizes of inputs that tell strides from each other; one where the network takes one only."""
    if spec.size is not None:
        return [spec.size]
    step = max(spec.multiple, spec.multiple * round(_LEAST / spec.multiple))
    # What is no multiple of large strides shows how sides are rounded.
    odd = spec.multiple % step
    return [
        (rows * step + more + spec.plus_one, cols * step + more + spec.plus_one)
        for (rows, cols), more in zip(_SIDES, (0, odd), strict=True)
    ]


def stride_of(shapes: Sequence[Shape], sizes: Sequence[Size]) -> int | None:
    """The stride of a tensor by its shapes `[B, channels, h, w]` for some inputs; None: it is no feature map."""
    if len(shapes) < len(sizes) or len({shape[1] for shape in shapes}) > 1 or len(set(shapes)) < len(shapes):
        return None
    for stride in STRIDES:
        wanted = [on_stride(size, stride) for size in sizes]
        if all(_is_near(shape[2:], want) for shape, want in zip(shapes, wanted, strict=True)):
            return stride
    return None


def is_exact(shapes: Sequence[Shape], sizes: Sequence[Size], stride: int) -> bool:
    """Whether a map's sides are those of the inputs over its stride, rounded up."""
    return all(shape[2:] == on_stride(size, stride) for shape, size in zip(shapes, sizes, strict=True))


def _is_near(found: Shape, wanted: Size) -> bool:
    """Convolutions without padding, and strides that are rounded down, lose a pixel or two of many."""
    return all(
        want - min(2, want // 8 + 1) <= side <= want + min(1, want // 8)
        for side, want in zip(found, wanted, strict=True)
    )
