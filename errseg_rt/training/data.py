"""Labelled frames of rendered scenes, and the endless stream of random crops a training reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.datasets import LabelledFrames, Sample
from errseg_rt.errors import DataError
from errseg_rt.scenes import StreetScene
from errseg_rt.training.augmentation import crop_of_frame, crop_of_ids, random_warp, relit
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.sized import InstanceMap, SizedFrames, instances_of, shares_of, sizes_of

SCENE_SIZE = (360, 480)
"""Height and width of rendered frames that stand beside no others."""
_STREETS = 48  # seeds of the streets from which training draws
_LEAST_STREETS = 8  # where frames are large: of 720x960, a street takes 100 MB, of 360x480, 30 MB
_VIEWS_FROM = 500  # first rendered frame that the branches learn from: none that is scored
_SCENE_LENGTH = 300  # frames of a street from which training draws
_VIEWS = 5  # frames of each street from which scores are taken
_SIDES = (32, 8192)  # of a rendered frame
_IDS = 256  # of labels
_MOST_PIXELS = 2_100_225  # of a rendered frame; 1025x2049, as networks reduce larger ones


class CropStream(Dataset[tuple[Tensor, ...]]):
    """Random crops, each decided by its number alone, so that a training can go on where it was killed.

    Args:
        frames: Labelled frames to draw from; may be empty when everything is rendered.
        recipe: Seeds, crops and the share of rendered scenes, which have the sizes of the frames.
        stage: Index of the training stage, so that stages see different crops.
        start: Number of the first crop.
        length: Number of crops.
        with_instances: Whether the numbers of instances are cropped, too.
    """

    def __init__(
        self,
        frames: LabelledFrames,
        recipe: Recipe,
        stage: int,
        start: int,
        length: int,
        *,
        with_instances: bool = False,
    ) -> None:
        self.frames, self.recipe, self.stage, self.start, self.length = frames, recipe, stage, start, length
        self.with_instances = with_instances
        self._street_sizes = street_sizes(recipe, frames)
        self._merge = recipe.merge

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Normalised crop `float32 [3, h, w]`, its labels `int64 [h, w]` and, if wanted, its instances, likewise."""
        rng = np.random.default_rng([self.recipe.seed, self.stage, self.start + index])
        if not len(self.frames) or rng.random() < self.recipe.data.rendered:
            street = int(rng.integers(_STREETS)) % len(self._street_sizes)
            of_scene = self._street_sizes[street], street, int(rng.integers(_SCENE_LENGTH))
            sample = rendered_sample(*of_scene)
            instances: Callable[[], InstanceMap] | None = partial(rendered_instances, *of_scene)
            if self._merge is not None:
                sample = sample[0], self._merge.to_truth[sample[1]]
        else:
            count, shares = len(self.frames), shares_of(self.frames)
            drawn = int(rng.integers(count) if shares is None else rng.choice(count, p=shares))
            sample = self.frames[drawn]
            known = instances_of(self.frames)
            instances = None if known is None else partial(known, drawn, sample[1])
        (frame, labels), spec, augment = sample, self.recipe.input, self.recipe.augment
        warp = random_warp((labels.shape[0], labels.shape[1]), spec, augment, rng)
        if self.with_instances and instances is None:
            raise DataError("the frames have no instances, of which the localization head learns; give such as do")
        if self.with_instances and instances is not None:
            # In one map, since OpenCV rounds places otherwise for another type of pixel.
            both = crop_of_ids(np.maximum(instances(), 0) * _IDS + labels, warp, augment, IGNORE).astype(np.int64)
            maps = [both % _IDS, both // _IDS]
        else:
            maps = [crop_of_ids(labels, warp, augment, IGNORE).astype(np.int64)]
        picture = relit(crop_of_frame(frame, warp, spec, augment), augment, rng)
        return normalise(picture, spec), *map(torch.from_numpy, maps)


def rendered_sample(size: Size, seed: int, index: int) -> Sample:
    """One rendered frame with its labels."""
    scene = _street(size, seed).frame(index)
    return scene.frame, scene.labels


def rendered_instances(size: Size, seed: int, index: int) -> InstanceMap:
    """Number of the instance of each pixel of such a frame, `int32 [H, W]`, 0 where there is none."""
    return _street(size, seed).frame(index).instances.astype(np.int32)


@lru_cache(maxsize=_STREETS)
def _street(size: Size, seed: int) -> StreetScene:
    # Building a street takes ten times as long as rendering a frame of it.
    return StreetScene(seed, *size)


def street_sizes(recipe: Recipe, frames: LabelledFrames) -> list[Size]:
    """Sizes of the streets from which crops are drawn, those of the frames in their shares; none where none are."""
    if len(frames) and not recipe.data.rendered:
        return []
    sizes = sizes_of(frames)
    most = max(height * width for height, width in rendered_sizes(sizes, _STREETS))
    fitting = _STREETS * SCENE_SIZE[0] * SCENE_SIZE[1] // most
    return rendered_sizes(sizes, min(_STREETS, max(_LEAST_STREETS, fitting)))


def rendered_views(recipe: Recipe, frames: LabelledFrames) -> RenderedData:
    """Rendered frames whose views are learned from beside some frames."""
    count = recipe.views.rendered if recipe.views else 0
    return RenderedData(count, first=_VIEWS_FROM, beside=sizes_of(frames) if count else ())


def rendered_sizes(sizes: Sequence[Size], count: int) -> list[Size]:
    """Sizes of rendered frames that stand beside others: each as often, to one, as its share of these is.

    Args:
        sizes: Of the others, in pixels; none: `SCENE_SIZE`.
        count: How many are rendered.
    """
    quantiles = sorted(sizes) or [SCENE_SIZE]
    return [_renderable(quantiles[index * len(quantiles) // count]) for index in range(count)]


def _renderable(size: Size) -> Size:
    """The size, within what can be rendered; what is too large is reduced in its own aspect."""
    least, most = _SIDES
    height, width = InputSpec(work_pixels=_MOST_PIXELS).content_size(size)
    return min(max(height, least), most), min(max(width, least), most)


class RenderedData:
    """Rendered frames of streets that training never draws: their seeds start where its seeds end.

    Args:
        length: Number of frames.
        first: Frames to skip.
        beside: Sizes of the frames that they stand beside, which they take; none: `SCENE_SIZE`.

    Attributes:
        sizes: Height and width of each frame.
    """

    def __init__(self, length: int, first: int = 0, beside: Sequence[Size] = ()) -> None:
        self.length, self.first = length, first
        self.sizes: Sequence[Size] = rendered_sizes(beside, length)

    @property
    def names(self) -> list[str]:
        """Street and view of each frame."""
        return ["street{:03d}_{}".format(*divmod(self.first + index, _VIEWS)) for index in range(self.length)]

    def relabelled(self, table: npt.NDArray[np.uint8]) -> SizedFrames:
        """The same frames with other ids, those of a table `uint8 [256]`."""
        return SizedFrames(self.names, self.sizes, self.__getitem__).relabelled(table)

    def instances(self, index: int, labels: npt.NDArray[np.uint8]) -> InstanceMap:
        """Number of the instance of each pixel of a frame, `int32 [H, W]`; the labels are not asked."""
        street, view = divmod(self.first + index, _VIEWS)
        return rendered_instances(self.sizes[index], _STREETS + street, view * _SCENE_LENGTH // _VIEWS)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Frame and labels, as `FolderData` gives them."""
        street, view = divmod(self.first + index, _VIEWS)
        return rendered_sample(self.sizes[index], _STREETS + street, view * _SCENE_LENGTH // _VIEWS)


def normalise(picture: npt.NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """Network input `float32 [3, h, w]` of a BGR picture `uint8 [h, w, 3]`."""
    mean, std, color, _ = spec.normalisation("bgr")
    planes = picture[..., ::-1] if color == "bgr" else picture
    values = torch.from_numpy(np.ascontiguousarray(planes)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
