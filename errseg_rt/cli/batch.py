"""`errseg-rt batch`: many images and videos, by workers of this machine or of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.batch.figures import frames_summary
from errseg_rt.batch.image import ImageWork, settings_of
from errseg_rt.batch.index import LINES, PARQUET, row_of, write_index
from errseg_rt.batch.instances import InstanceFiles
from errseg_rt.batch.kept import Batch, Entry
from errseg_rt.batch.places import check_apart
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import doubts_of_map, options_of
from errseg_rt.cli.faults import say
from errseg_rt.cli.hiring import hired, most_here, shares
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
    RayOption,
    ThresholdOption,
    WorkPixelsOption,
    print_json,
)
from errseg_rt.cli.outputs import Outputs, check_file, check_folder
from errseg_rt.cluster import check_ray
from errseg_rt.datasets.inputs import Item, find_images
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.system.progress import track

if TYPE_CHECKING:
    from errseg_rt.batch.crew import Crew
    from errseg_rt.batch.task import BundleTask

_LOOKERS = 16  # threads that look at what earlier runs left: they wait for the disk


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Images, videos, folders or globs of them, or .txt files that list them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results; one that all workers see.")],
    ray: RayOption = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Files at a time; default: as many as there are CPUs, or GPUs, for."),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="CPU threads of each worker.")] = 1,
    max_failures: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Failed files after which it ends; default: none.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Names, or paths below an input, that are passed over in it; may be given again."
        ),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="labelIds|trainIds|ade20k|palette|FILE",
            help="Write one PNG of label ids for each image, in the stead of the four pictures, as segment does.",
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Also write the instances of images, as segment does.")
    ] = False,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Also write images in COCO's panoptic format, as segment does.")
    ] = False,
    view: Annotated[
        str,
        typer.Option(metavar="side-by-side|overlay|labels|errors", help="What the clip of a video shows."),
    ] = "side-by-side",
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="labels|pngs|lines",
            help="Write of each video also: a lossless video of label ids, a PNG of them for each frame, a line of "
            "JSON for each; may be given again.",
        ),
    ] = None,
    allow_damaged: AllowDamagedOption = False,
    ignore_orientation: IgnoreOrientationOption = False,
    bundle: BundleOption = "camvid",
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    compiled: CompiledOption = False,
    providers: ProvidersOption = None,
    threshold: ThresholdOption = None,
    detail: DetailOption = None,
    budget: BudgetOption = None,
    deadline_ms: DeadlineOption = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    work_pixels: WorkPixelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment many images and videos side by side, on this machine's cores or on a Ray cluster.

    What is done stays done, whatever ends it: called again over the same folder, it does what is missing. A bad file is
    reported at the end, and the others are done.
    """
    from errseg_rt.batch.clip import ClipWork
    from errseg_rt.batch.crew import SLOW, go_through
    from errseg_rt.batch.task import SUMMARY, BundleTask
    from errseg_rt.video.drawing import VIEWS
    from errseg_rt.video.record import KINDS

    kinds = tuple(dict.fromkeys(also or ()))
    for option, given, known in (("--view", (view,), VIEWS), ("--also", kinds, KINDS)):
        if wrong := [each for each in given if each not in known]:
            raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(known)}.", param_hint=f"'{option}'")
    options = options_of(
        engine=engine,
        precision=precision,
        device=device,
        compiled=compiled,
        providers=providers,
        threshold=threshold,
        detail=detail,
        budget=budget,
        deadline_ms=deadline_ms,
        max_pixels=max_pixels,
        work_pixels=work_pixels,
    )
    if options.kind == "cpu":
        options = replace(options, threads=threads)
    out = Path(os.path.abspath(out))  # workers may have another working folder
    check_folder(out)
    if ray is not None:
        check_ray(ray)
    found = find_images(inputs, None, out, exclude or (), of_batch=True)
    items = [replace(item, path=Path(os.path.abspath(item.path)), truth=None) for item in found.items]
    opened = Bundle.open(bundle)
    classes = opened.manifest.classes
    if view == "errors" and not opened.manifest.has_errors:
        raise DataError(f"bundle {bundle}: has no error map; leave out --view errors")
    extra = InstanceFiles.of(opened.manifest, instances=instances, panoptic=panoptic)
    for path in (out / SUMMARY, out / PARQUET, out / LINES, *extra.documents(out)):
        check_file(path)
    reading = Reading(max_pixels, allow_damaged, ignore_orientation)
    output = OutputIds.open(ids, classes) if ids is not None else None
    images = ImageWork(out, opened.manifest, reading, LabelMap.of(len(classes)), output, extra)
    task = BundleTask(
        opened.address,
        opened.stamp()["sha256"],
        options,
        images,
        ClipWork(out, view, kinds, max_pixels),
        out,
        settings_of(opened, options),
    )
    check_apart(items, task.results, is_ours=(out / SUMMARY).exists())
    out.mkdir(parents=True, exist_ok=True)
    earlier = _earlier(task, items)
    done: dict[Path, Entry | str] = {**earlier}
    missing = [item for item in items if item.path not in done]

    def summarise(entries: list[Entry]) -> dict[str, Any]:
        pictures = [entry for entry in entries if "frames" not in entry]
        return {
            "bundle": opened.manifest.name,
            "engine": options.engine,
            "precision": options.arithmetic,
            "device": options.place,
            "settings": task.settings,
            "files": {
                "of": len(items),
                "done": len(entries),
                "earlier": len(earlier),
                "failed": len(kept.failed),
                "videos": len(entries) - len(pictures),
            },
            **frames_summary(pictures, options.deadline_ms),
            **extra.summary(pictures),
            "notes": doubts_of_map(opened),
        }

    def slow() -> None:
        reason = "the first ones on a machine compile kernels" + (", or no CPUs of the cluster are free" if ray else "")
        say("note", f"no worker takes files yet after {SLOW:g} seconds: {reason}")

    kept = Batch(out / SUMMARY, summarise, is_listed=False)
    kept.frames += earlier.values()
    with kept.kept():
        if missing:
            with _crew(task, ray, workers) as (crew, most):
                for item, result in track(go_through(crew, missing, most, slow), "batch", len(missing)):
                    kept.note(item.path, result)
                    done[item.path] = result
                    kept.keep()
                    if max_failures is not None and len(kept.failed) >= max_failures:
                        break
    summary, outputs = kept.summary(), Outputs()
    entries = [done[item.path] for item in items if item.path in done]
    rows = (
        row_of(item.path, "video" if item.is_video else "image", done[item.path]) for item in items if item.path in done
    )
    with outputs.writing(out / PARQUET):
        _, note = write_index(rows, out)
        summary["notes"] += [note] if note else []
    pictures = [entry for entry in entries if isinstance(entry, dict) and "frames" not in entry]
    extra.write(pictures, out, reading, outputs.writing)
    _report(summary, found.notes, outputs.faults, as_json=as_json, out=out)
    left = len(items) - len(entries)
    if left:
        say("error", f"ended after {len(kept.failed)} failed files, by --max-failures; {left} files are left")
    if kept.failed or outputs.faults:
        raise typer.Exit(2)


def _earlier(task: BundleTask, items: Sequence[Item]) -> dict[Path, Entry]:
    """Entries of earlier runs that still hold."""
    with ThreadPoolExecutor(_LOOKERS) as pool:
        entries = pool.map(task.earlier, items)
        return {item.path: entry for item, entry in zip(items, entries, strict=True) if entry is not None}


@contextmanager
def _crew(task: BundleTask, address: str | None, workers: int | None) -> Iterator[tuple[Crew, int]]:
    """Workers, and how many at a time."""
    if address is None:
        from errseg_rt.batch.processes import Processes

        with Processes(task) as processes:
            yield processes, workers or most_here(task.options)
        return
    from errseg_rt.batch.actors import Actors

    with hired(address, task.options, workers) as (ray, most):
        yield Actors(ray, task, *shares(task.options)), most


def _report(summary: dict[str, Any], notes: Sequence[str], faults: Sequence[str], *, as_json: bool, out: Path) -> None:
    if as_json:
        print_json(summary)
    else:
        files = summary["files"]
        earlier = f", {files['earlier']} of them by earlier runs" if files["earlier"] else ""
        print(f"{files['done']} of {files['of']} files done{earlier}: {out}")
    for note in (*notes, *summary["notes"]):
        say("note", note)
    for failure in summary["failed"]:
        say("error", failure["error"])
    for fault in faults:
        say("error", fault)
