"""One look at every frame before the first step: what would stop a training later on is told now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.input_spec import Size
from errseg_rt.datasets import LabelledFrames
from errseg_rt.errors import DataError, ErrsegError
from errseg_rt.system.cores import usable_cores
from errseg_rt.training.sized import SizedFrames, instances_of

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
_MOST_NAMED = 10  # bad files that a message lists
_DIGITS = 16  # hexadecimal ones of a digest


class Seen(NamedTuple):
    """What there is to know of a frame.

    Attributes:
        size: Height and width, as it is learned from.
        digests: Of picture and labels, or numbers of instances, as they are learned from: that a file was written anew
            with the same pixels is no change, that its orientation or its void ids are taken otherwise is one.
        is_labelled: Whether any pixel has a class.
    """

    size: Size
    digests: tuple[str, str]
    is_labelled: bool


class Look(NamedTuple):
    """What a look at some frames has found.

    Attributes:
        what: What the frames are, for messages: a folder and a split.
        frames: The frames.
        seen: What there is to know of each that can be used, in their order.
        faults: What is wrong with the others.
    """

    what: str
    frames: LabelledFrames
    seen: list[Seen]
    faults: list[str]

    @property
    def sized(self) -> SizedFrames:
        """The frames with their sizes, where all can be used."""
        names, sizes = list(self.frames.names), [each.size for each in self.seen]
        return SizedFrames(names, sizes, self.frames.__getitem__, instances=instances_of(self.frames))


def look_at(frames: LabelledFrames, what: str, progress: Progress) -> Look:
    """Read every frame once.

    Args:
        frames: Frames with labels.
        what: What they are.
        progress: Wraps the loop over the frames in a bar.
    """
    if not len(frames):
        return Look(what, frames, [], [])
    pool = ThreadPoolExecutor(usable_cores())
    try:
        asked = pool.map(partial(_look, frames), range(len(frames)))
        looks = list(progress(asked, f"look at {what}", len(frames)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for all of them
    faults = [look for look in looks if isinstance(look, str)]
    return Look(what, frames, [look for look in looks if isinstance(look, Seen)], faults)


def check_usable(*looks: Look) -> None:
    """Hold what was found against what a training wants.

    Raises:
        DataError: Frames cannot be used: a file that cannot be read, labels of another size, ids that are none. The
            first ten are named.
    """
    bad = [look for look in looks if look.faults]
    if bad:
        where = " and ".join(f"{len(look.faults)} of the {len(look.frames)} frames of {look.what}" for look in bad)
        faults = [fault for look in bad for fault in look.faults]
        more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        raise DataError(f"{where} cannot be used: {'; '.join(faults[:_MOST_NAMED])}{more}")


def check_labelled(seen: Sequence[Seen], what: str) -> None:
    """Raises DataError where no frame of some has a pixel with a class."""
    if seen and not any(each.is_labelled for each in seen):
        raise DataError(f"{what}: all labels are void, so that there is nothing to go by; give frames with labels")


def _look(frames: LabelledFrames, index: int) -> Seen | str:
    try:
        frame, labels = frames[index]
        known = instances_of(frames)
        numbers = labels if known is None else known(index, labels)
    except (ErrsegError, OSError) as error:
        return str(error)
    if frame.shape[:2] != labels.shape:  # which are made of the instances, where there are some
        return f"{frames.names[index]}: the frame is {frame.shape[:2]}, its labels {labels.shape}"
    return Seen((labels.shape[0], labels.shape[1]), (_digest(frame), _digest(numbers)), bool((labels != IGNORE).any()))


def _digest(values: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:_DIGITS]
