"""Labelled frames of rendered scenes, and the endless stream of random crops a training reads."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.datasets import LabelledFrames, Sample
from errseg_rt.scenes import StreetScene
from errseg_rt.training.augmentation import random_crop
from errseg_rt.training.recipe import Recipe

_SCENE_SIZE = (360, 480)
_STREETS = 48  # seeds of the streets from which training draws
_SCENE_LENGTH = 300  # frames of a street from which training draws
_VIEWS = 5  # frames of each street from which scores are taken


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

    @property
    def names(self) -> list[str]:
        """Street and view of each frame."""
        return ["street{:03d}_{}".format(*divmod(self.first + index, _VIEWS)) for index in range(self.length)]

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
