"""What `errseg-rt segment --instances` keeps of the instances of a frame, and writes of all of them at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.errors import DataError
from errseg_rt.frames.coco import write_coco
from errseg_rt.frames.index_map import WHAT
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.reading import Reading, read_instance_ids

if TYPE_CHECKING:
    from errseg_rt.bundle.manifest import Manifest
    from errseg_rt.frames.segmentation import Segmentation

DOCUMENT = "instances.json"
END = f"_{WHAT}.png"
"""How the names of index maps end."""


def things_of(manifest: Manifest) -> tuple[int, ...]:
    """The classes of which a bundle finds instances; none where it finds none."""
    spec = getattr(manifest, "instances", None)
    return () if spec is None else tuple(spec.classes)


def check_things(manifest: Manifest) -> None:
    """Raises DataError unless a bundle finds instances."""
    if not things_of(manifest):
        raise DataError(f"the bundle {manifest.name} finds no instances; leave out --instances")


def found_in(result: Segmentation) -> Instances:
    """The instances of a frame whose bundle finds some."""
    found: Instances | None = getattr(result, "instances", None)
    assert found is not None, "a bundle with instances gave none"
    return found


def counted(entries: Sequence[Mapping[str, Any]], classes: ClassSet) -> dict[str, int]:
    """How many instances of each class the entries of frames have, those without left out."""
    names = [row["class"] for entry in entries for row in entry.get("instances", ())]
    return {name: names.count(name) for name in classes.names if name in names}


def check_rows(rows: Sequence[Mapping[str, Any]], classes: ClassSet) -> None:
    """Raises ValueError, LookupError or TypeError where an entry's rows are not such as `Instances.rows` gives."""
    _columns(rows, classes)
    for row in rows:
        if len(row["box"]) != 4 or row["area"] < 1:
            raise ValueError(f"no instance: {row}")


def write_document(entries: Sequence[Mapping[str, Any]], out: Path, classes: ClassSet, reading: Reading) -> None:
    """Write the instances of all frames in COCO's JSON, from what is in the folder of results.

    So it is the same whether a frame was segmented by this run or an earlier one.

    Args:
        entries: Of the frames, in a summary.
        out: The folder.
        classes: What the class ids mean.
        reading: What is taken of image files.

    Raises:
        DataError, FrameError: An index map is not what was written.
        OSError: It cannot be written.
    """

    def frames() -> Iterator[tuple[str, Instances]]:
        for entry in entries:
            height, width = entry["size"]
            of_class, scores, errors = _columns(entry["instances"], classes)
            path = out / entry["outputs"]["instances"]
            ids = read_instance_ids(path, (height, width), reading)
            if ids.max(initial=0) > len(scores):
                raise DataError(f"{path}: is not what was written there; segment its image again")
            found = Instances.of(ids, of_class, scores, classes)
            if errors is not None and len(found) == len(errors):
                found = replace(found, error_probability=errors)
            yield entry["input"], found

    write_coco(frames(), classes, out / DOCUMENT)


def _columns(rows: Sequence[Mapping[str, Any]], classes: ClassSet) -> tuple[list[int], list[float], Any]:
    errors = [row["error_probability"] for row in rows]
    return (
        [classes.names.index(row["class"]) for row in rows],
        [float(row["score"]) for row in rows],
        None if any(error is None for error in errors) else np.array(errors, np.float32),
    )
