"""Opening a data set by what its tree looks like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from errseg_rt.bundle.classes import ADE20K, CITYSCAPES, ClassSet
from errseg_rt.datasets.ade20k import ADE20KData
from errseg_rt.datasets.cityscapes import CityscapesData
from errseg_rt.datasets.coco_panoptic import CocoPanopticData, panoptic_files
from errseg_rt.datasets.folder import FolderData
from errseg_rt.datasets.frames import LabelledFiles
from errseg_rt.datasets.instance_folder import InstanceFolderData
from errseg_rt.datasets.label_map import LabelMap, check_alone
from errseg_rt.datasets.sbd import SbdData
from errseg_rt.datasets.voc import VocData
from errseg_rt.errors import DataError

_LAYOUTS = (
    "images/ and labels/, <split>/images/ and <split>/labels/, images/<split>/ and labels/<split>/, these with "
    "instances/ in the stead of labels/, leftImg8bit/ and gtFine/ (Cityscapes), JPEGImages/ and SegmentationClass/ "
    "(VOC), img/, cls/ and inst/ (SBD), panoptic_<split>.json (COCO), or images/ and annotations/ (ADE20K)"
)
_ORDER = ("labels", "instances")  # folders of the truth, the first that is there
_TRUTH = frozenset(_ORDER)
_MOST_NAMED = 10  # folders that a message lists


def open_dataset(
    root: str | Path,
    classes: ClassSet,
    *,
    split: str | None = None,
    void: Sequence[int] | None = (),
    first_id: int | None = None,
    label_map: LabelMap | None = None,
    things: Sequence[int] = (),
) -> LabelledFiles:
    """Open a data set in one of the layouts that its tree tells apart.

    A plain folder holds `images/` and `labels/`, or `instances/`, from which labels follow, or all three, with or
    without a folder in them for each split, or a folder with them for each split; Cityscapes holds `leftImg8bit/` and
    `gtFine/`, ADE20K `images/` and `annotations/`, VOC `JPEGImages/` and `SegmentationClass/`, SBD `img/`, `cls/` and
    `inst/`, COCO's panoptic format `panoptic_<split>.json`.

    Args:
        root: Folder of the data set.
        classes: The classes that its labels shall have.
        split: Part of the data set; None: `val` of Cityscapes, `validation` of ADE20K, and all of others.
        void: Label ids that mean "no class", beside 255, where ids are the classes; None: as in `LabelMap.of`.
        first_id: Id of the first class, where ids are the classes; None: 0, or what the layout has.
        label_map: What label ids mean; None: what the layout has.
        things: Classes that have instances, for instance maps that do not say of what class theirs are.

    Raises:
        DataError: The tree has none of the layouts, the layout has other classes or void ids of its own, there is no
            such split, it is empty, or images and labels do not pair.
    """
    if label_map is not None:
        check_alone(void, first_id)
    root = Path(root)
    if first_id is not None:
        label_map, void = LabelMap.of(len(classes), void, first_id), ()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = _folders(root)
    if found & {"leftImg8bit", "gtFine"}:
        if label_map is None:
            _check_fit(f"{root}: Cityscapes", CITYSCAPES, classes, void)
        return CityscapesData(root, split or "val", label_map)
    if found >= {"JPEGImages", "SegmentationClass"}:
        return VocData(root, split, classes, void, label_map)
    if found >= {"img", "cls", "inst"}:
        return SbdData(root, split, len(classes), void, label_map)
    if panoptic_files(root):
        return CocoPanopticData(root, split, classes, label_map)
    if "annotations" in found and not found & _TRUTH:
        if label_map is None:
            _check_fit(f"{root}: images/ and annotations/ are taken for ADE20K, which", ADE20K, classes, void, _OWN)
        return ADE20KData(root, split or "validation", label_map)
    folder, part = _plain_folder(root, split, found)
    if _folders(folder) & _TRUTH == {"instances"}:
        if label_map is not None:
            raise DataError(
                f"{folder}: holds instances/ and no labels/, so that there are no label ids to map; leave out a label "
                "map and a first id; classes.csv says of what class instances are"
            )
        return InstanceFolderData(folder, classes, things, part)
    return FolderData(folder, len(classes), void, label_map, part)


def open_labelled(
    root: str | Path,
    classes: ClassSet,
    split: str | None = None,
    void: Sequence[int] | None = None,
    *,
    first_id: int | None = None,
    label_map: LabelMap | None = None,
    things: Sequence[int] = (),
) -> LabelledFiles:
    """Open a data set with the classes of a bundle: `open_dataset`, where void ids need not be given.

    Args:
        root: Folder of the data set.
        classes: The bundle's classes.
        split: Part of the data set; None: its own choice.
        void: Label ids that mean "no class" beside 255; None: where ids are the classes the one after the last class,
            as CamVid has it, and those before the first; other layouts have ids of their own.
        first_id: Id of the first class.
        label_map: What label ids mean.
        things: Classes that have instances.

    Raises:
        DataError: It is no data set, or does not fit the classes.
    """
    return open_dataset(root, classes, split=split, void=void, first_id=first_id, label_map=label_map, things=things)


_OWN = "; labels of other data lie in labels/ beside images/, or a label map (--label-map) says what their ids mean"


def _check_fit(layout: str, own: ClassSet, classes: ClassSet, void: Sequence[int] | None, remedy: str = "") -> None:
    if len(classes) != len(own):
        remedy = remedy or "; a label map (--label-map) says what its ids mean in those"
        raise DataError(
            f"{layout} has {len(own)} classes, but {len(classes)} are wanted ({classes.names[0]}, ...){remedy}"
        )
    if void:
        raise DataError(f"{layout} has void ids of its own; leave out {list(void)}")


def _plain_folder(root: Path, split: str | None, found: set[str]) -> tuple[Path, str | None]:
    """The folder that holds `images/` and the truth, and the folder in both that is the split, if any.

    Which of the two is missing is for `FolderData` to say.
    """
    if split is not None and split in found:
        return root / split, None
    truth = min(found & _TRUTH, default="", key=_ORDER.index)
    is_whole = "images" in found and truth != ""
    if split is None and is_whole:
        return root, None
    inside = _folders(root / "images") & _folders(root / truth) if is_whole else set()
    if split in inside:
        return root, split
    beside = {name for name in found if "images" in _folders(root / name) and _folders(root / name) & _TRUTH}
    if beside or inside:
        fault = "holds splits: choose one" if split is None else f"no split {split!r}: choose one"
        raise DataError(f"{root}: {fault} of {', '.join(sorted(beside | inside))}")
    if is_whole:
        raise DataError(
            f"{root}: no split {split!r}: it holds images/ and {truth}/ without splits; "
            f"leave the split out, or move both into {split}/"
        )
    listed = [f"{name}/" for name in sorted(found)]
    more = ["..."] if len(listed) > _MOST_NAMED else []
    found_text = ", ".join(listed[:_MOST_NAMED] + more) or "no folder"
    raise DataError(f"{root}: no data set; looked for {_LAYOUTS}; found {found_text}")


def _folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}
