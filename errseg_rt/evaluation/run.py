"""A runtime over labelled frames; what cannot be read or scored is told, and the rest is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.datasets import InstanceFrames, LabelledFrames
from errseg_rt.errors import ErrsegError
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.instance_scores import InstanceScores
from errseg_rt.evaluation.labels import View
from errseg_rt.frames.branches import Branches
from errseg_rt.runtime import Runtime
from errseg_rt.system.lines import one_line
from errseg_rt.system.progress import track

FAULTS = (ErrsegError, OSError, MemoryError, cv2.error)
"""What may be wrong with one frame, and not with the next; other errors are faults of the program."""


@dataclass(frozen=True)
class Done:
    """What became of the frames.

    Attributes:
        scored: Indices of the frames that were scored, in the order of the evaluation's lists.
        failed: Name of each other frame, and why it was not scored.
    """

    scored: list[int]
    failed: dict[str, str]


def evaluate_frames(
    runtime: Runtime,
    frames: LabelledFrames,
    evaluation: Evaluation,
    title: str,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    instances: InstanceScores | None = None,
) -> Done:
    """Score every frame; neighbours fall into the same fold.

    Args:
        runtime: Runs the cascade.
        frames: Frames with labels of the runtime's classes.
        evaluation: Counts them.
        title: What the progress bar says.
        scales: Of multi-scale inference, which is scored too unless it is this one and there is no `flip`.
        flip: Whether it also sees each frame mirrored.
        instances: Counts instances; for `InstanceFrames`, and a runtime whose bundle finds instances.
    """
    done = Done([], {})
    for index in track(range(len(frames)), title, len(frames)):
        try:
            frame, truth = frames[index]
            branches = runtime.branches(frame)
            views = _views(runtime, frame, branches, scales, flip)
            if instances is not None:
                true, result = cast(InstanceFrames, frames).instances(index, truth), runtime.segment(frame)
        except FAULTS as error:
            done.failed[frames.names[index]] = reason(error)
            continue
        evaluation.add(truth, branches, views=views, fold=index * len(evaluation.folds) // len(frames))
        if instances is not None:
            assert result.instances is not None
            instances.add(true, truth, result.instances, result.labels)
        done.scored.append(index)
    return done


def reason(error: BaseException) -> str:
    """What is wrong with a frame, in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory; shrink it, or give --work-pixels"
    return one_line(error) or type(error).__name__


def _views(
    runtime: Runtime, frame: npt.NDArray[np.uint8], plain: Branches, scales: Sequence[float], flip: bool
) -> list[View]:
    if tuple(scales) == (1.0,) and not flip:
        return []
    views = [View(plain if scale == 1 else runtime.branches(frame, scale=scale)) for scale in scales]
    if flip:
        mirrored = np.ascontiguousarray(frame[:, ::-1])
        views += [View(runtime.branches(mirrored, scale=scale), mirrored=True) for scale in scales]
    return views
