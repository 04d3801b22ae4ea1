"""Panoptic maps (Kirillov et al. 2019): each pixel is of one segment, an instance or all of a class that has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.runs import runs_of
from errseg_rt.system.atomic import write_atomically, write_json

PANOPTIC = "panoptic"
"""What a file of such a map shows, in its name: `<name>_panoptic.png`."""
_MOST = (1 << 24) - 1  # id of three bytes


def panoptic_map(
    labels: npt.NDArray[np.uint8], instances: Instances, things: Sequence[int]
) -> tuple[npt.NDArray[np.int32], list[dict[str, Any]]]:
    """Merge labels and instances: instances first, then the labels of stuff.

    Args:
        labels: Class ids, `uint8 [H, W]`; ids of no class are void.
        instances: Of the same frame.
        things: Classes that have instances; where they are labels, and no instance is, the pixel is void.

    Returns:
        Segment ids, `int32 [H, W]`, 0 void, and COCO's `segments_info`: `id`, `category_id` (the class id), `area`,
        `bbox` and `iscrowd` of each, and the `score` of an instance.

    Raises:
        ValueError: Labels and instances are not of one size.
    """
    if labels.shape != instances.map.shape:
        raise ValueError(f"labels and instances differ in size: {labels.shape} and {instances.map.shape}")
    classes = len(instances.class_set)
    of_label = np.zeros(256, np.int32)
    of_label[:classes] = len(instances) + 1 + np.arange(classes)
    of_label[list(things)] = 0
    ids = np.where(instances.map > 0, instances.map, of_label[labels])
    runs = runs_of(ids)
    count = len(instances) + classes
    areas, boxes = np.bincount(runs.ids, runs.lengths, count + 1)[1:].astype(int), runs.boxes(count)
    segments = []
    for segment in (np.flatnonzero(areas) + 1).tolist():
        is_thing = segment <= len(instances)
        segments.append(
            {
                "id": segment,
                "category_id": int(instances.classes[segment - 1]) if is_thing else segment - len(instances) - 1,
                "area": int(areas[segment - 1]),
                "bbox": boxes[segment - 1].tolist(),
                "iscrowd": 0,
                **({"score": float(instances.scores[segment - 1])} if is_thing else {}),
            }
        )
    return ids, segments


def write_panoptic_map(ids: npt.NDArray[np.int32], path: Path) -> Path:
    """Write segment ids as colours, R + 256 G + 65536 B, whole or not at all.

    Raises:
        ValueError: An id is none of three bytes.
        OSError: The file cannot be written.
    """
    if ids.min(initial=0) < 0 or ids.max(initial=0) > _MOST:
        raise ValueError(f"segment ids are 0..{_MOST}, got {ids.min()}..{ids.max()}")
    colors = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)  # BGR
    with write_atomically(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", colors)[1].tobytes())
    return path


def write_panoptic_json(
    frames: Iterable[tuple[str, str, tuple[int, int], Sequence[dict[str, Any]]]],
    class_set: ClassSet,
    things: Sequence[int],
    path: Path,
) -> Path:
    """Write what the panoptic maps of images hold, whole or not at all.

    Args:
        frames: File name of each image, that of its map, height and width, and its `segments_info`.
        class_set: What the class ids mean.
        things: Classes that have instances.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, file, (height, width), segments) in enumerate(frames, 1):
        images.append({"id": number, "file_name": image, "height": height, "width": width})
        annotations.append({"image_id": number, "file_name": file, "segments_info": list(segments)})
    names = zip(class_set.names, class_set.colors, strict=True)
    categories = [
        {"id": index, "name": name, "isthing": int(index in things), "color": list(color)}
        for index, (name, color) in enumerate(names)
    ]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return path
