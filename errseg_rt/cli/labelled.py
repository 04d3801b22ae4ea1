"""What the sub-commands over labelled frames share: their options, and how they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from errseg_rt.cli.faults import say
from errseg_rt.system.lines import escaped

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from errseg_rt.bundle.classes import ClassSet
    from errseg_rt.bundle.manifest import Manifest
    from errseg_rt.datasets import LabelledFiles
    from errseg_rt.frames.reading import Reading

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Embedded bundle's name, or a bundle's folder.")]
DataOption = Annotated[
    Path,
    typer.Option(
        help="Folder with images/ and labels/ or instances/, or the root of Cityscapes, ADE20K, VOC, SBD or "
        "data in COCO's panoptic format."
    ),
]
SplitOption = Annotated[str | None, typer.Option(help="Part of the data set, where it has several.")]
VoidOption = Annotated[
    list[int] | None,
    typer.Option(
        metavar="ID",
        min=0,
        max=255,
        help="Label id that means no class, beside 255; may be given again; default: the one after the last class.",
    ),
]
FirstIdOption = Annotated[
    int | None,
    typer.Option(
        metavar="ID", min=0, max=255, help="Label id of the first class, where labels count the classes; default: 0."
    ),
]
LabelMapOption = Annotated[
    str | None,
    typer.Option(
        "--label-map",
        metavar="labelIds|ade20k|FILE",
        help="What label ids mean: by the name of an official table, or from a file: JSON as "
        '{"0": "void", "7": "road"}, or the labelmap.txt of an annotation tool.',
    ),
]
MergeOption = Annotated[
    str | None,
    typer.Option(
        metavar="camvid|FILE",
        help="Labels are of coarser classes, each of which merges some of the bundle's, as a TOML file says, a line a "
        'class, as car = ["car", "truck"]; `camvid` are its 11 by the names of Cityscapes.',
    ),
]
IdsOption = Annotated[
    str,
    typer.Option(
        metavar="trainIds|labelIds|ade20k|palette|FILE",
        help="Ids of predictions: the classes themselves, those of a benchmark, or by a label map's file.",
    ),
]
JsonFileOption = Annotated[Path | None, typer.Option("--json", help="File for all figures, as JSON.")]


class LabelClasses(NamedTuple):
    """The classes of labels, and how a bundle's labels count among them.

    Attributes:
        classes: The labels' own.
        coarse: What each of the bundle's labels counts as, as `Evaluation` takes it; None: as itself.
        things: Those of which the bundle finds instances; none where they are merged.
    """

    classes: ClassSet
    coarse: npt.NDArray[np.uint8] | None
    things: tuple[int, ...]


def label_classes(merge: str | None, manifest: Manifest) -> LabelClasses:
    """The classes of labels of a bundle's classes, or of those that a user's option merges them to."""
    from errseg_rt.datasets.merge import Merge

    if merge is None:
        return LabelClasses(manifest.classes, None, manifest.things)
    opened = Merge.open(merge, manifest.classes)
    return LabelClasses(opened.coarse, opened.to_coarse, ())


def open_frames(
    data: Path,
    classes: ClassSet,
    *,
    split: str | None,
    void: Sequence[int] | None,
    first_id: int | None,
    label_map: str | None,
    reading: Reading,
    things: Sequence[int] = (),
) -> LabelledFiles:
    """The labelled frames that a user's options name; `things` are classes with instances. See `open_labelled`."""
    from errseg_rt.datasets import LabelMap, open_labelled

    meaning = LabelMap.open(label_map, classes) if label_map is not None else None
    frames = open_labelled(data, classes, split, void, first_id=first_id, label_map=meaning, things=things)
    return frames.read_as(reading)


def print_warnings(warnings: Sequence[str]) -> None:
    """Show warnings on stderr, a line each."""
    for warning in warnings:
        say("warning", warning)


def report_failures(failed: Mapping[str, str], faults: Sequence[str] = ()) -> None:
    """Name the frames that were not scored, and other faults, on stderr; exit code 2 where there are any."""
    for name, reason in failed.items():
        say("error", f"frame {escaped(name)} was not scored: {reason}")
    for fault in faults:
        say("error", fault)
    if failed or faults:
        raise typer.Exit(2)
