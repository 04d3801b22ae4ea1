"""Splitting frames of drives, where neighbours look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from errseg_rt.training.recipe_learning import CrossFitConfig


class Fold(NamedTuple):
    """Indices of the frames that a fold holds, and of those that its semantic branch learns from."""

    held: list[int]
    learned: list[int]


def hold_out(frames: int, blocks: int = 5, share: float = 0.1, gap: int = 1) -> tuple[list[int], list[int]]:
    """Split consecutive frames: the end of each of `blocks` stretches is kept back, for calibration.

    Frames of one drive look alike, so `gap` frames to either side of what is kept back are used for nothing.

    Args:
        frames: Number of frames, in the order they were taken.
        blocks: Number of stretches.
        share: Share of each stretch that is kept back.
        gap: Frames left out at either side.

    Returns:
        Indices to learn from, and indices kept back (at least one where there are two frames or more).
    """
    ends = [round(frames * (block + 1) / blocks) for block in range(blocks)]
    size = max(1, round(frames / blocks * share))
    held = sorted({index for end in ends for index in range(max(end - size, 0), end)})
    return _without(frames, held, gap), held


def folds(names: Sequence[str], config: CrossFitConfig) -> list[Fold]:
    """Deal stretches of consecutive frames of each drive to the folds in turn.

    Args:
        names: Names of the frames in the order they were taken; what stands before the first `_` names the drive, and
            those without one are all of one drive.
        config: Folds, blocks and gap.

    Returns:
        The folds, of which one holds every frame; none where `config` wants none.
    """
    if not config.folds:
        return []
    drives: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        head, underscore, _ = name.partition("_")
        drives.setdefault(head if underscore else "", []).append(index)
    stretches = config.folds * config.blocks
    held: list[list[int]] = [[] for _ in range(config.folds)]
    for drive in drives.values():
        for place, index in enumerate(drive):
            held[place * stretches // len(drive) % config.folds].append(index)
    return [Fold(part, _without(len(names), part, config.gap)) for part in held]


def _without(frames: int, held: Sequence[int], gap: int) -> list[int]:
    near = {index + step for index in held for step in range(-gap, gap + 1)}
    return [index for index in range(frames) if index not in near]
