"""`errseg-rt segment`: image files to labels, colours, error maps and overlays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import options_of, stamp, warm_up
from errseg_rt.cli.options import (
    BudgetOption,
    BundleOption,
    CompiledOption,
    DeadlineOption,
    DetailOption,
    DeviceOption,
    EngineOption,
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
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.errors import EngineError, FrameError
from errseg_rt.frames.images import Item, find_images
from errseg_rt.frames.reading import Reading, read_picture
from errseg_rt.system.atomic import write_json
from errseg_rt.system.progress import track

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime


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
    labels: Annotated[
        Path | None, typer.Option(help="Folder of true labels (PNG, named as the images), to score against.")
    ] = None,
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
    items = find_images(inputs, labels, out)
    frames: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with Runtime(bundle, options=options) as runtime:
        classes = runtime.manifest.classes
        semantic, fused = ConfusionMatrix(len(classes)), ConfusionMatrix(len(classes))
        warm_up(runtime)
        for item in track(items, "segment", len(items)):
            try:
                frames.append(_segment_one(runtime, item, out, semantic, fused))
            except (FrameError, EngineError) as error:
                failed.append({"input": str(item.path), "error": str(error)})
        summary: dict[str, Any] = {
            "bundle": runtime.manifest.name,
            **stamp(runtime),
            **run_summary(runtime, frames),
            "scores": {"semantic": semantic.to_dict(classes), "fused": fused.to_dict(classes)}
            if semantic.counts.any()
            else None,
            "frames": frames,
            "failed": failed,
        }
    write_json(out / "summary.json", summary)
    if as_json:
        print_json(summary)
    elif frames:
        print_run(summary)
        if summary["scores"]:
            print_scores(summary["scores"])
        print(f"{len(frames)} of {len(items)} images segmented: {out}")
    for failure in failed:
        print("error: " + " ".join(failure["error"].split()), file=sys.stderr)
    if failed:
        raise typer.Exit(2)


def _segment_one(
    runtime: Runtime, item: Item, out: Path, semantic: ConfusionMatrix, fused: ConfusionMatrix
) -> dict[str, Any]:
    """Segment, save and score one image; what the summary says of it."""
    reading = Reading(runtime.options.max_pixels)
    picture = read_picture(item.path, item.truth, reading)
    frame, size = picture.frame, picture.frame.shape[:2]
    truth = None
    if item.truth is not None and picture.labels is not None:
        truth = LabelMap.of(len(runtime.manifest.classes)).apply(picture.labels, item.truth)
    result = runtime.segment(frame, semantic=truth is not None)
    saved = result.save(out, item.name, frame)
    if truth is not None and result.semantic_labels is not None:
        semantic.add(truth, result.semantic_labels)
        fused.add(truth, result.labels)
    rows, cols = result.geometry.seen()
    return {
        "input": str(item.path),
        "size": list(size),
        "outputs": {what: path.relative_to(out).as_posix() for what, path in saved.items()},
        "mean_error_probability": float(result.error_probability[:rows, :cols].mean()),
        **frame_summary(result),
    }
