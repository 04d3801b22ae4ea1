"""Taps of the frozen semantic branch for views of whole frames: computed once, kept, and read by the branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from errseg_rt.bundle.contract import on_stride
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.datasets import LabelledFrames, Sample
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.errors import DataError
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.taps import Taps
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.sized import shares_of, sizes_of
from errseg_rt.training.tensor_files import read_tensors, write_tensors

_KEPT = {"image", "truth", *Taps._fields}
_AGAIN = "remove it, and it is computed again"


class View(NamedTuple):
    """How a whole frame is looked at: its scale, on top of the input's own, and whether it is mirrored."""

    scale: float = 1.0
    flip: bool = False


class FrozenBatch(NamedTuple):
    """What the branches learn from: the input, what the frozen semantic branch makes of it, and the truth."""

    image: Tensor  # [B, 3, H, W], normalised
    taps: Taps  # logits on the grid
    truth: Tensor  # int64 [B, h, w], on the grid, IGNORE where void


class TapStore:
    """A folder of taps, in half precision where that holds them, one file for each view of each frame.

    Args:
        folder: Where they lie; what is there already is not computed again.
        frames: The labelled frames.
        cascade_of: The cascade whose semantic branch sees a frame, in eval mode, by the frame's index.
        spec: Input of the cascades.
    """

    def __init__(
        self, folder: Path, frames: LabelledFrames, cascade_of: Callable[[int], Cascade], spec: InputSpec
    ) -> None:
        self.folder, self.frames, self.cascade_of, self.spec = folder, frames, cascade_of, spec

    @cached_property
    def sizes(self) -> Sequence[Size]:
        """Height and width of each frame."""
        return sizes_of(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def geometry(self, index: int, view: View = View()) -> Geometry:  # noqa: B008 (immutable)
        """How a view of a frame lies on the grid."""
        return self._geometry(self.sizes[index], view)

    def input_sizes(self, scale: float) -> list[Size]:
        """Size of each frame's input at a scale; frames of several sizes may share one, by the padding."""
        of = {size: self.spec.sizes(size, scale)[1] for size in set(self.sizes)}
        return [of[size] for size in self.sizes]

    def read(self, index: int, view: View = View()) -> FrozenBatch:  # noqa: B008 (immutable)
        """A batch of one view of one frame, from the folder or computed and kept there."""
        kept = self._kept(index, view)
        tensors = {name: tensor.float() for name, tensor in kept.items() if name != "truth"}
        return _batch(tensors.pop("image"), tensors, kept["truth"], self.cascade_of(index))

    def fill(self, views: Iterable[View], progress: Callable[[Iterable[int], str, int], Iterable[int]]) -> None:
        """Compute what is missing, so that training does not wait for it; what is there is held to its checksum."""
        views = list(views)
        for index in progress(range(len(self)), "taps of the frozen branch", len(self)):
            for view in views:
                self._kept(index, view, is_checked=True)

    def _kept(self, index: int, view: View, *, is_checked: bool = False) -> dict[str, Tensor]:
        """What lies in the folder of a view, or does from now on; checksums are looked at once, as taps are filled."""
        path = self.folder / f"{index:05d}_{view.scale:g}{'_flip' * view.flip}.safetensors"
        if not path.exists():
            kept = self._compute(index, view)
            write_tensors(path, kept)
            return kept
        try:
            kept = read_tensors(path)[0] if is_checked else load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}); {_AGAIN}") from error
        size = self.geometry(index, view).input_size
        if kept.keys() != _KEPT or kept["image"].shape[2:] != size:
            raise DataError(f"{path}: damaged (no taps of an input of {size[0]}x{size[1]}); {_AGAIN}")
        return kept

    @torch.inference_mode()
    def _compute(self, index: int, view: View) -> dict[str, Tensor]:
        frame, labels = _mirrored(self.frames[index]) if view.flip else self.frames[index]
        geometry, spec = self._geometry((labels.shape[0], labels.shape[1]), view), self.spec
        image = preprocess(frame, geometry.content_size, geometry.input_size, **spec.normalisation("bgr")._asdict())
        tensor = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
        taps = self.cascade_of(index).semantic(tensor)
        kept = {"image": tensor, **taps._asdict()}
        broken = [name for name, value in kept.items() if not value.isfinite().all()]
        if broken:
            raise DataError(
                f"{self.frames.names[index]}: the network gives values that are not finite ({', '.join(broken)}); does "
                "it want other colours, as input.mean and input.std make them?"
            )
        truth = truth_on_grid(labels, geometry)[None]
        return {
            **{name: _kept_as(value) for name, value in kept.items()},
            "truth": torch.from_numpy(truth.astype(np.uint8)),
        }

    def _geometry(self, size: Size, view: View) -> Geometry:
        scaled, padded = self.spec.sizes(size, view.scale)
        cascade = self.cascade_of(0)
        grid = on_stride(padded, cascade.config.grid_stride)
        return Geometry(grid, padded, scaled, size, cascade.semantic.align_corners)


class TapStream(Dataset[FrozenBatch]):
    """Batches of views, each decided by its number alone, so that a training can go on where it was killed.

    Args:
        store: The kept taps.
        views: Views that are drawn from.
        batch: Views a batch; all of one scale, and of frames whose inputs have one size there.
        seed: Seed of the draws, with the stage.
        start: Number of the first batch.
        length: Number of batches.
    """

    def __init__(
        self, store: TapStore, views: ViewsConfig, batch: int, seed: Sequence[int], start: int, length: int
    ) -> None:
        self.store, self.views, self.batch, self.seed = store, views, batch, seed
        self.start, self.length = start, length
        self._sizes = {float(scale): np.array(store.input_sizes(scale)) for scale in views.scales}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> FrozenBatch:
        """One batch."""
        rng = np.random.default_rng([*self.seed, self.start + index])
        scale = float(rng.choice(self.views.scales))
        flips = rng.random(self.batch) < 0.5 * self.views.flip
        drawn = self._drawn(rng, self._sizes[scale])
        parts = [self.store.read(int(frame), View(scale, bool(flip))) for frame, flip in zip(drawn, flips, strict=True)]
        image, truth = (torch.cat([getattr(part, name) for part in parts]) for name in ("image", "truth"))
        return FrozenBatch(image, Taps(*map(torch.cat, zip(*(part.taps for part in parts), strict=True))), truth)

    def _drawn(
        self,
        rng: np.random.Generator,
        sizes: npt.NDArray[np.int64],  # [frames, 2], of the inputs
    ) -> npt.NDArray[np.int64]:
        """Frames of a batch: every one is as likely as its share, and all have the size of the first."""
        shares = shares_of(self.store.frames)
        drawn = rng.integers(len(sizes), size=self.batch) if shares is None else rng.choice(len(sizes), 1, p=shares)
        alike = np.flatnonzero((sizes == sizes[drawn[0]]).all(axis=1))
        if shares is not None:
            return np.append(drawn, rng.choice(alike, self.batch - 1, p=shares[alike] / shares[alike].sum()))
        if len(alike) < len(sizes):
            drawn[1:] = alike[rng.integers(len(alike), size=self.batch - 1)]
        return drawn


def all_views(config: ViewsConfig) -> list[View]:
    """Every view that a recipe draws from."""
    return [View(scale, flip) for scale in config.scales for flip in (False, True)[: 1 + config.flip]]


def _batch(image: Tensor, taps: dict[str, Tensor], truth: Tensor, cascade: Cascade) -> FrozenBatch:
    grid = taps["low"].shape[2:]
    align = cascade.semantic.align_corners
    taps["logits"] = F.interpolate(taps["logits"], size=grid, mode="bilinear", align_corners=align)
    return FrozenBatch(image, Taps(**taps), truth.long())


def _kept_as(value: Tensor) -> Tensor:
    """In half precision, unless a value is too large for it: networks of users may hand on any."""
    half = value.half()
    return (half if half.isfinite().all() else value).contiguous()


def _mirrored(sample: Sample) -> Sample:
    frame, labels = sample
    return np.ascontiguousarray(frame[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
