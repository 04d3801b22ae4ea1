"""The way of a frame, once, whatever the place: preprocess, front graph, selection, refinement, fusion, instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.contract import CONTRACT
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.engines.engine import Engine
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.finite.reference import finite_reference
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.options import Limits
from errseg_rt.pipeline.outcome import Outcome, check_finite
from errseg_rt.pipeline.pace import Pace
from errseg_rt.pipeline.plan import Plan
from errseg_rt.pipeline.refinement import Refined, Refinement, detail_mode
from errseg_rt.places.place import Marks, Place

_SIZES = 64  # of frames, whose plans are kept


class Pipeline:
    """A cascade in a place. What a frame needs there is the same whatever it shows, unless results are immediate.

    Args:
        bundle: The bundle.
        front: Executes its front graph.
        stage3: Executes its refine graph, where all pixels are refined; None where the bundle has no detail branch.
        place: Where.
        detail: `"sparse"`, `"dense"`, or None: sparse where that is exact.
        spec: How the network takes a frame; None: as the manifest says.

    Attributes:
        place: Where.
        spec: How the network takes a frame.
        detail: How it refines, `"sparse"` or `"dense"`; None: not at all.
        refinement: Its last stage; None where it has none.
        plan: The `Plan` for a size, and for a scale of multi-scale inference; those of recent sizes are kept.
        providers: What ONNX Runtime executes the front graph on; none with other engines.

    Raises:
        BundleError: Its weights are damaged, it cannot be refined as asked for, or its graphs do not fit its manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        front: Engine,
        stage3: Engine | None,
        place: Place,
        *,
        detail: str | None = None,
        spec: InputSpec | None = None,
    ) -> None:
        _check_graphs(bundle, front, stage3)
        self.manifest, self.place, self.spec = bundle.manifest, place, spec or bundle.manifest.input
        self.detail, dtype = detail_mode(bundle, detail), front.outputs["logits"].dtype
        self.refinement = Refinement(bundle, stage3, place, detail, dtype) if stage3 else None
        self.layers = self.refinement.layers if self.refinement else Layers((0, 0, 0))
        self._front, self._pace = front, Pace()
        self.providers: tuple[str, ...] = getattr(front, "providers", ())
        maps = self.manifest.calibration, self.manifest.detail_calibration
        self._knots, self._detail_knots = (each and place.knots(each.logits, each.probabilities) for each in maps)
        self._detail_level = self.manifest.detail_level
        self._things = place.things(self.manifest.instances, len(self.manifest.classes))
        self.plan = lru_cache(_SIZES)(_plans(self.manifest, self.spec, self.layers))

    def run(self, frame: Any, ask: Ask, limits: Any, marks: Marks) -> Outcome:
        """Walk the way of a frame.

        Args:
            frame: `uint8 [H, W, 3]`, an array of the place; a tensor may have any strides.
            ask: What is wanted of it.
            limits: What it may cost: `Limits`, or on a GPU the words of `Bounds`, an array of its.
            marks: Is told of each step.

        Returns:
            Arrays of the place; of a GPU in scratch memory.

        Raises:
            EngineError: A graph cannot be run on this size, or gave values that are not finite.
        """
        place, plan = self.place, self.plan(_size(frame))
        place.begin()
        front = self._dense(frame, ask.color, plan, marks)
        logits = front["logits"][0]
        error_logit = front["error_logit"][0][0] if self.manifest.has_errors else None
        if place.is_immediate:  # before anything is decided by them
            branches = [CONTRACT[name].branch for name in front]
            check_finite(place.finite(list(front.values()), [None] * len(front)), branches)
        marks.lap("front")

        selection, refined = None, Refined(None, None, None, self.layers)
        if self.refinement:
            bounds = self._bounds(limits, plan, marks) if place.is_immediate else limits
            selection = place.select(error_logit, bounds, seen=plan.seen, layers=self.layers)
            marks.lap("select")

            refined = self.refinement.run(front, selection, plan, bounds)
            marks.lap("refine")

        fused = place.fuse_labels(logits, refined.detail, refined.where, plan.geometry, confidence=ask.confidence)
        watched = {} if place.is_immediate else {"semantic": (logits, None), "error": (error_logit, None)}
        if "boxes" in front and not place.is_immediate:
            watched["localization"] = front["boxes"], None
        watched["detail"] = refined.detail, refined.count
        watched = {branch: values for branch, values in watched.items() if values[0] is not None}
        faults = place.finite([values for values, _ in watched.values()], [count for _, count in watched.values()])
        is_final = refined.detail is not None and self._detail_knots is not None
        of_detail = (refined.detail, refined.where, self._detail_knots, self._detail_level) if is_final else ()
        error_probability = None if error_logit is None else place.calibrate(error_logit, self._knots, *of_detail)
        marks.lap("fuse")

        found = None
        if self._things is not None and ask.instances:
            found = place.instances(
                logits, refined.detail, refined.where, front["boxes"][0], fused.labels, plan.geometry, self._things
            )
            marks.lap("instances")

        semantic_labels, semantic_error_probability = None, None
        if ask.semantic:
            semantic_labels = place.fuse_labels(logits, None, None, plan.geometry).labels
            semantic_error_probability = place.calibrate(error_logit, self._knots) if is_final else error_probability
            marks.lap("semantic")
        outcome = Outcome(
            place=place,
            classes=self.manifest.classes,
            geometry=plan.geometry,
            layers=refined.layers,
            labels=fused.labels,
            error_probability=error_probability,
            flagged=selection and selection.flagged,
            counts=selection and selection.counts,
            left_out=selection and selection.left_out,
            faults=faults,
            watched=tuple(watched),
            confidence=fused.confidence,
            semantic_labels=semantic_labels,
            semantic_error_probability=semantic_error_probability,
            instance_map=found and found.map,
            instance_classes=found and found.classes,
            instance_scores=found and found.scores,
            instance_count=found and found.count,
        )
        if place.is_immediate and self.refinement:
            self._pace.saw(outcome.work * plan.dense_work, marks.milliseconds())
        return outcome

    def branches(self, frame: Any, *, color: str = "bgr", scale: float = 1.0) -> Branches:
        """Run all branches densely, decide nothing, and wait.

        Args:
            frame: `uint8 [H, W, 3]`, an array of the place.
            color: Channel order, `"bgr"` or `"rgb"`.
            scale: Factor on the size at which the network takes the frame, for multi-scale inference.

        Raises:
            EngineError: A graph cannot be run on this size, or gave values that are not finite.
            ValueError: `scale` is no scale.
        """
        place, plan = self.place, self.plan(_size(frame), scale)
        place.begin()
        front = self._dense(frame, color, plan, place.marks())
        found = {"logits": front["logits"][0]}
        if self.manifest.has_errors:
            found["error_logit"] = front["error_logit"][0][0]
        if self.refinement:
            found["detail_logits"] = self.refinement.everywhere(front)
        downloaded = place.download(found)
        place.wait()
        arrays = {name: place.host(array).astype(np.float32, copy=False) for name, array in downloaded.items()}
        check_finite(finite_reference(list(arrays.values()), [None] * len(arrays)), self.manifest.branches)
        return Branches(arrays["logits"], arrays.get("error_logit"), arrays.get("detail_logits"), plan.geometry)

    def _dense(self, frame: Any, color: str, plan: Plan, marks: Marks) -> Mapping[str, Any]:
        """Outputs of the front graph."""
        geometry = plan.geometry
        image = self.place.preprocess(
            frame,
            geometry.content_size,
            geometry.input_size,
            **self.spec.normalisation(color)._asdict(),
            dtype=self._front.inputs["image"].dtype,
        )
        marks.lap("preprocess")
        front = self._front.run({"image": image})
        grid = _size(front["logits"][0][0])
        if grid != plan.grid:
            raise EngineError(
                f"the front graph gave a grid of {grid} where the manifest's stride makes {plan.grid}; export it again"
            )
        return front

    def _bounds(self, limits: Limits, plan: Plan, marks: Marks) -> Bounds:
        """What selection goes by, once the front graph's time is known."""
        if limits.deadline_ms is None:
            return plan.bounds(limits)
        return Bounds(limits.threshold, self._pace.budget(limits.deadline_ms, marks.elapsed(), plan.dense_work))


def _plans(manifest: Manifest, spec: InputSpec, layers: Layers) -> Callable[..., Plan]:
    """Makes plans; a method in its stead would hold its pipeline in a circle, and with that memory after the end."""

    def plan(size: Size, scale: float = 1.0) -> Plan:
        return Plan.of(manifest, spec, size, scale, layers)

    return plan


def _size(array: Any) -> Size:
    return int(array.shape[0]), int(array.shape[1])


def _check_graphs(bundle: Bundle, front: Engine, stage3: Engine | None) -> None:
    """Raise BundleError where the graphs do not fit each other or the manifest."""
    wanted = {"logits"} | ({"error_logit"} if bundle.manifest.has_errors else set())
    made = {"detail_logits"}
    if bundle.manifest.instances:
        wanted.add("boxes")
    if stage3:
        wanted, made = wanted | set(stage3.inputs) | {"error_logit"}, set(stage3.outputs)
    if wanted - set(front.outputs) or "detail_logits" not in made:
        raise BundleError(f"{bundle.folder}: its graphs do not fit together; export it again")
    if bundle.manifest.instances:
        things, given = len(bundle.manifest.instances.classes), front.outputs["boxes"].shape[1]
        if given != 4 * things:
            raise BundleError(
                f"{bundle.folder}: the front graph has boxes of {given} channels where {things} classes of instances "
                f"need {4 * things}; export it again"
            )
    channels, classes = front.outputs["logits"].shape[1], len(bundle.manifest.classes)
    if channels != classes:
        raise BundleError(
            f"{bundle.folder}: the front graph has {channels} classes, the manifest has {classes}; export it again"
        )
