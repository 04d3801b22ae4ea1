"""Frames in a place whose results are immediate: each is done when it is submitted."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from errseg_rt.errors import EngineError
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.options import Limits
from errseg_rt.pipeline.in_flight import FrameInFlight
from errseg_rt.pipeline.pipeline import Pipeline

_SMALL, _SHARE = (32, 32), 0.5  # of a frame of which some flagged pixels, and not all, are within the budget


class Direct:
    """Sends frames through a pipeline, from as many threads as like: there are neither seats nor a lock.

    Args:
        pipeline: What a frame goes through.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def submit(self, frame: Any, ask: Ask, limits: Limits) -> FrameInFlight:
        """Do a frame; what is raised as by `Pipeline.run`."""
        place = self.pipeline.place
        marks = place.marks()
        outcome = self.pipeline.run(place.upload(frame), ask, limits, marks)
        return FrameInFlight(outcome.with_arrays(place.download(outcome.arrays())), marks)

    def on_device(self, frame: Any, ask: Ask, limits: Limits) -> NoReturn:
        """Refuse: results of this place are the host's anyway."""
        raise EngineError("this runtime works on the CPU; open it with the device cuda, or use segment()")

    def branches(self, frame: Any, *, color: str = "bgr", scale: float = 1.0) -> Branches:
        """As `Pipeline.branches`."""
        return self.pipeline.branches(self.pipeline.place.upload(frame), color=color, scale=scale)

    def prepare(self, size: tuple[int, int]) -> None:
        """Compile what frames of any size need, by way of a small one whose pixels are flagged."""
        is_sparse = self.pipeline.detail == "sparse"
        some = Limits(1e-9, budget=_SHARE if is_sparse else None)
        result = self.submit(np.zeros((*_SMALL, 3), np.uint8), Ask(confidence=True), some).result()
        if result.error_probability is not None:
            result.error_map()
        spec, classes = self.pipeline.manifest.instances, len(self.pipeline.manifest.classes)
        if spec is not None:  # a small frame may well show no thing
            place, size, of_thing = self.pipeline.place, (2, 2), spec.classes[0]
            logits, boxes = np.zeros((classes, *size), np.float32), np.ones((4 * len(spec.classes), *size), np.float32)
            logits[of_thing] = 1
            labels, geometry = np.full(size, of_thing, np.uint8), Geometry(size, size, size, size, False)
            place.instances(logits, None, None, boxes, labels, geometry, place.things(spec, classes))
