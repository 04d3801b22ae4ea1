"""Label ids that are classes, but not the ones that are meant: told by what a network says of the same pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet

_MUCH = 0.25  # share of the pixels by which another reading of the ids must fit better
_MOST = 0.5  # share of the pixels that are labelled right where nothing is amiss
_NAMED = 3  # exchanged classes that a message lists


def doubts(counts: npt.NDArray[np.int64], classes: ClassSet, bundle: str, first_id: int | None = None) -> list[str]:
    """Why the true labels may not mean what they were taken for; none where they fit.

    Args:
        counts: `int64 [classes, classes]`, true class by predicted, of all frames.
        classes: What the ids were taken for.
        bundle: Name of what predicted, for the message.
        first_id: Id of the first class, where the ids are the classes; None: a map says what they mean.

    Returns:
        At most one line, for a person.
    """
    from scipy.optimize import linear_sum_assignment

    valid = counts.sum()
    if not valid:
        return []
    fits = np.trace(counts) / valid
    of_truth = counts.sum(axis=1)
    fitting = f"only {fits:.0%} of the pixels are labelled right"
    steps = [step for step in (1, -1) if first_id is not None and first_id + step >= 0 and len(classes) > 2]
    for step in steps:
        # Counted one higher, class c is called c + 1, and c - 1 the other way round; of two, that is an exchange.
        shifted, meant = np.trace(counts, offset=-step), of_truth[1:] if step > 0 else of_truth[:-1]
        if meant.sum() >= valid / 2 and shifted / meant.sum() >= fits + _MUCH:
            first = (first_id or 0) + step
            return [f"{fitting}, {shifted / meant.sum():.0%} if ids are counted from {first}: give --first-id {first}"]
    if fits >= _MOST:
        return []
    if np.flatnonzero(of_truth).tolist() == [0]:
        return [f"{fitting}, and no label is another than {classes.names[0]} or void: is it a mask of 0 and 255?"]
    true, meant = linear_sum_assignment(counts, maximize=True)
    if counts[true, meant].sum() / valid >= fits + _MUCH:
        pairs = sorted(((counts[a, b], a, b) for a, b in zip(true, meant, strict=True) if a != b), reverse=True)
        named = ", ".join(f"{classes.names[a]} to be {classes.names[b]}" for count, a, b in pairs[:_NAMED] if count)
        exchanged = f", and ids seem exchanged ({named})"
    else:
        exchanged = ""
    return [f"{fitting}{exchanged}: are these ids those of `errseg-rt inspect {bundle}`?"]
