"""The true instances of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.frames.runs import runs_of

VOID = -1
"""In a map of true instances: nobody said what is there, and nothing that is found there counts."""


class Meaning(NamedTuple):
    """What an id of an instance map means.

    Attributes:
        label: Class id; `IGNORE`: void.
        crowd: Whether it is a group whose members are not told apart.
    """

    label: int
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class TrueInstances:
    """M instances of a frame, in the order of their ids.

    Attributes:
        map: Whose each pixel is, `int32 [H, W]`: 0 nobody's, k the k-th instance's, `VOID` where nobody said.
        classes: Class ids, `int32 [M]`.
        crowd: Which are groups whose members are not told apart, so that they are neither missed nor found, `bool [M]`.
    """

    map: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    crowd: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, ids: npt.NDArray[np.int32], meanings: Mapping[int, Meaning]) -> TrueInstances:
        """From an instance map of any ids, and what they mean; those without a meaning are nobody's.

        Args:
            ids: `int32 [H, W]`.
            meanings: By id.
        """
        runs = runs_of(ids)
        found, place = np.unique(runs.ids, return_inverse=True)
        numbers = np.zeros(len(found), np.int32)
        kept: list[Meaning] = []
        for index, instance in enumerate(found.tolist()):
            meaning = meanings.get(instance)
            if meaning is None:
                continue
            if meaning.label == IGNORE:
                numbers[index] = VOID
            else:
                kept.append(meaning)
                numbers[index] = len(kept)
        return cls(
            np.repeat(numbers[place], runs.lengths).reshape(ids.shape),
            np.array([meaning.label for meaning in kept], np.int32),
            np.array([meaning.crowd for meaning in kept], bool),
        )

    @classmethod
    def of_labels(
        cls, ids: npt.NDArray[np.int32], labels: npt.NDArray[np.uint8], void: int | None = None
    ) -> TrueInstances:
        """From an instance map and a label map: an instance has the class that most of its pixels have.

        Args:
            ids: `int32 [H, W]`: 0 nobody's.
            labels: True class ids, `uint8 [H, W]`, `IGNORE` where void; an instance that is all void is void.
            void: Id that means "void"; None: there is none.
        """
        runs = runs_of(ids)
        found, place = np.unique(runs.ids, return_inverse=True)
        compact = np.repeat(place, runs.lengths).reshape(ids.shape)
        votes = np.bincount((compact * 256 + labels).reshape(-1), minlength=256 * len(found)).reshape(-1, 256)
        votes[:, IGNORE] = 0
        winners = np.where(votes.any(axis=1), votes.argmax(axis=1), IGNORE)
        meanings = {instance: Meaning(label) for instance, label in zip(found.tolist(), winners.tolist(), strict=True)}
        meanings.pop(0, None)
        if void is not None:
            meanings[void] = Meaning(IGNORE)
        return cls.of(ids, meanings)

    def __len__(self) -> int:
        return len(self.classes)
