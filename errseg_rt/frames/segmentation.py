"""What the runtime knows of a frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instance_drawing import colored, outlined
from errseg_rt.frames.instances import Instances
from errseg_rt.kernels.fuse_labels import upsample
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.system.atomic import write_atomically

PICTURES = ("labels", "colors", "error", "overlay")
"""What `Segmentation.save` writes: `<name>_labels.png` and so on."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of a frame, and how far to trust them.

    Attributes:
        labels: Fused class ids, `uint8 [H, W]`.
        error_probability: Calibrated probability that the label is wrong, on the grid, `float32 [h, w]`; of a bundle
            without a map for the detail branch's labels that the semantic one is. None where the bundle has no error
            map.
        flagged: Grid pixels with P_ep > t, cut to the budget: those that the detail branch labelled again,
            `bool [h, w]`; none where the bundle has no detail branch.
        classes: What the ids mean.
        geometry: How the frame lies on the grid.
        timings: Milliseconds by step: on a CPU preprocess, front, select, refine, fuse (with calibration), where the
            bundle has them instances, and where it was asked for semantic; on a GPU upload, compute, download. Empty
            where they are not known.
        left_out: Number of grid pixels with P_ep > t for which the budget had no room; they are not in `flagged`.
        work: Work of refinement, as a share of the dense stage's multiply-adds, in 0..1.
        confidence: Fused probability of the winning class, `float32 [H, W]`; None unless asked for.
        semantic_labels: Class ids of the semantic branch alone, `uint8 [H, W]`; None unless asked for.
        semantic_error_probability: Calibrated probability that the semantic label is wrong, on the grid,
            `float32 [h, w]`; None unless semantic labels were asked for, or where the bundle has no error map.
        instances: Which pixels belong to which object; None where the bundle has no boxes, or they were not asked for.
    """

    labels: npt.NDArray[np.uint8]
    error_probability: npt.NDArray[np.float32] | None
    flagged: npt.NDArray[np.bool_]
    classes: ClassSet
    geometry: Geometry
    timings: Mapping[str, float]
    left_out: int = 0
    work: float = 1.0
    confidence: npt.NDArray[np.float32] | None = None
    semantic_labels: npt.NDArray[np.uint8] | None = None
    semantic_error_probability: npt.NDArray[np.float32] | None = None
    instances: Instances | None = None

    def __repr__(self) -> str:
        """Sizes and the figures a reader looks for first."""
        height, width = self.labels.shape
        rows, cols = self.flagged.shape
        left_out = f" ({self.left_out} pixels left out)" if self.left_out else ""
        content = self.geometry.content_size
        seen = f" seen at {content[0]}x{content[1]}" if self.scale < 1 else ""
        took = "" if self.milliseconds is None else f", {self.milliseconds:.1f} ms"
        return (
            f"Segmentation({height}x{width}{seen}, {len(self.classes)} classes, grid {rows}x{cols}, "
            f"{self.flagged_share:.1%} flagged{left_out}, {self.work:.1%} of the dense work{took})"
        )

    @property
    def scale(self) -> float:
        """Factor from the frame to what the network saw of it, side by side: below 1 where it was reduced."""
        return math.sqrt(math.prod(self.geometry.content_size) / math.prod(self.geometry.output_size))

    @property
    def refined(self) -> int:
        """Number of grid pixels that the detail branch labelled again."""
        return int(np.count_nonzero(self.flagged))

    @property
    def over_threshold(self) -> int:
        """Number of grid pixels with P_ep > t: those labelled again, and those left out."""
        return self.refined + self.left_out

    @property
    def flagged_share(self) -> float:
        """Share of the frame's grid pixels that were flagged, in 0..1."""
        return float(self.refined / np.prod(self.geometry.seen()))

    @property
    def expected_error(self) -> float | None:
        """Share of the frame's pixels that are expected to be labelled wrong, in 0..1; None without an error map.

        It is the mean of `error_map()`: of what the frame shows, each pixel counting once, and of no padding.
        """
        if self.error_probability is None:
            return None
        height, width = self.geometry.grid_size
        rows, cols = self.geometry.rows().shares(height), self.geometry.cols().shares(width)
        return min(float(rows @ self.error_probability.astype(np.float64) @ cols), 1.0)  # which rounding could exceed

    @property
    def mean_error_probability(self) -> float | None:
        """`expected_error` under its former name."""
        return self.expected_error

    def expected_error_where(self, counted: npt.NDArray[np.bool_]) -> float | None:
        """The same of some of the pixels, as those that are not void.

        Args:
            counted: Which pixels, `bool [H, W]`.

        Returns:
            None without an error map, or without a pixel.

        Raises:
            ValueError: Another shape or dtype.
        """
        self._check_counted(counted)
        if self.error_probability is None or not counted.any():
            return None
        return float(self.error_map()[counted].mean(dtype=np.float64))

    def expected_precision(self, counted: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Share of the pixels labelled with each class that are expected to be right, in 0..1, of those that are there.

        It tells classes apart, and less so frames: `docs/accuracy.md` has how far.

        Args:
            counted: Which pixels count, `bool [H, W]`; None: all.

        Raises:
            ValueError: The bundle has no error map, or another shape or dtype.
        """
        error, labels = self.error_map(), self.labels
        if counted is not None:
            self._check_counted(counted)
            error, labels = error[counted], labels[counted]
        pixels, wrong = (np.bincount(labels.ravel(), each, len(self.classes)) for each in (None, error.ravel()))
        named = zip(self.classes.names, pixels, wrong, strict=False)
        return {name: max(float(1 - part / whole), 0.0) for name, whole, part in named if whole}

    def _check_counted(self, counted: npt.NDArray[np.bool_]) -> None:
        if counted.shape != self.labels.shape or counted.dtype != bool:
            raise ValueError(f"wanted counted bool {self.labels.shape}, got {counted.dtype} {counted.shape}")

    @property
    def shares(self) -> dict[str, float]:
        """Share of the frame's pixels by class, of those that are there."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))[: len(self.classes)]
        shares = counts / self.labels.size
        return {name: float(share) for name, share in zip(self.classes.names, shares, strict=True) if share}

    @property
    def milliseconds(self) -> float | None:
        """Sum of the steps' times; None where they are not known."""
        return sum(self.timings.values()) if self.timings else None

    def error_map(self) -> npt.NDArray[np.float32]:
        """Error probability at frame size, `float32 [H, W]`, upsampled bilinearly.

        Raises:
            ValueError: The bundle has no error map.
        """
        if self.error_probability is None:
            raise ValueError("the bundle has no error map: its network gives labels alone")
        return upsample(self.error_probability, self.geometry)

    def semantic_error_map(self) -> npt.NDArray[np.float32]:
        """The same of the semantic labels.

        Raises:
            ValueError: The bundle has no error map, or semantic labels were not asked for.
        """
        if self.semantic_error_probability is None:
            raise ValueError("the result holds no errors of semantic labels; ask segment for these, by semantic=True")
        return upsample(self.semantic_error_probability, self.geometry)

    def flagged_map(self) -> npt.NDArray[np.bool_]:
        """Flagged pixels at frame size, `bool [H, W]`: those that a flagged grid pixel says most about."""
        return upsample(self.flagged.astype(np.float32), self.geometry) >= 0.5

    def colors(self) -> npt.NDArray[np.uint8]:
        """Labels in the colours of their classes, BGR `uint8 [H, W, 3]`."""
        # Several times as fast as indexing the palette, which gives the same.
        table = self.classes.palette_bgr()[:, None]
        return np.asarray(cv2.applyColorMap(np.ascontiguousarray(self.labels), table), np.uint8)

    def heat(self) -> npt.NDArray[np.uint8]:
        """Error map as a picture, black (0) over red to white (1), BGR `uint8 [H, W, 3]`."""
        levels = np.rint(self.error_map() * 255).astype(np.uint8)
        return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_HOT), np.uint8)

    def overlay(self, frame: npt.NDArray[np.uint8], opacity: float = 0.5, color: str = "bgr") -> npt.NDArray[np.uint8]:
        """The class colours laid over the frame; instances, where there are some, in a shade each within a white line.

        Args:
            frame: The frame that was segmented, `uint8 [H, W, 3]`.
            opacity: Weight of the class colours, 0..1.
            color: Channel order of `frame`, and of the result: `"bgr"` or `"rgb"`.

        Returns:
            `uint8 [H, W, 3]`.

        Raises:
            ValueError: The frame is not the one that was segmented, or an argument is out of range.
        """
        frame = np.asarray(frame)
        if frame.shape != (*self.labels.shape, 3) or frame.dtype != np.uint8:
            raise ValueError(f"wanted a frame uint8 {(*self.labels.shape, 3)}, got {frame.dtype} {frame.shape}")
        if not 0 <= opacity <= 1 or color not in ("bgr", "rgb"):
            raise ValueError(f"opacity is in 0..1 and color 'bgr' or 'rgb', got {opacity = }, {color = }")
        colors = self.colors() if self.instances is None else colored(self.colors(), self.instances)
        colors = np.ascontiguousarray(colors if color == "bgr" else colors[..., ::-1])
        picture = np.asarray(cv2.addWeighted(frame, 1 - opacity, colors, opacity, 0), np.uint8)
        return picture if self.instances is None else outlined(picture, self.instances)

    def save(
        self, folder: str | Path, name: str = "frame", frame: npt.NDArray[np.uint8] | None = None
    ) -> dict[str, Path]:
        """Write the results as PNG files, each whole or not at all.

        Args:
            folder: Made where it is missing.
            name: Start of the files' names.
            frame: The frame in BGR, for the overlay; without it there is none.

        Returns:
            Paths by what they show: `labels` (class ids), `colors`, `error` (heat map, where there is one), `overlay`.

        Raises:
            OSError: A file cannot be written; what it held before is still there.
            ValueError: `frame` is not the one that was segmented.
        """
        pictures = {"labels": self.labels, "colors": self.colors()}
        if self.error_probability is not None:
            pictures["error"] = self.heat()
        if frame is not None:
            pictures["overlay"] = self.overlay(frame)
        paths = {}
        for what, picture in pictures.items():
            paths[what] = Path(folder) / f"{name}_{what}.png"
            with write_atomically(paths[what]) as temporary:
                # Encoded in memory: OpenCV takes only some names, and reports no disk that is full.
                temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        return paths
