"""What is kept of the instances of a frame, and written of those of all frames at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.errors import DataError
from errseg_rt.frames.coco import write_coco
from errseg_rt.frames.index_map import INSTANCES, write_index_map
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.panoptic import PANOPTIC, panoptic_map, write_panoptic_json, write_panoptic_map
from errseg_rt.frames.reading import Reading, read_instance_ids

if TYPE_CHECKING:
    from errseg_rt.bundle.manifest import Manifest
    from errseg_rt.frames.segmentation import Segmentation

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class InstanceFiles:
    """Which files of instances are written: maps of each frame, and a document of all.

    Attributes:
        kinds: Of `INSTANCES` and `PANOPTIC`; none where nothing of instances is asked for.
        things: Classes that have instances.
        classes: What the class ids mean.
    """

    kinds: tuple[str, ...]
    things: tuple[int, ...]
    classes: ClassSet

    @classmethod
    def of(cls, manifest: Manifest, **asked: bool) -> InstanceFiles:
        """Those that are asked for, by the names of options.

        Raises:
            DataError: There are some, and the bundle finds no instances.
        """
        kinds = tuple(kind for kind, is_asked in asked.items() if is_asked)
        if kinds and not manifest.things:
            raise DataError(f"the bundle {manifest.name} finds no instances; leave out --{' and --'.join(kinds)}")
        return cls(kinds, manifest.things, manifest.classes)

    @property
    def ends(self) -> list[str]:
        """How the names of a frame's files end."""
        return [f"_{kind}.png" for kind in self.kinds]

    def documents(self, out: Path) -> list[Path]:
        """The files that are about all frames."""
        return [out / f"{kind}.json" for kind in self.kinds]

    def save(self, result: Segmentation, out: Path, name: str) -> tuple[dict[str, Path], dict[str, Any]]:
        """Write the files of a frame.

        Returns:
            Paths by kind, and what its entry in the summary says.

        Raises:
            FrameError: There are more instances than a file tells apart.
            OSError: A file cannot be written.
        """
        if not self.kinds:
            return {}, {}
        found = result.instances
        assert found is not None, "a bundle with instances gave none"
        saved = {kind: out / f"{name}_{kind}.png" for kind in self.kinds}
        entry: dict[str, Any] = {"instances": found.rows()}
        if INSTANCES in saved:
            write_index_map(found.map, saved[INSTANCES])
        if PANOPTIC in saved:
            ids, entry["segments"] = panoptic_map(result.labels, found, self.things)
            write_panoptic_map(ids, saved[PANOPTIC])
        return saved, entry

    def check(self, entry: Mapping[str, Any]) -> None:
        """Raises ValueError, LookupError or TypeError where an entry of an earlier run is not such as `save` gives."""
        if self.kinds:
            _columns(entry["instances"], self.classes)
            for row in entry["instances"]:
                if len(row["box"]) != 4 or row["area"] < 1:
                    raise ValueError(f"no instance: {row}")
        for segment in entry["segments"] if PANOPTIC in self.kinds else ():
            if len(segment["bbox"]) != 4 or min(segment["id"], segment["area"]) < 1:
                raise ValueError(f"no segment: {segment}")
            self.classes.names[segment["category_id"]]

    def summary(self, entries: Entries) -> dict[str, Any]:
        """How many instances of each class the frames have, those without left out; empty where none are asked for."""
        names = [row["class"] for entry in entries for row in entry.get("instances", ())]
        return (
            {"instances": {name: names.count(name) for name in self.classes.names if name in names}}
            if self.kinds
            else {}
        )

    def write(
        self,
        entries: Entries,
        out: Path,
        reading: Reading,
        writing: Callable[[Path], AbstractContextManager[None]],
    ) -> None:
        """Write the documents from what is in the folder of results, whichever run has written it.

        Args:
            entries: Of the frames, in the summary.
            out: The folder.
            reading: What is taken of image files.
            writing: A block in which a file is written, and what becomes of its fault.
        """
        for kind, path in zip(self.kinds, self.documents(out), strict=True):
            with writing(path):
                if kind == INSTANCES:
                    write_coco(self._read(entries, out, reading), self.classes, path)
                else:
                    frames = (
                        (each["input"], each["outputs"][kind], each["size"], each["segments"]) for each in entries
                    )
                    write_panoptic_json(frames, self.classes, self.things, path)

    def _read(self, entries: Entries, out: Path, reading: Reading) -> Iterator[tuple[str, Instances]]:
        for entry in entries:
            height, width = entry["size"]
            of_class, scores, errors = _columns(entry["instances"], self.classes)
            path = out / entry["outputs"][INSTANCES]
            ids = read_instance_ids(path, (height, width), reading)
            if ids.max(initial=0) > len(scores):
                raise DataError(f"{path}: is not what was written there; segment its image again")
            found = Instances.of(ids, of_class, scores, self.classes)
            if errors is not None and len(found) == len(errors):
                found = replace(found, error_probability=errors)
            yield entry["input"], found


def _columns(rows: Entries, classes: ClassSet) -> tuple[list[int], list[float], Any]:
    errors = [row["error_probability"] for row in rows]
    return (
        [classes.names.index(row["class"]) for row in rows],
        [float(row["score"]) for row in rows],
        None if any(error is None for error in errors) else np.array(errors, np.float32),
    )
