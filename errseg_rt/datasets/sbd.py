"""The Semantic Boundaries Dataset (Hariharan et al. 2011) as it is handed out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.datasets.frames import LabelledFiles, Sample
from errseg_rt.datasets.instances import TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.datasets.voc import names_of_split
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.formats import IMAGE_ENDS
from errseg_rt.frames.reading import read_frame


class SbdData(LabelledFiles):
    """Frames in `img/`, labels and instances in MATLAB files of `cls/` and `inst/`.

    Args:
        root: Folder that holds the three, and `<split>.txt`, a name a line, where there are splits.
        split: `train`, `val`, or whatever lists there are; None: every frame with labels.
        classes: Number of classes.
        void: Label ids that mean "no class", beside 255.
        label_map: What label ids mean; None: the ids are the classes.

    Raises:
        DataError: A folder is missing or empty, there is no such split, or a frame of it has no image or no labels.
    """

    def __init__(
        self,
        root: Path,
        split: str | None,
        classes: int,
        void: Sequence[int] | None = (),
        label_map: LabelMap | None = None,
    ) -> None:
        for name in ("img", "cls", "inst"):
            if not (root / name).is_dir():
                raise DataError(f"{root / name}: no such folder; SBD has img/, cls/ and inst/")
        pairs = pair_files(root / "img", root / "cls", IMAGE_ENDS, (".mat",), is_partial=True)
        if split is not None:
            wanted = names_of_split(root, split)
            bare = [name for name in wanted if name not in pairs]
            if bare:
                raise DataError(
                    f"{root / 'cls'}: no .mat for {len(bare)} of the {len(wanted)} frames of {split}, as {bare[0]}"
                )
            pairs = {name: pairs[name] for name in wanted}
        super().__init__(pairs, label_map or LabelMap.of(classes, void))
        self.instance_files = {name: root / "inst" / f"{name}.mat" for name in pairs}

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]`.

        Raises:
            DataError: A file cannot be read or is damaged, the labels are not of the frame's size, or an id is neither
                a class nor void.
        """
        image_path, path = self.pairs[index]
        try:
            frame = read_frame(image_path, self.reading)
        except FrameError as error:
            raise DataError(str(error)) from error
        labels = _segmentation(path, "GTcls", "labels", (frame.shape[0], frame.shape[1]))
        return frame, self.label_map.apply(labels.astype(np.uint8), path)

    def instances(self, index: int, labels: npt.NDArray[np.uint8]) -> TrueInstances:
        """The instances of a frame, each of the class that most of its pixels have; see `LabelledFiles.instances`."""
        height, width = labels.shape
        ids = _segmentation(self.instance_files[self.names[index]], "GTinst", "instance ids", (height, width))
        return TrueInstances.of_labels(ids, labels)


def _segmentation(path: Path, name: str, what: str, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """The map in a MATLAB file."""
    from scipy.io import loadmat

    try:
        struct: Any = loadmat(str(path))[name]
        ids = np.asarray(struct["Segmentation"][0, 0])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # of a damaged file, of many kinds
        raise DataError(f"{path}: no MATLAB file with {name}.Segmentation ({type(error).__name__}: {error})") from error
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or ids.shape != size:
        wanted = f"{size[0]}x{size[1]}"
        raise DataError(f"{path}: {what} are {ids.dtype} {ids.shape}, wanted integers of {wanted} as the frame")
    return ids.astype(np.int32)
