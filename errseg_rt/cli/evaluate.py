"""`errseg-rt evaluate`: every score of a bundle on labelled frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import doubts_of_map, options_of, stamp, warm_up
from errseg_rt.cli.labelled import (
    BundleArgument,
    DataOption,
    FirstIdOption,
    IdsOption,
    JsonFileOption,
    LabelMapOption,
    MergeOption,
    SplitOption,
    VoidOption,
    label_classes,
    open_frames,
    print_warnings,
    report_failures,
)
from errseg_rt.cli.options import (
    AllowDamagedOption,
    CompiledOption,
    DeviceOption,
    EngineOption,
    IgnoreOrientationOption,
    MaxPixelsOption,
    PrecisionOption,
    ProvidersOption,
    ThreadsOption,
    ThresholdOption,
    WorkPixelsOption,
    print_table,
)
from errseg_rt.cli.outputs import Outputs, check_apart, check_file, check_folder
from errseg_rt.cli.predictions import score_files
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.system.atomic import write_json
from errseg_rt.system.lines import escaped
from errseg_rt.system.progress import track

if TYPE_CHECKING:
    from errseg_rt.datasets import LabelledFrames
    from errseg_rt.evaluation.evaluation import Evaluation
    from errseg_rt.runtime import Runtime

_LONGEST_NAME = 200  # bytes of a frame's name in that of its plot: file systems take 255 in all
_LARGEST_SCALE = 4.0
_NO_BASELINES = "the bundle has no calibration of the baselines, so that these have no ece and brier: see calibrate"


def _scales(text: str) -> str:
    try:
        fits = all(0 < float(part) <= _LARGEST_SCALE for part in text.split(","))
    except ValueError:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{text!r} is no list of factors up to {_LARGEST_SCALE:g}, such as 0.75,1,1.25.")
    return text


def evaluate(
    bundle: BundleArgument,
    data: DataOption,
    split: SplitOption = None,
    void: VoidOption = None,
    first_id: FirstIdOption = None,
    label_map: LabelMapOption = None,
    merge: MergeOption = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Score label files of any origin, in the stead of the bundle, which is not run."
        ),
    ] = None,
    ids: IdsOption = "trainIds",
    threshold: ThresholdOption = None,
    scales: Annotated[
        str, typer.Option(callback=_scales, help="Factors on the size of a frame, for multi-scale inference.")
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Multi-scale inference also sees each frame mirrored.")] = False,
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    compiled: CompiledOption = False,
    providers: ProvidersOption = None,
    threads: ThreadsOption = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    work_pixels: WorkPixelsOption = None,
    allow_damaged: AllowDamagedOption = False,
    ignore_orientation: IgnoreOrientationOption = False,
    json_file: JsonFileOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File for the tables, as CSV.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for plots and the worst frames, as PNG.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst frames to draw.")] = 4,
) -> None:
    """Score a bundle on labelled frames: labels, outlines, error map, calibration, and every threshold.

    Instances are scored, too, where the data have them and the bundle finds some. A frame that cannot be read is
    reported at the end, and the others are scored.
    """
    from errseg_rt.datasets.doubts import doubts
    from errseg_rt.evaluation.calibration import calibrations_of
    from errseg_rt.evaluation.evaluation import Evaluation
    from errseg_rt.evaluation.instance_scores import InstanceScores
    from errseg_rt.evaluation.plots import check_plots, plot_curves
    from errseg_rt.evaluation.run import evaluate_frames
    from errseg_rt.evaluation.sweep import THRESHOLDS
    from errseg_rt.evaluation.tables import figures_of, write_csv
    from errseg_rt.places.driver import gpu_name
    from errseg_rt.runtime import Runtime
    from errseg_rt.system.stamp import machine_stamp

    reading = Reading(max_pixels, allow_damaged, ignore_orientation)
    options = options_of(
        engine=engine,
        precision=precision,
        device=device,
        compiled=compiled,
        providers=providers,
        threads=threads,
        threshold=threshold,
        max_pixels=max_pixels,
        work_pixels=work_pixels,
    )
    for file in (json_file, csv_file):
        check_file(file)
    check_apart(json_file, csv_file)
    labelled: dict[str, Any] = {"split": split, "void": void, "first_id": first_id, "label_map": label_map}
    if predictions is not None:
        if plots is not None:
            raise typer.BadParameter("draws what a bundle does: leave it out.", param_hint="'--plots'")
        score_files(bundle, data, predictions, ids, labelled, merge, reading, json_file, csv_file)
        return
    if plots is not None:
        check_plots()
        check_folder(plots)
    factors = tuple(float(part) for part in scales.split(","))
    with Runtime(bundle, options=options) as runtime:
        manifest = runtime.manifest
        classes, coarse, things = label_classes(merge, manifest)
        frames = open_frames(data, classes, reading=reading, things=things, **labelled)
        instances = InstanceScores(len(classes), things) if things and frames.has_instances else None
        warm_up(runtime)
        calibrations = calibrations_of(manifest)
        evaluation = Evaluation(
            len(classes),
            runtime.threshold,
            thresholds=THRESHOLDS,
            boundary=True,
            layers=runtime.layers,
            threads=runtime.options.cores,
            branches=manifest.branches,
            calibrations=calibrations,
            detail_threshold=manifest.fitted_threshold,
            coarse=coarse,
        )
        done = evaluate_frames(runtime, frames, evaluation, "evaluate", scales=factors, flip=flip, instances=instances)
        scores = evaluation.to_dict(classes, calibrations)
        if instances is not None:
            scores["instances"] = instances.to_dict(classes)
        tables = figures_of(scores)
        notes = [_NO_BASELINES] if manifest.has_errors and not manifest.baseline_calibrations else []
        notes += doubts_of_map(runtime.bundle)
        if merge is not None and frames.has_instances and manifest.things:
            notes.append("instances are of the bundle's own classes: with --merge they are not scored")
        first = frames.label_map.first_id
        warnings = doubts(evaluation.semantic.confusion.counts, classes, bundle, first)
        outputs, drawn = Outputs(), list[Path]()
        if json_file is not None:
            answer = {
                "bundle": runtime.bundle.stamp(),
                "data": {"folder": str(data), **labelled, "merge": merge},
                **stamp(runtime),
                "scales": factors,
                "flip": flip,
                **scores,
                "per_frame": _per_frame(evaluation, frames, done.scored),
                "failed": done.failed,
                "notes": notes + warnings,
                "machine": machine_stamp(gpu_name()),
            }
            with outputs.writing(json_file):
                write_json(json_file, answer)
        if csv_file is not None:
            with outputs.writing(csv_file):
                write_csv(tables, csv_file)
        if plots is not None:
            with outputs.writing(plots):
                drawn += plot_curves(plots, evaluation.errors, calibrations, scores)
                drawn += _plot_worst(runtime, frames, evaluation, done.scored, worst, plots)
    for table in tables:  # after the files: whoever reads may have gone
        print_table(table.title, table.headings(), table.text())
    print("\n".join([_summary(scores), *notes]))
    if drawn:
        print(f"{plots}: {', '.join(escaped(path.name) for path in drawn)}")
    print_warnings(warnings)
    report_failures(done.failed, outputs.faults)
    if not evaluation.frames_with_truth:
        raise DataError(f"{data}: no pixel has a true label; there is nothing to score")


def _summary(scores: Mapping[str, Any]) -> str:
    from errseg_rt.evaluation.bootstrap import FEWEST_FRAMES

    gain = scores["gain"]
    if "fused" not in scores:
        return f"{scores['frames']} frames; the bundle has no detail branch, so that nothing is labelled again"
    if gain is None:
        return f"{scores['frames']} frames, none with a true label"
    if gain["interval"] is None:
        verdict = f"too few frames for an interval or a verdict (fewer than {FEWEST_FRAMES})"
    else:
        low, high = (100 * end for end in gain["interval"])
        verdict = f"95 % interval {low:+.2f} to {high:+.2f}{', a tie' if gain['tie'] else ''}"
    return (
        f"{scores['frames']} frames, {scores['flagged']:.1%} flagged at t = {scores['threshold']}: fused over "
        f"{gain['over']} {100 * gain['miou']:+.2f} points of mIoU, {verdict}"
    )


def _per_frame(evaluation: Evaluation, frames: LabelledFrames, scored: list[int]) -> list[dict[str, Any]]:
    labels = evaluation.semantic.frame_accuracy(), evaluation.fused.frame_accuracy()
    known = evaluation.frame_errors
    expected = [None] * len(scored) if known is None else known.expected
    return [
        {"name": frames.names[index], "semantic": semantic, "fused": fused, "flagged": flagged, "expected_error": error}
        for index, semantic, fused, flagged, error in zip(scored, *labels, evaluation.flagged, expected, strict=True)
    ]


def _plot_worst(
    runtime: Runtime, frames: LabelledFrames, evaluation: Evaluation, scored: list[int], count: int, folder: Path
) -> list[Path]:
    """Draw the frames with the largest share of wrong fused labels."""
    from errseg_rt.evaluation.plots import plot_frame

    accuracy = zip(evaluation.fused.frame_accuracy(), scored, strict=True)
    ranked = sorted((share, index) for share, index in accuracy if share is not None and not math.isnan(share))[:count]
    paths = []
    for rank, (_, index) in enumerate(track(ranked, "draw the worst frames", len(ranked)), 1):
        frame, truth = frames[index]
        end = frames.names[index].replace("/", "_").encode(errors="ignore")[-_LONGEST_NAME:]
        name = end.decode(errors="ignore")
        result = runtime.segment(frame, semantic=True)
        paths.append(plot_frame(folder / f"worst_{rank:02d}_{name}.png", frame, truth, result))
    return paths
