"""The stages of `benchmarks/gpu.py`, and how long each may take of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """What is done in a process of its own.

    Attributes:
        name: As `--only` has it.
        limit: Seconds that it may take.
        least: Seconds below which it is not begun.
        shows: What is known when it is done.
        by_name: Whether it is run only where it is asked for.
    """

    name: str
    limit: float
    least: float
    shows: str
    by_name: bool = False


# Correctness before any time; the cheapest and most wanted first.
STAGES = (
    Stage("probe", 25, 5, "what is installed, and that a kernel runs"),
    Stage("kernels-right", 120, 40, "all checks of the seven kernels on this GPU"),
    Stage("frame-right", 90, 30, "whole frames: labels as on the CPU, in flight, from several threads and streams"),
    Stage("ahead", 80, 25, "kernels compiled ahead, launched by cuda-core: the labels of torch"),
    Stage("memcheck", 70, 25, "compute-sanitizer finds no access of select and refine out of bounds"),
    Stage("kernels", 150, 50, "times of each kernel, and of the path behind the front graph"),
    Stage("frame", 130, 60, "times of whole frames: torch in fp16, dense, sparse, within a budget; where they go"),
    Stage("tiles", 60, 20, "other launches than those that are shipped: the same results, in which time"),
    Stage("compile", 300, 60, "what torch.compile makes of fusion and of whole frames", by_name=True),
    Stage("precisions", 150, 60, "times of whole frames in fp32 and bf16", by_name=True),
    Stage("tensorrt", 500, 120, "engines that TensorRT builds: times of whole frames", by_name=True),
)
NAMES = tuple(stage.name for stage in STAGES)


def seconds_for(stages: Sequence[Stage], left: float) -> float | None:
    """How long the first of some stages may take.

    Its limit; more where there is time for more than all limits; less where the least of the later ones would not be
    left, but not less than its own.

    Args:
        stages: Those that are still to be run, in their order.
        left: Seconds for all of them.

    Returns:
        Seconds; None where too few are left for it.
    """
    first, *later = stages
    if left < first.least:
        return None
    stretched = first.limit * max(1.0, left / sum(stage.limit for stage in stages))
    spare = left - sum(stage.least for stage in later)
    return max(first.least, min(stretched, spare))
