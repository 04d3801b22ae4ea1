"""What a report says of how frames were refined, of one and of many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errseg_rt.frames.segmentation import Segmentation


def frame_summary(result: Segmentation) -> dict[str, Any]:
    """How a frame was refined, and what its steps took, as far as that is known."""
    return {
        "flagged_share": result.flagged_share,
        "pixels": {
            "over_threshold": result.over_threshold,
            "refined": result.refined,
            "left_out": result.left_out,
        },
        "work": result.work,
        "milliseconds": dict(result.timings),
    }


def frames_summary(frames: Sequence[Mapping[str, Any]], deadline_ms: float | None = None) -> dict[str, Any]:
    """Median milliseconds, means and sums of frames, given their `frame_summary`, and how many were late."""

    def mean(name: str) -> float | None:
        return statistics.fmean(frame[name] for frame in frames) if frames else None

    laps = [frame["milliseconds"] for frame in frames]
    steps = dict.fromkeys(step for lap in laps for step in lap)  # scored frames have one more
    deadline = math.inf if deadline_ms is None else deadline_ms
    return {
        "milliseconds": {step: float(statistics.median(lap[step] for lap in laps if step in lap)) for step in steps},
        "late_frames": sum(sum(lap.values()) > deadline for lap in laps),
        "flagged_share": mean("flagged_share"),
        "left_out_pixels": sum(frame["pixels"]["left_out"] for frame in frames),
        "work": mean("work"),
    }
