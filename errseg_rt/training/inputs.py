"""What a training learns from, is calibrated on and is scored on: opened, looked at once, and noted by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errseg_rt.datasets import LabelledFiles, LabelledFrames, LabelMap, open_dataset
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.networks.tensorflow import checkpoint_files
from errseg_rt.training.alike import alike_groups, split_groups
from errseg_rt.training.claim import Inputs
from errseg_rt.training.data import RenderedData, rendered_views, street_sizes
from errseg_rt.training.first_look import Look, Progress, check_labelled, check_usable, look_at
from errseg_rt.training.folds import hold_out
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.sized import SizedFrames

SCORED_RENDERED = 60
"""Most rendered frames that a cascade is scored on; as many after them calibrate it where there is no data."""


@dataclass(frozen=True)
class Splits:
    """Frames of a data set, opened but not read.

    Attributes:
        data: Its folder; None: there is none, and everything is rendered.
        train: Frames of the training split.
        val: Frames to score on; may be none.
        learned: Numbers of the training frames to learn from.
        held: Numbers of those kept back for calibration.
        label_map: What their label ids mean, where the recipe says so by a map.
        also: Further frames to learn from, whose labels are of the network's classes.
    """

    data: Path | None
    train: LabelledFrames
    val: LabelledFrames
    learned: list[int]
    held: list[int]
    label_map: LabelMap | None = None
    also: LabelledFrames = RenderedData(0)  # noqa: RUF009 - holds nothing

    @property
    def learned_names(self) -> list[str]:
        """Names of the frames to learn from."""
        return [self.train.names[index] for index in self.learned]


@dataclass(frozen=True)
class Frames:
    """Frames that were looked at.

    Attributes:
        learned: To learn from, with truth ids (see `Merge`) where the recipe merges classes.
        also: How many of these, the last ones, are further frames.
        held: Kept back, for calibration.
        val: To score on.
        inputs: What they are, by content.
    """

    learned: SizedFrames
    also: int
    held: LabelledFrames
    val: SizedFrames
    inputs: Inputs


def open_splits(
    data: Path | None,
    recipe: Recipe,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    also: Path | None = None,
) -> Splits:
    """Open a data set, all of whose labels mean what the recipe says.

    Args:
        data: Its folder; None: everything is rendered.
        recipe: The recipe.
        reading: What is taken of its files.
        also: Folder of further frames to learn from, all of which are: the split `train` where it has splits. Its
            labels are of the network's own classes, whatever the recipe merges.

    Raises:
        DataError: It or the label map cannot be opened, or it has too few frames; or there is none, and rendered scenes
            have other classes.
    """
    if data is None:
        if not recipe.can_render:
            raise DataError(f"recipe {recipe.name}: rendered scenes have the classes of camvid; give --data")
        return Splits(None, RenderedData(0), RenderedData(0), [], [], also=_open_also(also, recipe, reading))
    means, classes = recipe.data, recipe.label_classes
    label_map = LabelMap.open(means.label_map, classes, means.void_names) if means.label_map is not None else None

    def open_split(split: str | None) -> LabelledFiles:
        files = open_dataset(
            data,
            classes,
            split=split,
            void=means.void,
            first_id=means.first_id,
            label_map=label_map,
            things=recipe.cascade.things,
        )
        if recipe.cascade.things and not files.has_instances:
            raise DataError(f"{data}: no instance maps, of which boxes are learned; they lie in instances/")
        return files.read_as(reading)

    further = _open_also(also, recipe, reading)
    train_split, val_split = ("training", "validation") if (data / "annotations").is_dir() else ("train", "val")
    if means.validation and not _has_split(data, train_split):
        whole = open_split(None)
        # In the order of the groups, so that what is kept back for calibration is of whole ones, too, but for one.
        learned_frames, scored_frames = split_groups(alike_groups(whole), means.validation)
        train = whole.subset(learned_frames)
        return Splits(data, train, whole.subset(scored_frames), *_hold_out(data, train), label_map, further)
    train = open_split(train_split)
    learned, held = _hold_out(data, train)
    val: LabelledFrames = open_split(val_split) if _has_split(data, val_split) else RenderedData(0)
    return Splits(data, train, val, learned, held, label_map, further)


def _hold_out(data: Path, train: LabelledFrames) -> tuple[list[int], list[int]]:
    """Numbers of the frames to learn from, and of those kept back for calibration."""
    learned, held = hold_out(len(train))
    if not learned:
        raise DataError(
            f"{data}: {len(train)} training frames are too few to learn from some and calibrate on others; "
            "give 20 or more"
        )
    return learned, held


def _has_split(root: Path, split: str) -> bool:
    """Whether a data set has a split, in any layout."""
    places = (split, f"images/{split}", f"leftImg8bit/{split}", f"ImageSets/Segmentation/{split}.txt")
    return any((root / place).exists() for place in places)


def _open_also(root: Path | None, recipe: Recipe, reading: Reading) -> LabelledFrames:
    if root is None:
        return RenderedData(0)
    split = "train" if _has_split(root, "train") else None
    split = "training" if (root / "annotations").is_dir() else split
    frames = open_dataset(root, recipe.classes, split=split, void=None, things=recipe.cascade.things).read_as(reading)
    if recipe.cascade.things and not frames.has_instances:
        raise DataError(f"{root}: no instance maps, of which boxes are learned; they lie in instances/")
    return frames


def look_at_splits(
    splits: Splits, recipe: Recipe, init: Path | None, progress: Progress, network: str | None = None
) -> Frames:
    """Read every frame once, and note what the training starts from, a frozen network's file by its digest.

    Raises:
        DataError: Frames cannot be used, or have no labels to learn from.
    """
    train = look_at(splits.train, f"{splits.data}, train", progress)
    val = look_at(splits.val, f"{splits.data}, val", progress)
    also = look_at(splits.also, "the further frames", progress)
    check_usable(train, val, also)
    for part, indices in (("to learn from", splits.learned), ("kept back for calibration", splits.held)):
        check_labelled([train.seen[index] for index in indices], f"{splits.data}: frames {part}")
    learned = train.sized.subset(splits.learned)
    if recipe.merge is not None:
        learned = learned.relabelled(recipe.merge.to_truth)
    further = range(len(learned), len(learned) + len(also.frames))
    learned = learned.followed_by(also.sized).weighed(further, recipe.data.also)
    held = train.sized.subset(splits.held) if splits.data else RenderedData(SCORED_RENDERED, first=SCORED_RENDERED)
    inputs = Inputs(
        # A name that is no UTF-8 has surrogates.
        frames=hashlib.sha256("\n".join(learned.names).encode(errors="surrogatepass")).hexdigest(),
        init=None if init is None else _digest(checkpoint_files(init) or [init]),
        rendered=tuple(sorted({*street_sizes(recipe, learned), *rendered_views(recipe, learned).sizes})),
        train=_contents(train),
        val=_contents(val),
        also=_contents(also) if len(also.frames) else None,
        label_map=None if splits.label_map is None else _meaning(splits.label_map),
        network=network,
    )
    return Frames(learned, len(also.frames), held, val.sized, inputs)


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()


def _contents(look: Look) -> dict[str, str]:
    return {name: " ".join(each.digests) for name, each in zip(look.frames.names, look.seen, strict=True)}


def _meaning(label_map: LabelMap) -> str:
    said = sorted(label_map.ids.items()), sorted(label_map.colors.items())
    return hashlib.sha256(repr(said).encode()).hexdigest()
