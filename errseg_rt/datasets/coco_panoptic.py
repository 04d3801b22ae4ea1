"""Data in the panoptic format of COCO (Kirillov et al. 2019): one PNG and one entry of a JSON file for each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.frames import LabelledFiles, Sample
from errseg_rt.datasets.instances import Meaning, TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.reading import InstanceIds, read_instance_ids, read_with_instance_ids
from errseg_rt.frames.runs import ids_in
from errseg_rt.system.json_text import parse_json

_START, _END = "panoptic_", ".json"
_FORMAT = "JSON with images, annotations (file_name, image_id, segments_info) and categories (id, name, isthing)"
_MOST_IDS = 255  # label ids of a map


class CocoPanopticData(LabelledFiles):
    """Frames of a data set in the panoptic format of COCO.

    `panoptic_<split>.json` and its folder `panoptic_<split>/` lie in the root or in `annotations/`, images in
    `<split>/` or in `images/<split>/`. Each segment of a thing is an instance, crowds are groups of them; what has no
    segment, and segments of categories without a class, are void.

    Args:
        root: Folder of the data set.
        split: As `val2017`; None: the only one there is.
        classes: The classes that its labels shall have.
        label_map: What category ids mean; None: the classes of their names.

    Raises:
        DataError: There is no such split, its JSON cannot be read or is none, or a category has a name of no class.
    """

    def __init__(self, root: Path, split: str | None, classes: ClassSet, label_map: LabelMap | None = None) -> None:
        self._json, name = _choose(root, split)
        folder = self._json.with_suffix("")
        images = next((path for path in (root / name, root / "images" / name) if path.is_dir()), None)
        if images is None:
            raise DataError(f"{root / name}: no such folder; the images of {self._json.name} lie there")
        document = _read(self._json)
        categories = {int(each["id"]): each for each in document["categories"]}
        if not all(0 <= each <= _MOST_IDS for each in categories):
            raise DataError(f"{self._json}: category ids are 0..{_MOST_IDS}, got {max(categories)}")
        names = {label: str(each["name"]) for label, each in categories.items()}
        label_map = label_map or LabelMap.of_names(names, self._json, classes)
        self._things = {label for label, each in categories.items() if each.get("isthing", 1)}
        files = {each["id"]: str(each["file_name"]) for each in document["images"]}
        self._segments: dict[str, list[Mapping[str, Any]]] = {}
        pairs = {}
        for each in document["annotations"]:
            if each["image_id"] not in files:
                raise DataError(
                    f"{self._json}: an annotation is of image {each['image_id']!r}, which is none of its images"
                )
            file = files[each["image_id"]]
            frame = Path(file).with_suffix("").as_posix()
            if frame in pairs:
                raise DataError(f"{self._json}: image {frame} has two annotations, or two images are called so")
            pairs[frame] = (images / file, folder / str(each["file_name"]))
            self._segments[frame] = each["segments_info"]
        if not pairs:
            raise DataError(f"{self._json}: holds no annotation")
        super().__init__({name: pairs[name] for name in sorted(pairs)}, label_map)
        self.instance_files = {name: path for name, (_, path) in pairs.items()}

    def __getitem__(self, index: int) -> Sample:
        """Frame `uint8 [H, W, 3]` in BGR and labels `uint8 [H, W]`.

        Raises:
            DataError: A file cannot be read or is damaged, the map is not of the frame's size, or holds an id that the
                JSON does not.
        """
        image_path, path = self.pairs[index]
        try:
            frame, ids = read_with_instance_ids(image_path, path, self.reading, packed=True)
        except FrameError as error:
            raise DataError(str(error)) from error
        found = TrueInstances.of(ids, self._meanings(ids, index))
        return frame, np.array([IGNORE, *found.classes, IGNORE], np.uint8)[found.map]  # VOID is -1, the last

    def _read_instances(self, path: Path, size: tuple[int, int]) -> InstanceIds:
        return read_instance_ids(path, size, self.reading, packed=True)

    def _meant(self, ids: InstanceIds, labels: npt.NDArray[np.uint8], index: int) -> TrueInstances:
        return TrueInstances.of(ids, self._meanings(ids, index, stuff=False))

    def _meanings(self, ids: InstanceIds, index: int, *, stuff: bool = True) -> dict[int, Meaning]:
        """What the ids of a frame's map mean, those of stuff among them or not."""
        name, path = self.names[index], self.pairs[index][1]
        segments = {int(each["id"]): each for each in self._segments[name]}
        meanings = {0: Meaning(IGNORE)}
        for each in ids_in(ids):
            if each == 0:
                continue
            if each not in segments:
                raise DataError(f"{path}: segment {each} is not in segments_info of {self._json.name}")
            category = int(segments[each]["category_id"])
            if category not in self.label_map.ids:
                raise DataError(f"{path}: segment {each} is of category {category}; {self.label_map.known}")
            label = self.label_map.ids[category]
            if stuff or category in self._things or label == IGNORE:
                meanings[each] = Meaning(label, bool(segments[each].get("iscrowd", 0)))
        return meanings


def panoptic_files(root: Path) -> dict[str, Path]:
    """The JSON files of a data set's splits, by split."""
    places = (root, root / "annotations")
    found = [path for place in places for path in sorted(place.glob(f"{_START}*{_END}")) if path.is_file()]
    return {path.name[len(_START) : -len(_END)]: path for path in found}


def _choose(root: Path, split: str | None) -> tuple[Path, str]:
    files = panoptic_files(root)
    listed = ", ".join(sorted(files)) or "none"
    if split is None and len(files) == 1:
        split = next(iter(files))
    if split is None or split not in files:
        fault = "holds splits: choose one" if split is None else f"no split {split!r}: choose one"
        raise DataError(f"{root}: {fault} of {listed}")
    return files[split], split


def _read(path: Path) -> dict[str, Any]:
    """The JSON of a split, with what is asked of it there."""
    try:
        document = parse_json(path.read_bytes())
        for key, columns in (("images", "id file_name"), ("categories", "id name")):
            for each in document[key]:
                for column in columns.split():
                    each[column]
        for each in document["annotations"]:
            _ = (
                each["file_name"],
                each["image_id"],
                [(int(one["id"]), int(one["category_id"])) for one in each["segments_info"]],
            )
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: not of COCO's panoptic format ({type(error).__name__}: {error}); wanted {_FORMAT}"
        ) from error
    return dict(document)
