"""Instances in the JSON of COCO's object detection, masks as run lengths."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.run_lengths import encode_masks
from errseg_rt.system.atomic import write_atomically


def coco_annotations(instances: Instances, image_id: int, first_id: int = 1) -> Iterator[dict[str, Any]]:
    """An annotation of each instance, which is a result, too.

    Category ids are the class ids. Beside COCO's own keys there are `score`, and `error_probability` where it is known.

    Args:
        instances: Of one image.
        image_id: Its id.
        first_id: Id of the first annotation.
    """
    masks = encode_masks(instances.map, len(instances))
    columns = (
        instances.classes.tolist(),
        instances.scores.tolist(),
        instances.boxes.tolist(),
        instances.areas.tolist(),
    )
    errors = None if instances.error_probability is None else instances.error_probability.tolist()
    for number, (mask, label, score, box, area) in enumerate(zip(masks, *columns, strict=True)):
        yield {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": label,
            "segmentation": mask,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "score": score,
            **({} if errors is None else {"error_probability": errors[number]}),
        }


def write_coco(frames: Iterable[tuple[str, Instances]], class_set: ClassSet, path: Path) -> Path:
    """Write the instances of images as one file, whole or not at all.

    It is what `pycocotools.coco.COCO` opens; its `annotations`, without `bbox`, which would be taken for the mask, are
    what `loadRes` takes.

    Args:
        frames: File name and instances of each image; taken one after the other.
        class_set: What the class ids mean.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    images: list[dict[str, Any]] = []
    count = 0
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for number, (name, instances) in enumerate(frames, 1):
            height, width = instances.map.shape
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for annotation in coco_annotations(instances, number, count + 1):
                file.write(("\n" if count == 0 else ",\n") + json.dumps(annotation, allow_nan=False))
                count += 1
        categories = [{"id": index, "name": name} for index, name in enumerate(class_set.names)]
        file.write(f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories)}}}\n')
    return path
