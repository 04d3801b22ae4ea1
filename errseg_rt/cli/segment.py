"""`errseg-rt segment`: image files to labels, colours, error maps and overlays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.batch import Batch, Entry, earlier, print_of
from errseg_rt.cli.execution import doubts_of_map, options_of, stamp, warm_up
from errseg_rt.cli.faults import say
from errseg_rt.cli.instances import InstanceFiles
from errseg_rt.cli.labelled import FirstIdOption, LabelMapOption, VoidOption, print_warnings
from errseg_rt.cli.options import (
    AllowDamagedOption,
    BudgetOption,
    BundleOption,
    CompiledOption,
    DeadlineOption,
    DetailOption,
    DeviceOption,
    EngineOption,
    IgnoreOrientationOption,
    JsonOption,
    MaxPixelsOption,
    PrecisionOption,
    ProvidersOption,
    ThreadsOption,
    ThresholdOption,
    WorkPixelsOption,
    frame_summary,
    print_json,
    print_run,
    print_scores,
    run_summary,
)
from errseg_rt.cli.outputs import Outputs, check_file, check_folder
from errseg_rt.cli.ranking import RankOption, check_rank, print_ranking, ranking
from errseg_rt.cli.tally import Tally
from errseg_rt.datasets.doubts import doubts
from errseg_rt.datasets.input_trees import is_result
from errseg_rt.datasets.inputs import Item, find_images
from errseg_rt.datasets.label_map import LabelMap, check_alone
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.expected import expected, is_expected
from errseg_rt.frames.reading import Reading, read_picture
from errseg_rt.frames.segmentation import PICTURES
from errseg_rt.system.progress import track

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime

# Options of a runtime that say nothing of its results.
_OF_NO_RESULT = ("build", "max_pixels", "threads")


def segment(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Image files, folders or globs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")],
    bundle: BundleOption = "camvid",
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    compiled: CompiledOption = False,
    providers: ProvidersOption = None,
    threads: ThreadsOption = None,
    threshold: ThresholdOption = None,
    detail: DetailOption = None,
    budget: BudgetOption = None,
    deadline_ms: DeadlineOption = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    work_pixels: WorkPixelsOption = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Names, or paths below an input, that are passed over in it; may be given again."
        ),
    ] = None,
    allow_damaged: AllowDamagedOption = False,
    ignore_orientation: IgnoreOrientationOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what the summary in the folder of results says is done already.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of true labels (PNG, named as the images), to score against.")
    ] = None,
    void: VoidOption = None,
    first_id: FirstIdOption = None,
    label_map: LabelMapOption = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="labelIds|trainIds|ade20k|palette|FILE",
            help="Write one PNG of label ids for each image, under its name, in the stead of the four pictures: ids of "
            "Cityscapes, of the classes, of ADE20K, of the classes with their colours as a palette, or of a label map.",
        ),
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Also write whose each pixel is, as NAME_instances.png of 16 bits, 0 nobody's, and the instances of "
            "all images as instances.json, COCO's, with run lengths; for bundles that find instances.",
        ),
    ] = False,
    panoptic: Annotated[
        bool,
        typer.Option(
            "--panoptic",
            help="Also write labels and instances as NAME_panoptic.png and panoptic.json, in COCO's panoptic format.",
        ),
    ] = False,
    rank: RankOption = False,
    as_json: JsonOption = False,
) -> None:
    """Segment image files: class ids, colours, error heat map and overlay of each, and one summary.json.

    A folder that holds images/ and labels/ is scored against its labels. A bad file is reported at the end, and the
    others are done.
    """
    from errseg_rt.runtime import Runtime

    options = options_of(
        engine=engine,
        precision=precision,
        device=device,
        compiled=compiled,
        providers=providers,
        threads=threads,
        threshold=threshold,
        detail=detail,
        budget=budget,
        deadline_ms=deadline_ms,
        max_pixels=max_pixels,
        work_pixels=work_pixels,
    )
    check_folder(out)
    check_file(out / "summary.json")
    reading = Reading(max_pixels, allow_damaged, ignore_orientation)
    found = find_images(inputs, labels, out, exclude or ())
    with Runtime(bundle, options=options) as runtime:
        classes = runtime.manifest.classes
        check_rank(runtime.manifest, is_asked=rank)
        extra = InstanceFiles.of(runtime.manifest, instances=instances, panoptic=panoptic)
        for path in extra.documents(out):
            check_file(path)
        if label_map is None:
            meaning = LabelMap.of(len(classes), void, first_id or 0)
        else:
            check_alone(void, first_id)
            meaning = LabelMap.open(label_map, classes)
        output = OutputIds.open(ids, classes) if ids is not None else None
        ends = _ends(runtime, output) + extra.ends
        _check_apart(found.items, out, ends)
        settings = _settings(runtime, reading, meaning, output) | dict.fromkeys(extra.kinds, True)
        tally = Tally(classes)

        def summarise(frames: list[Entry]) -> dict[str, Any]:
            return {
                "bundle": runtime.manifest.name,
                **stamp(runtime),
                "settings": settings,
                **run_summary(runtime, frames),
                **tally.summary(len(found.items)),
                **extra.summary(frames),
                **(ranking(frames) if rank else {}),
                "notes": doubts_of_map(runtime) + doubts(tally.semantic.counts, classes, bundle, meaning.first_id),
            }

        def work(item: Item) -> Entry:
            entry = _done_already(runtime, item, done.get(str(item.path)), out, ends, extra)
            entry = entry or _segment_one(runtime, item, out, reading, meaning, tally, output, ends, extra)
            tally.add(entry)
            return entry

        out.mkdir(parents=True, exist_ok=True)
        done = earlier(out / "summary.json", settings) if resume else {}
        batch = Batch(out / "summary.json", summarise)
        with batch.kept():
            warm_up(runtime)
            for item in track(found.items, "segment", len(found.items)):
                batch.attempt(item.path, lambda item=item: work(item))  # type: ignore[misc]
                batch.keep()
        summary = batch.summary()
        outputs = Outputs()
        extra.write(batch.frames, out, reading, outputs)
    if as_json:
        print_json(summary)
    elif batch.frames:
        print_run(summary)
        if summary["scored"]:
            _print_scores(summary)
        if rank:
            print_ranking(summary)
        if extra.kinds:
            listed = ", ".join(f"{count} {name}" for name, count in summary["instances"].items())
            print(f"instances: {listed or 'none'}")
        print(f"{len(batch.frames)} of {len(found.items)} images segmented: {out}")
    for note in found.notes:
        say("note", note)
    print_warnings(summary["notes"])
    for failure in batch.failed:
        say("error", failure["error"])
    for fault in outputs.faults:
        say("error", fault)
    if batch.failed or outputs.faults:
        raise typer.Exit(2)


def _ends(runtime: Runtime, output: OutputIds | None) -> list[str]:
    """How the names of an item's results end."""
    if output is not None:
        return [".png"]
    return [f"_{what}.png" for what in PICTURES if what != "error" or runtime.manifest.has_errors]


def _check_apart(items: Sequence[Item], out: Path, ends: Sequence[str]) -> None:
    """Raises DataError where a result would take the place of an image, of labels, or of somebody else's file."""
    resolved: Callable[[Path], Path] = cache(Path.resolve)

    def place(path: Path) -> Path:  # a link's own: what is written takes the place of the link
        return resolved(path.parent) / path.name

    given = {place(path) for item in items for path in (item.path, item.truth) if path is not None}
    is_ours = (out / "summary.json").exists()
    for item in items:
        for path in _results(item, out, ends):
            if place(path) in given:
                raise DataError(f"{path}: would be written over by a result of {item.path}; give another --out")
            if not is_ours and os.path.isfile(path) and not is_result(path):  # where a name is too long: no
                raise DataError(f"{path}: is there, and no result of an earlier run; remove it, or give another --out")


def _results(item: Item, out: Path, ends: Sequence[str]) -> list[Path]:
    """Files that an item's results are written to."""
    return [out / f"{item.name}{end}" for end in ends]


def _settings(runtime: Runtime, reading: Reading, meaning: LabelMap, output: OutputIds | None) -> dict[str, Any]:
    """All that results follow from, beside the files."""
    options = {name: value for name, value in asdict(runtime.options).items() if name not in _OF_NO_RESULT}
    return {
        "manifest_sha256": runtime.bundle.stamp()["sha256"],
        **options,
        "allow_damaged": reading.allow_damaged,
        "ignore_orientation": reading.ignore_orientation,
        "label_ids": " ".join(f"{label}:{index}" for label, index in sorted(meaning.ids.items())),
        "output_ids": None if output is None else output.text,
    }


def _done_already(
    runtime: Runtime, item: Item, entry: Entry | None, out: Path, ends: Sequence[str], extra: InstanceFiles
) -> Entry | None:
    """The entry of an earlier run, where its files are unchanged, its results are there, and a summary takes it."""
    if entry is None:
        return None
    results = _results(item, out, ends)
    try:
        is_same = (
            entry["files"] == _files(item)
            and ("confusion" in entry) == (item.truth is not None)
            and {out / name for name in entry["outputs"].values()} == {*results}
            and all(path.stat().st_size for path in results)
            and is_expected(entry, runtime.manifest)
        )
        Tally(runtime.manifest.classes).add(entry)
        extra.check(entry)
        json.dumps(run_summary(runtime, [entry]), allow_nan=False)
    except (OSError, AttributeError, LookupError, TypeError, ValueError, ArithmeticError):  # somebody has edited it
        return None
    return entry if is_same else None


def _files(item: Item) -> dict[str, list[int]]:
    """What tells an item's files from former ones."""
    return {str(path): print_of(path) for path in (item.path, item.truth) if path is not None}


def _segment_one(
    runtime: Runtime,
    item: Item,
    out: Path,
    reading: Reading,
    meaning: LabelMap,
    tally: Tally,
    output: OutputIds | None,
    ends: Sequence[str],
    extra: InstanceFiles,
) -> Entry:
    """Segment and save one image; what the summary says of it."""
    if item.fault:
        raise FrameError(f"{item.path}: {item.fault}")
    files = _files(item)  # before they are read: a change meanwhile is one
    picture = read_picture(item.path, item.truth, reading, meaning.colors)
    truth = None
    if item.truth is not None and picture.labels is not None:
        truth = meaning.apply(picture.labels, item.truth)
    is_drawn = output is None  # overlays show instances
    result = runtime.segment(picture.frame, semantic=truth is not None, instances=is_drawn or bool(extra.kinds))
    if output is None:
        saved = result.save(out, item.name, picture.frame)
    else:
        saved = {"ids": output.save(result.labels, _results(item, out, ends)[0])}
    more, of_instances = extra.save(result, out, item.name)
    saved |= more
    entry: Entry = {
        "input": str(item.path),
        "files": files,
        "size": list(result.labels.shape),
        "outputs": {what: path.relative_to(out).as_posix() for what, path in saved.items()},
        **expected(result, truth),
        **frame_summary(result),
        **of_instances,
    }
    if picture.damage:
        entry["damage"] = list(picture.damage)
    if truth is not None and result.semantic_labels is not None:
        entry["confusion"] = tally.counted(truth, result.semantic_labels, result.labels)
    return entry


def _print_scores(summary: dict[str, Any]) -> None:
    scored = summary["scored"]
    if summary["scores"]:
        print_scores(summary)
    share = f"{100 * scored['valid_pixels']:.1f} % of their pixels have a class"
    print(f"scored: {scored['frames']} of {scored['of']} frames; {share}")
