"""All that follows from a frame's size."""

from __future__ import annotations

from dataclasses import dataclass

from errseg_rt.bundle.contract import on_stride
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.options import Limits


@dataclass(frozen=True)
class Plan:
    """How a frame of one size goes its way.

    Attributes:
        geometry: How it lies on the grid: sizes of content, padded input, grid and frame.
        seen: Rows and columns of the grid, from the first, that some pixel of the frame is made from.
        dense_work: Multiply-adds of stage 3 on the whole grid.
    """

    geometry: Geometry
    seen: Size
    dense_work: int

    @classmethod
    def of(cls, manifest: Manifest, spec: InputSpec, size: Size, scale: float, layers: Layers) -> Plan:
        """The plan for a size.

        Args:
            manifest: Of the bundle.
            spec: How its network takes a frame.
            size: Of the frame, `(H, W)` in pixels.
            scale: Factor on the size at which the network takes it, for multi-scale inference.
            layers: Those of stage 3.

        Raises:
            ValueError: `scale` is no scale.
        """
        content, padded = spec.sizes(size, scale)
        grid = on_stride(padded, manifest.grid_stride)
        geometry = Geometry(grid, padded, content, size, manifest.align_corners)
        return cls(geometry, geometry.seen(), grid[0] * grid[1] * layers.of_pixel)

    @property
    def grid(self) -> Size:
        """(h, w) of the grid."""
        return self.geometry.grid_size

    def bounds(self, limits: Limits) -> Bounds:
        """What selection goes by, where there is no deadline: a budget in multiply-adds."""
        budget = None if limits.budget is None else int(limits.budget * self.dense_work)
        return Bounds(limits.threshold, budget)
