"""Labelled frames: a folder of them, rendered scenes, and the endless stream of random crops a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from errseg_rt.classes import IGNORE
from errseg_rt.errors import DataError
from errseg_rt.input_spec import InputSpec
from errseg_rt.scenes import StreetScene
from errseg_rt.training.augmentation import Sample, random_crop
from errseg_rt.training.recipe import Recipe

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_SCENE_SIZE = (360, 480)
_STREETS = 48  # seeds of the streets from which training draws
_SCENE_LENGTH = 300  # frames of a street from which training draws
_VIEWS = 5  # frames of each street from which scores are taken


class LabelledFrames(Protocol):
    """Frames with their labels, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class FolderData:
    """Frames in `images/` and 8-bit class ids in `labels/`, under the same names.

    Args:
        root: Folder that holds both.
        classes: Number of classes.
        void: Label ids, beside 255, that mean "no class".

    Raises:
        DataError: A folder is missing or empty, or frames and labels do not pair.
    """

    def __init__(self, root: Path, classes: int, void: Sequence[int] = ()) -> None:
        for folder in (root / "images", root / "labels"):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder; labelled frames lie in images/ and labels/ under one name")
        labels = {path.stem: path for path in (root / "labels").iterdir() if path.suffix.lower() == ".png"}
        images = sorted(p for p in (root / "images").iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{root / 'images'}: holds no image")
        bare = [path.name for path in images if path.stem not in labels]
        if bare:
            raise DataError(f"{root / 'labels'}: no .png for {len(bare)} of the {len(images)} images, first {bare[0]}")
        self.pairs = [(path, labels[path.stem]) for path in images]
        self._known = np.full(256, False)
        self._known[[*range(classes), *void, IGNORE]] = True
        self._to_id = np.full(256, IGNORE, np.uint8)
        self._to_id[:classes] = np.arange(classes)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]` with `IGNORE` for void.

        Raises:
            DataError: A file cannot be read, sizes differ, or a label id is neither a class nor void.
        """
        image_path, label_path = self.pairs[index]
        frame, labels = cv2.imread(str(image_path), cv2.IMREAD_COLOR), cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        if frame is None or labels is None:
            raise DataError(f"{image_path if frame is None else label_path}: not a readable image")
        if labels.dtype != np.uint8 or labels.shape != frame.shape[:2]:
            raise DataError(
                f"{label_path}: labels are {labels.dtype} {labels.shape}, wanted uint8 {frame.shape[:2]} as the frame"
            )
        strange = np.unique(labels[~self._known[labels]])
        if strange.size:
            raise DataError(f"{label_path}: label ids {strange.tolist()} are neither classes nor void")
        return np.asarray(frame, np.uint8), self._to_id[labels]

    def subset(self, indices: Sequence[int]) -> FolderData:
        """The same data with only some of its frames."""
        part = copy(self)
        part.pairs = [self.pairs[index] for index in indices]
        return part


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
    near = {index + step for index in held for step in range(-gap, gap + 1)}
    learned = [index for index in range(frames) if index not in near]
    return learned, held


class CropStream(Dataset[tuple[Tensor, Tensor]]):
    """Random crops, each decided by its number alone, so that a training can go on where it was killed.

    Args:
        frames: Labelled frames to draw from; may be empty when everything is rendered.
        recipe: Seeds, crops and the share of rendered scenes.
        stage: Index of the training stage, so that stages see different crops.
        start: Number of the first crop.
        length: Number of crops.
    """

    def __init__(self, frames: LabelledFrames, recipe: Recipe, stage: int, start: int, length: int) -> None:
        self.frames, self.recipe, self.stage, self.start, self.length = frames, recipe, stage, start, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Normalised crop `float32 [3, h, w]` and its labels `int64 [h, w]`."""
        rng = np.random.default_rng([self.recipe.seed, self.stage, self.start + index])
        if not len(self.frames) or rng.random() < self.recipe.data.rendered:
            sample = rendered_sample(int(rng.integers(_STREETS)), int(rng.integers(_SCENE_LENGTH)))
        else:
            sample = self.frames[int(rng.integers(len(self.frames)))]
        picture, labels = random_crop(sample, self.recipe.input, self.recipe.augment, rng)
        return normalise(picture, self.recipe.input), torch.from_numpy(labels.astype(np.int64))


def rendered_sample(seed: int, index: int) -> Sample:
    """One rendered frame with its labels."""
    scene = _street(seed).frame(index)
    return scene.frame, scene.labels


@lru_cache(maxsize=_STREETS)
def _street(seed: int) -> StreetScene:
    # Building a street takes ten times as long as rendering a frame of it.
    return StreetScene(seed, *_SCENE_SIZE)


class RenderedData:
    """Rendered frames of streets that training never draws: their seeds start where its seeds end.

    Args:
        length: Number of frames.
        first: Frames to skip.
    """

    def __init__(self, length: int, first: int = 0) -> None:
        self.length, self.first = length, first

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Frame and labels, as `FolderData` gives them."""
        street, view = divmod(self.first + index, _VIEWS)
        return rendered_sample(_STREETS + street, view * _SCENE_LENGTH // _VIEWS)


def normalise(picture: npt.NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """Network input `float32 [3, h, w]` of a BGR picture `uint8 [h, w, 3]`."""
    rgb = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1])).permute(2, 0, 1).float() / 255
    return (rgb - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
