"""What in a folder is no image to be segmented: ground truth beside it, and what this program has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from errseg_rt.frames.index_map import INSTANCES
from errseg_rt.frames.panoptic import PANOPTIC
from errseg_rt.frames.segmentation import PICTURES
from errseg_rt.system.json_text import parse_json

# Folders of images, and of what makes a data set of them, by the names that public data sets have. In the first of
# both, labels are the truth as they are; ids of others mean classes by tables of their own: see `errseg-rt evaluate`.
_IMAGES = ("images", "leftImg8bit", "JPEGImages", "image_2", "image", "imgs", "img", "rgb")
_TRUTH = (
    *("labels", "annotations", "Annotations", "masks", "mask", "instances", "instance", "gtFine", "gtCoarse", "gt"),
    *("groundtruth", "ground_truth", "SegmentationClass", "SegmentationObject", "segmentation", "segmentations"),
    *("semantic", "semantic_rgb", "targets", "trimaps", "1st_manual", "2nd_manual"),
)
_RESULTS = (*PICTURES, INSTANCES, PANOPTIC)
_OTHERS = {"ImageSets", *_TRUTH}


class DataSets:
    """The data sets of a tree that is being searched, and which of their folders hold images."""

    def __init__(self) -> None:
        self._images: dict[Path, str] = {}
        self._labelled: set[Path] = set()
        self._left_out: dict[Path, list[str]] = {}

    def entered(self, folder: Path, names: Sequence[str]) -> list[str]:
        """Which of a folder's folders are to be searched: all, or a data set's images."""
        images = next((name for name in _IMAGES if name in names), None)
        if images is None or not {*_TRUTH} & {*names}:
            return list(names)
        self._images[folder] = images
        if images == _IMAGES[0] and _TRUTH[0] in names:
            self._labelled.add(folder)
        others = sorted({*names} - {images} - _OTHERS)
        if others:
            self._left_out[folder] = others
        return [images]

    def is_beside(self, path: Path) -> bool:
        """Whether a file lies beside the folder of a data set's images."""
        return path.parent in self._images

    def place(self, path: Path, root: Path) -> tuple[Path, Path, Path | None]:
        """Where a file lies below `root`, without the folder of a data set's images; where in that; and its labels'."""
        for folder in path.parents:
            if folder in self._images:
                within = path.relative_to(folder / self._images[folder])
                labels = folder / _TRUTH[0] if folder in self._labelled else None
                return folder.relative_to(root) / within, within, labels
            if folder == root:
                break
        return path.relative_to(root), path.relative_to(root), None

    def notes(self) -> list[str]:
        """What was left out that a user may miss."""
        return [
            f"{folder}: a data set, of which {self._images[folder]}/ alone was searched, not {', '.join(names)}"
            for folder, names in self._left_out.items()
        ]


def is_truth(path: Path, root: Path) -> bool:
    """Whether a file lies, below `root`, in a folder of ground truth that has one of images beside it."""
    for folder in path.relative_to(root).parents[:-1]:
        if folder.name in _TRUTH and any((root / folder).with_name(name).is_dir() for name in _IMAGES):
            return True
    return False


def is_result(path: Path) -> bool:
    """Whether a file is one of the pictures that `segment` writes of an image, with another of them beside it."""
    for what in _RESULTS:
        end = f"_{what}.png"
        if path.name.endswith(end):
            stem = path.name[: -len(end)]
            return any(path.with_name(f"{stem}_{other}.png").exists() for other in _RESULTS if other != what)
    return False


def holds_ids(folder: Path) -> bool:
    """Whether a folder is one of label ids that `segment --ids` wrote, named as their images."""
    try:
        summary = parse_json((folder / "summary.json").read_bytes())
        return summary["settings"]["output_ids"] is not None
    except (OSError, ValueError, LookupError, TypeError):
        return False
