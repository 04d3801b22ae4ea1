"""Stage 3 of the detail branch: on the supports of the flagged pixels, or everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import WEIGHTS, Bundle
from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.engines import Array, Engine
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.refine import BREAK_EVEN, RefineWeights, refine
from errseg_rt.kernels.select import Selection, select


@dataclass(frozen=True)
class Refined:
    """What refinement gives, as fusion takes it.

    Attributes:
        detail: Detail logits, `float32 [n, classes]` by row or `[classes, h, w]`; None where nothing is flagged.
        where: The row of each grid pixel, `int32 [h, w]`, -1 where not flagged; for a map, `bool [h, w]`.
        work: Multiply-adds that were computed, to be held against `Refinement.dense_work`.
    """

    detail: Array | None
    where: npt.NDArray[np.int32] | npt.NDArray[np.bool_] | None
    work: int


class Refinement:
    """Selects pixels and labels them again; may be used from several threads at once.

    Args:
        bundle: Whose detail branch it is.
        engine: Executes its stage 3 densely.
        detail: `"sparse"`: the supports of flagged pixels; `"dense"`: all pixels; None: sparse where the bundle's norms
            are frozen, which makes that exact.
        threads: CPU threads of one frame.

    Attributes:
        detail: `"sparse"` or `"dense"`.

    Raises:
        BundleError: Sparse refinement is asked of a bundle whose norms are not frozen, or its weights are damaged.
    """

    def __init__(self, bundle: Bundle, engine: Engine, detail: str | None, *, threads: int) -> None:
        self.detail = detail_mode(bundle, detail)
        self._weights = stage3_weights(bundle) if self.detail == "sparse" else None
        self._engine, self._threads = engine, threads

    @property
    def row_work(self) -> tuple[int, int, int]:
        """Multiply-adds of a pixel in F1, F2 and F3; in equal parts where the whole stage is computed anyway."""
        return self._weights.row_work if self._weights else (1, 1, 1)

    def dense_work(self, grid: tuple[int, int]) -> int:
        """Multiply-adds of the dense stage on a grid `(h, w)`."""
        return grid[0] * grid[1] * sum(self.row_work)

    def select(
        self, error_logit: npt.NDArray[np.floating], threshold: float, geometry: Geometry, budget: int | None
    ) -> Selection:
        """Flag pixels that some pixel of the frame is made from, by eq. 4 and within a budget.

        Args:
            error_logit: `[h, w]`.
            threshold: t, between 0 and 1.
            geometry: How the frame lies on the grid.
            budget: Most multiply-adds; None: no limit.
        """
        return select(error_logit, threshold, seen=geometry.seen(), row_work=self.row_work, budget=budget)

    def refine(self, front: Mapping[str, Array], selection: Selection, budget: int | None) -> Refined:
        """Label the selected pixels again: sparsely, unless the dense stage is faster and within the budget.

        Args:
            front: Outputs of the front graph.
            selection: The pixels.
            budget: The one they were selected with.

        Raises:
            EngineError: The refine graph failed, or a logit is not finite.
        """
        supports = selection.supports
        if not len(supports.rows3):
            return Refined(None, None, 0)
        work, dense_work = supports.work(self.row_work), self.dense_work(supports.grid_size)
        is_dense_best = work > BREAK_EVEN * dense_work and (budget is None or dense_work <= budget)
        if self._weights is None or is_dense_best:
            return Refined(self.everywhere(front), selection.flagged, dense_work)
        logits, low, coarse = (front[name][0] for name in ("logits", "low", "coarse"))
        rows = refine(self._weights, supports, logits, low, coarse, front["gate"].ravel(), threads=self._threads)
        return Refined(
            finite("sparse refinement", "detail_logits", rows), supports.slot3.reshape(supports.grid_size), work
        )

    def everywhere(self, front: Mapping[str, Array]) -> Array:
        """Detail logits of every grid pixel, `float32 [classes, h, w]`, from the refine graph.

        Args:
            front: Outputs of the front graph.

        Raises:
            EngineError: The refine graph failed, or a logit is not finite.
        """
        outputs = self._engine.run({name: front[name] for name in self._engine.inputs})
        detail: Array = finite("the refine graph", "detail_logits", outputs["detail_logits"])[0]
        return detail

    def warm_up(self) -> None:
        """Compile the kernels ahead."""
        geometry, error_logit = Geometry((2, 2), (8, 8), (8, 8), (8, 8), True), np.ones((2, 2), np.float32)
        self.select(error_logit, 0.5, geometry, 0)
        selection = self.select(error_logit, 0.5, geometry, None)
        if self._weights is None:
            return
        weights = self._weights
        shapes = ((weights.classes, 2, 2), (weights.low_channels, 2, 2), (weights.coarse_channels, 1, 1))
        logits, low, coarse = (np.zeros(shape, np.float32) for shape in shapes)
        gate = np.zeros(weights.channels, np.float32)
        refine(weights, selection.supports, logits, low, coarse, gate, threads=self._threads)


def finite(source: str, name: str, array: Array) -> Array:
    """The array; EngineError when a value of it is NaN or infinite."""
    if not np.isfinite(array).all():
        raise EngineError(f"{source} gave non-finite {name}; the bundle's weights are damaged: export it again")
    return array


def detail_mode(bundle: Bundle, detail: str | None) -> str:
    """Whether stage 3 is computed `"sparse"` or `"dense"`, as asked for; for None, sparse where that is exact.

    Raises:
        BundleError: Sparse refinement is asked of a bundle whose norms are not frozen.
    """
    is_exact = bool(bundle.manifest.cascade.get("detail_frozen"))
    if detail == "sparse" and not is_exact:
        raise BundleError(
            f"{bundle.folder}: its detail branch has no frozen norms, so that no pixel can be computed alone; use "
            "detail='dense' without budget and deadline, or train it with frozen norms and export it again"
        )
    return detail or ("sparse" if is_exact else "dense")


def stage3_weights(bundle: Bundle) -> RefineWeights:
    """Weights of a bundle's stage 3, its norms folded.

    Raises:
        BundleError: They are damaged, or not those of a stage whose norms are frozen.
    """
    from safetensors import SafetensorError, safe_open

    path = bundle.path(WEIGHTS)
    try:
        with safe_open(path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith("detail.")}  # noqa: SIM118
    except SafetensorError as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again") from error
    manifest = bundle.manifest
    return refine_weights(
        weights,
        str(path),
        residual=bool(manifest.cascade.get("residual", True)),
        align_corners=manifest.align_corners,
    )
