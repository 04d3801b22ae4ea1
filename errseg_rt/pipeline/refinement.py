"""Stage 3 of the detail branch: on the supports of the flagged pixels, or everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.stage3 import stage3_weights
from errseg_rt.engines.engine import Engine
from errseg_rt.errors import BundleError
from errseg_rt.kernels.refine.work import BREAK_EVEN
from errseg_rt.kernels.select.layers import LAYERS, Layers
from errseg_rt.kernels.select.operands import Bounds, Selection
from errseg_rt.pipeline.plan import Plan
from errseg_rt.places.place import Place


@dataclass(frozen=True, eq=False)
class Refined:
    """What refinement gives, as fusion takes it, in arrays of the place.

    Attributes:
        detail: Detail logits, `[rows, K]` or `[K, h, w]`; None where nothing is flagged.
        where: The row of each grid pixel, `int32 [h, w]`, -1 where not flagged; for a map, `bool [h, w]`.
        count: How many rows are defined, `int32 []`; None: all.
        layers: Those of stage 3; None where the whole stage was computed.
    """

    detail: Any | None
    where: Any | None
    count: Any | None
    layers: Layers | None


class Refinement:
    """Labels selected pixels again.

    Args:
        bundle: Whose detail branch it is.
        stage3: Executes its refine graph, where all pixels are refined.
        place: Where.
        detail: `"sparse"`: the supports of flagged pixels; `"dense"`: all pixels; None: sparse where the bundle's norms
            are frozen, which makes that exact.
        dtype: Of the tensors between the graphs.

    Attributes:
        detail: `"sparse"` or `"dense"`.
        layers: Those of stage 3; of equal work where the whole stage is computed anyway.

    Raises:
        BundleError: Sparse refinement is asked of a bundle whose norms are not frozen, or its weights are damaged.
    """

    def __init__(self, bundle: Bundle, stage3: Engine, place: Place, detail: str | None, dtype: str) -> None:
        self.detail = detail_mode(bundle, detail)
        self._stage3, self._place, self._weights = stage3, place, None
        self.layers = LAYERS
        if self.detail == "sparse":
            weights = stage3_weights(bundle)
            self.layers, self._weights = weights.layers, place.weights(weights, dtype)

    def run(self, front: Mapping[str, Any], selection: Selection, plan: Plan, bounds: Any) -> Refined:
        """Label the selected pixels again.

        Args:
            front: Outputs of the front graph.
            selection: The pixels.
            plan: Of the frame.
            bounds: Those that they were selected by.

        Raises:
            EngineError: The refine graph failed.
        """
        if self._place.is_immediate and not selection.counts[2]:
            return Refined(None, None, None, self.layers)
        if self._weights is None or (self._place.is_immediate and self._is_dense_faster(selection, plan, bounds)):
            return Refined(self.everywhere(front), selection.flagged, None, None)
        logits, low, coarse, gate = (front[name][0] for name in ("logits", "low", "coarse", "gate"))
        rows = self._place.refine(self._weights, selection, logits, low, coarse, gate.reshape(gate.shape[0]))
        return Refined(rows, selection.slots[2].reshape(*plan.grid), selection.counts[2], self.layers)

    def everywhere(self, front: Mapping[str, Any]) -> Any:
        """Detail logits of every grid pixel, `[K, h, w]`, by the refine graph, for outputs of the front graph.

        Raises:
            EngineError: The refine graph failed.
        """
        return self._stage3.run({name: front[name] for name in self._stage3.inputs})["detail_logits"][0]

    def _is_dense_faster(self, selection: Selection, plan: Plan, bounds: Bounds) -> bool:
        """Whether so much is flagged that the dense stage is the faster one, and within the budget."""
        is_allowed = bounds.budget is None or plan.dense_work <= bounds.budget
        return is_allowed and selection.work(self.layers) > BREAK_EVEN * plan.dense_work


def detail_mode(bundle: Bundle, detail: str | None) -> str | None:
    """Whether stage 3 is computed `"sparse"` or `"dense"`, as asked for; for None, sparse where that is exact.

    Returns:
        None where the bundle has no detail branch.

    Raises:
        BundleError: Sparse refinement is asked of a bundle whose norms are not frozen, or any of one without a detail
            branch.
    """
    if not bundle.manifest.has_detail:
        if detail:
            raise BundleError(
                f"{bundle.folder}: it has no detail branch, so that nothing is refined; leave out detail, budget and "
                "deadline"
            )
        return None
    is_exact = bool(bundle.manifest.cascade.get("detail_frozen"))
    if detail == "sparse" and not is_exact:
        raise BundleError(
            f"{bundle.folder}: its detail branch has no frozen norms, so that no pixel can be computed alone; refine "
            "it densely, without budget and deadline, or train it with frozen norms and export it again"
        )
    return detail or ("sparse" if is_exact else "dense")
