"""Which frames look alike: crops of one slide or one well, of which a random split would show some to the training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import average, fcluster, leaves_list

from errseg_rt.datasets import LabelledFrames

_BINS = 64
_GROUP = 6  # frames of a group, on average


def alike_groups(frames: LabelledFrames) -> list[list[int]]:
    """Groups of frames of one size, all grey or all coloured, whose colours have alike histograms.

    Frames are joined by average linkage of the Hellinger distances of their histograms, in which dark colours have
    finer bins, into a sixth as many groups as there are frames of the kind. It goes by looks alone: data seldom says
    which slide a frame is of.

    Returns:
        Numbers of the frames of each group; neighbouring groups, and neighbours in a group, look the most alike.
    """
    kinds: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    looks = []
    for index in range(len(frames)):
        frame, _ = frames[index]
        looks.append(_look(frame))
        kinds.setdefault((frame.shape[:2], bool((frame == frame[..., :1]).all())), []).append(index)
    groups: list[list[int]] = []
    for _, members in sorted(kinds.items()):
        groups += [[members[place] for place in group] for group in _clusters(np.stack([looks[i] for i in members]))]
    return groups


def split_groups(groups: Sequence[Sequence[int]], share: float) -> tuple[list[int], list[int]]:
    """Frames to learn from, and a share of them to score on: whole groups, spread evenly over the list.

    A group is held back where that keeps the share of what was held back so far at `share` or below.
    """
    learned: list[int] = []
    held: list[int] = []
    for group in groups:
        seen = len(learned) + len(held) + len(group)
        (held if len(held) + len(group) <= share * seen else learned).extend(group)
    return learned, held


def _look(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Square roots of the shares of each channel's values, `[3 * bins]`; their distance is Hellinger's."""
    bins = np.sqrt(np.arange(256) / 256) * _BINS  # twice as fine at a quarter of full light
    counts = [np.bincount(bins.astype(np.int64)[frame[..., channel]].ravel(), minlength=_BINS) for channel in range(3)]
    return np.sqrt(np.concatenate(counts) / (3 * frame[..., 0].size))


def _clusters(looks: npt.NDArray[np.float64]) -> list[list[int]]:
    count = len(looks)
    if count < 2:
        return [list(range(count))]
    upper = np.triu_indices(count, 1)
    similarity = looks @ looks.T
    tree = average(np.sqrt(np.maximum(1 - similarity[upper], 0)))
    cluster = fcluster(tree, math.ceil(count / _GROUP), "maxclust")
    groups: dict[int, list[int]] = {}
    for place in leaves_list(tree):
        groups.setdefault(int(cluster[place]), []).append(int(place))
    return list(groups.values())
