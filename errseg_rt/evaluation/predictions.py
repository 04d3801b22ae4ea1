"""Scores of label maps that lie in files, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import plain_name
from errseg_rt.errors import DataError
from errseg_rt.evaluation.label_scores import LabelScores
from errseg_rt.evaluation.labels import coarsened
from errseg_rt.evaluation.run import FAULTS, Done, reason
from errseg_rt.frames.files import find_files
from errseg_rt.frames.reading import read_labels
from errseg_rt.system.progress import track

_PNG = ".png"
_ENDS = ("", "_labels")  # of files that are a prediction alone, and of those that lie beside colours and overlays


def pair_predictions(frames: LabelledFiles, folder: Path) -> list[Path]:
    """The prediction of each frame: a PNG with the name of the frame or of its image, or one that ends in `_labels`.

    It is looked for under the frame's own path below the folder, else under its file name alone, wherever in there.

    Args:
        frames: Labelled frames.
        folder: Folder of predictions, searched through and through.

    Raises:
        DataError: There is no such folder, or a frame has no prediction, or several.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions")
    by_path: dict[str, list[Path]] = {}
    by_name: dict[str, list[Path]] = {}
    for path in find_files(folder, (_PNG,))[0]:
        by_path.setdefault(plain_name(path.relative_to(folder).as_posix()[: -len(_PNG)]), []).append(path)
        by_name.setdefault(plain_name(path.name[: -len(_PNG)]), []).append(path)
    found, bare = [], []
    for name, (image, _) in zip(frames.names, frames.pairs, strict=True):
        below = Path(name).parent
        names = [f"{stem}{end}" for stem in dict.fromkeys((Path(name).name, plain_name(image.stem))) for end in _ENDS]
        near = [path for stem in names for path in by_path.get((below / stem).as_posix(), [])]
        taken = near or [path for stem in names for path in by_name.get(stem, [])]
        if len(taken) > 1:
            raise DataError(f"{taken[1]}: is a prediction of frame {name}, as {taken[0]} is; leave one of them there")
        found += taken
        bare += [] if taken else [name]
    if bare:
        raise DataError(f"{folder}: no prediction (.png) for {len(bare)} of the {len(frames)} frames, first {bare[0]}")
    twice = len(found) - len(set(found))
    if twice:
        raise DataError(
            f"{folder}: {twice} predictions have the name of several frames; keep them in the frames' folders"
        )
    return found


def score_predictions(
    frames: LabelledFiles,
    predictions: Sequence[Path],
    label_map: LabelMap,
    scores: LabelScores,
    title: str,
    coarse: npt.NDArray[np.uint8] | None = None,
) -> Done:
    """Score every frame's prediction.

    Args:
        frames: Labelled frames.
        predictions: The prediction of each.
        label_map: What the ids in these mean; void ones are wrong wherever there is a true class.
        scores: Counts them; must take void labels.
        title: What the progress bar says.
        coarse: What each of the classes that they mean counts as, as `Evaluation` takes it.
    """
    done = Done([], {})
    for index in track(range(len(frames)), title, len(frames)):
        try:
            _, truth = frames[index]
            path = predictions[index]
            raw = read_labels(path, (truth.shape[0], truth.shape[1]), frames.reading, label_map.colors)
            labels = coarsened(label_map.apply(raw, path), coarse)
        except FAULTS as error:
            done.failed[frames.names[index]] = reason(error)
            continue
        scores.add(truth, labels)
        done.scored.append(index)
    return done
