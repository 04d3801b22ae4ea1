"""An image file's whole way: read, segmented, written, and what is noted of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errseg_rt.batch.figures import frame_summary, frames_summary
from errseg_rt.batch.instances import InstanceFiles
from errseg_rt.batch.kept import Entry, print_of
from errseg_rt.batch.tally import Tally
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.datasets.inputs import Item
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.errors import FrameError
from errseg_rt.frames.expected import expected, is_expected
from errseg_rt.frames.reading import Reading, read_picture
from errseg_rt.frames.segmentation import PICTURES
from errseg_rt.options import Options

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime

# Options of a runtime that say nothing of its results.
_OF_NO_RESULT = ("build", "max_pixels", "threads")


@dataclass(frozen=True, eq=False)
class ImageWork:
    """What is done with each image file; may be pickled.

    Attributes:
        out: Folder of the results.
        manifest: Of the bundle.
        reading: What is taken of image files.
        meaning: What label ids of true labels mean.
        output: Ids that are written, a PNG for each image, in the stead of the four pictures; None: these.
        extra: Which files of instances are written.
    """

    out: Path
    manifest: Manifest
    reading: Reading
    meaning: LabelMap
    output: OutputIds | None
    extra: InstanceFiles

    @property
    def ends(self) -> list[str]:
        """How the names of an image's results end."""
        if self.output is not None:
            return [".png", *self.extra.ends]
        drawn = [f"_{what}.png" for what in PICTURES if what != "error" or self.manifest.has_errors]
        return drawn + self.extra.ends

    @property
    def settings(self) -> dict[str, Any]:
        """All that results follow from, beside the files and the runtime."""
        return {
            "allow_damaged": self.reading.allow_damaged,
            "ignore_orientation": self.reading.ignore_orientation,
            "label_ids": " ".join(f"{label}:{index}" for label, index in sorted(self.meaning.ids.items())),
            "output_ids": None if self.output is None else self.output.text,
            **dict.fromkeys(self.extra.kinds, True),
        }

    def results(self, item: Item) -> list[Path]:
        """Files that an image's results are written to."""
        return [self.out / f"{item.name}{end}" for end in self.ends]

    def do(self, runtime: Runtime, item: Item) -> Entry:
        """Segment and save one image; what is noted of it.

        Raises:
            FrameError, DataError: The image or its labels cannot be read, or not be segmented.
            EngineError: The engine failed.
            OSError: A result cannot be written.
        """
        if item.fault:
            raise FrameError(f"{item.path}: {item.fault}")
        files = files_of(item)  # before they are read: a change meanwhile is one
        picture = read_picture(item.path, item.truth, self.reading, self.meaning.colors)
        truth = None
        if item.truth is not None and picture.labels is not None:
            truth = self.meaning.apply(picture.labels, item.truth)
        shows_instances = self.output is None or bool(self.extra.kinds)  # overlays do
        result = runtime.segment(picture.frame, semantic=truth is not None, instances=shows_instances)
        if self.output is None:
            saved = result.save(self.out, item.name, picture.frame)
        else:
            saved = {"ids": self.output.save(result.labels, self.results(item)[0])}
        more, of_instances = self.extra.save(result, self.out, item.name)
        saved |= more
        entry: Entry = {
            "input": str(item.path),
            "files": files,
            "size": list(result.labels.shape),
            "outputs": {what: path.relative_to(self.out).as_posix() for what, path in saved.items()},
            **expected(result, truth),
            **frame_summary(result),
            **of_instances,
        }
        if picture.damage:
            entry["damage"] = list(picture.damage)
        if truth is not None and result.semantic_labels is not None:
            tally = Tally(self.manifest.classes)
            entry["confusion"] = tally.counted(truth, result.semantic_labels, result.labels)
        return entry

    def is_done(self, item: Item, entry: Mapping[str, Any]) -> bool:
        """Whether an entry of an earlier run, by the same settings, says all that it must of results that are whole.

        The image and its labels must be unchanged, and the results there.
        """
        try:
            is_same: bool = (
                is_whole(item, entry, self.out, self.results(item))
                and ("confusion" in entry) == (item.truth is not None)
                and is_expected(entry, self.manifest)
            )
            Tally(self.manifest.classes).add(entry)
            self.extra.check(entry)
            json.dumps(frames_summary([entry]), allow_nan=False)
        except (OSError, AttributeError, LookupError, TypeError, ValueError, ArithmeticError):  # somebody has edited it
            return False
        return is_same


def settings_of(bundle: Bundle, options: Options) -> dict[str, Any]:
    """What results follow from, of a runtime."""
    told = {name: value for name, value in asdict(options).items() if name not in _OF_NO_RESULT}
    return {"manifest_sha256": bundle.stamp()["sha256"], **told}


def files_of(item: Item) -> dict[str, list[int]]:
    """What tells an item's files from former ones.

    Raises:
        OSError: One cannot be looked at.
    """
    return {str(path): print_of(path) for path in (item.path, item.truth) if path is not None}


def is_whole(item: Item, entry: Mapping[str, Any], out: Path, results: Collection[Path]) -> bool:
    """Whether an item's files are those that an entry was made of, and its results are there and not empty.

    Raises:
        LookupError, TypeError, AttributeError: The entry is none.
        OSError: A file is not there.
    """
    return (
        entry["files"] == files_of(item)
        and {out / name for name in entry["outputs"].values()} == {*results}
        and all(path.stat().st_size for path in results)
    )
