"""The tensors that a bundle's graphs take and give: what graphs and kernels hand on to each other.

`front` makes of `image` all but `detail_logits`; `refine` makes these of `logits`, `low`, `coarse` and `gate`, as the
kernel of that name does for some pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
GRID_STRIDE = 4
"""Input pixels from one grid pixel to the next, in all networks so far; a bundle's manifest holds its own."""


@dataclass(frozen=True)
class Tensor:
    """One of them, `[1, channels, h, w]`.

    Attributes:
        name: In the graphs.
        lies: On the `"input"`, on the `"grid"`, `"coarse"` at twice the grid's stride, or one vector a `"frame"`.
        channels: 3 colours, K classes, Cl of `low`, Cc of stage 2, C of stage 3, or four for each of T things.
        branch: Which branch of the cascade makes it; what several branches need belongs to the first of them.
        stays_float32: Whatever the precision: pixels are ranked by it, it is what a frame becomes, or a place there.
        may_lie_by_pixel: Whether the channels of a pixel may lie one behind the other, as `torch.channels_last`.
    """

    name: str
    lies: str
    channels: str
    branch: str
    stays_float32: bool = False
    may_lie_by_pixel: bool = False

    def shape(self, channels: int, size: Size, grid_stride: int) -> tuple[int, int, int, int]:
        """Its shape, batch 1, for a network's input of a size `(H, W)` in pixels."""
        if self.lies == "frame":
            return (1, channels, 1, 1)
        stride = {"input": 1, "grid": grid_stride, "coarse": 2 * grid_stride}[self.lies]
        return (1, channels, *on_stride(size, stride))


CONTRACT = {
    tensor.name: tensor
    for tensor in (
        Tensor("image", "input", "3", "", stays_float32=True),
        Tensor("logits", "grid", "K", "semantic"),
        Tensor("error_logit", "grid", "1", "error", stays_float32=True),
        Tensor("low", "grid", "Cl", "semantic", may_lie_by_pixel=True),
        Tensor("coarse", "coarse", "Cc", "detail"),
        Tensor("gate", "frame", "C", "detail"),
        Tensor("detail_logits", "grid", "K", "detail"),
        Tensor("boxes", "grid", "4T", "localization", stays_float32=True),
    )
}
"""All of them, by name."""
BRANCHES = ("semantic", "error", "detail")
"""The branches that judge pixels, in the order in which a frame meets them."""
PARTS = (*BRANCHES, "localization")
"""All parts of a cascade; localization gives each pixel the box of its instance."""


def lies_by_pixel(name: str, dtype: str, channels: int | None) -> bool:
    """Whether TensorRT shall give and take a tensor with the channels of a pixel one behind the other.

    It does so for two bytes a channel, and without gaps for a multiple of eight channels.
    """
    fits = channels is not None and channels % 8 == 0 and dtype in ("float16", "bfloat16")
    return fits and CONTRACT[name].may_lie_by_pixel


def on_stride(size: Size, stride: int) -> Size:
    """Size of a map with this stride over an input of a size."""
    # Of numbers above zero, so that a graph made of it, whose division cuts off, gives the same.
    return (size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride


def outputs_of(branch: str) -> list[str]:
    """Names of what a branch makes."""
    return [tensor.name for tensor in CONTRACT.values() if tensor.branch == branch]
