"""`errseg-rt calibrate`: a bundle's error probability, fitted to a user's own frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import options_of, stamp, warm_up
from errseg_rt.cli.labelled import (
    BundleArgument,
    DataOption,
    FirstIdOption,
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
    WorkPixelsOption,
    print_table,
)
from errseg_rt.cli.outputs import Outputs, check_file, check_folder
from errseg_rt.errors import BundleError, DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.system.atomic import write_json

if TYPE_CHECKING:
    from errseg_rt.bundle.bundle import Bundle
    from errseg_rt.bundle.manifest import Manifest

_KEPT = (
    "on frames that it was not fitted on, a new map {}is no better than the bundle's in both calibration error and "
    "Brier score: none is proposed, and a new bundle keeps the old one"
)
_OF_DETAIL = "of the labels given again "
_FEW_FRAMES = "frames with true labels: {}, too few for the map, t and budget to mean much; give {} or more"


def calibrate(
    bundle: BundleArgument,
    data: DataOption,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the new bundle; default: none.")] = None,
    save_threshold: Annotated[
        bool, typer.Option("--save-threshold", help="The new bundle takes the proposed t too.")
    ] = False,
    split: SplitOption = None,
    void: VoidOption = None,
    first_id: FirstIdOption = None,
    label_map: LabelMapOption = None,
    merge: MergeOption = None,
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
) -> None:
    """Fit the maps to error probability on labelled frames, and propose t and a budget.

    One is of P_ep, for the labels of the semantic branch; the other, for labels that the detail branch has given, is of
    its own doubt. The frames should be new to the bundle: on those it was trained with, it errs too little. Without
    --out, the bundle is left as it is and the figures are only shown.
    """
    from errseg_rt.bundle.bundle import check_replaceable
    from errseg_rt.datasets.doubts import doubts
    from errseg_rt.evaluation.bootstrap import FEWEST_FRAMES
    from errseg_rt.evaluation.calibration import (
        FOLDS,
        calibrations_of,
        cross_validated,
        not_better,
        recalibrated,
        reliability_over,
    )
    from errseg_rt.evaluation.error_maps import BASELINES, DETAIL, P_EP
    from errseg_rt.evaluation.evaluation import Evaluation
    from errseg_rt.evaluation.run import evaluate_frames
    from errseg_rt.evaluation.sweep import THRESHOLDS, propose
    from errseg_rt.evaluation.tables import figures_of
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
        max_pixels=max_pixels,
        work_pixels=work_pixels,
    )
    if save_threshold and out is None:
        raise typer.BadParameter("is for a new bundle: give --out.", param_hint="'--save-threshold'")
    check_file(json_file)
    check_folder(out)
    with Runtime(bundle, options=options) as runtime:
        opened, manifest = runtime.bundle, runtime.manifest
        if out is not None and out.resolve() == opened.folder.resolve():
            raise BundleError(f"{out}: is the bundle that is calibrated; give another folder")
        if not manifest.has_errors:
            raise BundleError(f"{bundle}: has no error map to calibrate: its network gives labels alone")
        if save_threshold and not manifest.has_detail:
            raise BundleError(f"{bundle}: has no detail branch, and so no t; leave out --save-threshold")
        if out is not None:
            check_replaceable(out)
        classes, coarse, things = label_classes(merge, manifest)
        frames = open_frames(
            data,
            classes,
            split=split,
            void=void,
            first_id=first_id,
            label_map=label_map,
            reading=reading,
            things=things,
        )
        warm_up(runtime)
        evaluation = Evaluation(
            len(classes),
            runtime.threshold,
            thresholds=THRESHOLDS,
            folds=FOLDS,
            layers=runtime.layers,
            threads=runtime.options.cores,
            branches=manifest.branches,
            coarse=coarse,
        )
        done = evaluate_frames(runtime, frames, evaluation, "calibrate")
    pixels = evaluation.errors
    if not any(pixels.pixels):
        report_failures(done.failed)
        raise DataError(f"{data}: no pixel has a true label; there is nothing to calibrate on")
    old = reliability_over(evaluation.folds, calibrations_of(manifest))
    # Maps of so few frames, judged by fewer, say nothing of a map of them all.
    is_few = evaluation.frames_with_truth < FEWEST_FRAMES
    new = cross_validated(() if is_few else evaluation.folds)
    kept = not_better(old, new)
    notes = [_FEW_FRAMES.format(evaluation.frames_with_truth, FEWEST_FRAMES)] if is_few else []
    notes += [_KEPT.format(words) for name, words in {P_EP: "", DETAIL: _OF_DETAIL}.items() if name in kept]
    first = frames.label_map.first_id
    warnings = doubts(evaluation.semantic.confusion.counts, classes, bundle, first)
    proposal = propose(evaluation.sweep, evaluation.semantic.confusion)
    scores = evaluation.to_dict(classes)
    answer = {
        "bundle": opened.stamp(),
        "data": {"folder": str(data), "split": split, "label_map": label_map, "first_id": first_id, "merge": merge},
        **stamp(runtime),
        "frames": len(done.scored),
        "threshold": manifest.threshold,
        "calibration": {
            "old": old[P_EP],
            "new": new[P_EP],
            "is_better": None if is_few else P_EP not in kept,
            "baselines": {name: new[name] for name in BASELINES},
        },
        "detail_calibration": _of_detail(old.get(DETAIL), new.get(DETAIL), DETAIL not in kept),
        "proposal": asdict(proposal) if proposal else None,
        "thresholds": scores["thresholds"],
        "failed": done.failed,
        "notes": notes + warnings,
        "machine": machine_stamp(gpu_name()),
    }
    outputs, written = Outputs(), ""
    if json_file is not None:
        with outputs.writing(json_file):
            write_json(json_file, answer)
    if out is not None:
        today = datetime.now(timezone.utc).date().isoformat()
        note = f"{len(done.scored)} frames of {data.resolve().name}{f', {split}' if split else ''}; {today}"
        threshold = proposal.t if save_threshold and proposal else None
        name = out.resolve().name
        with outputs.writing(out):
            new_manifest = recalibrated(manifest, pixels, name=name, note=note, threshold=threshold, kept=kept)
            _write(opened, new_manifest, out)
            which = "its old" if P_EP in kept else "the new"
            written = f"{out}: the bundle with {which} calibration, t = {threshold or manifest.threshold}"
    _print_calibration(answer)  # after the files: whoever reads may have gone
    for table in figures_of(scores):
        if table.name == "thresholds":
            print_table(table.title, table.headings(), table.text())
    if manifest.has_detail:
        _print_proposal(answer)
    for line in filter(None, [*notes, written]):
        print(line)
    print_warnings(warnings)
    report_failures(done.failed, outputs.faults)


def _of_detail(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, is_better: bool) -> dict[str, Any] | None:
    """What is known of both maps of the labels given again; None where no pixel was flagged."""
    if old is None:
        return None
    new = new or dict.fromkeys(old)
    return {"old": old, "new": new, "is_better": None if new["ece"] is None else is_better}


def _print_calibration(answer: Mapping[str, Any]) -> None:
    calibration = answer["calibration"]
    rows = {
        "P_ep, the bundle's map": calibration["old"],
        "P_ep, a new map": calibration["new"],
        **{f"{name}, a new map": row for name, row in calibration["baselines"].items()},
    }
    if of_detail := answer["detail_calibration"]:
        rows["labels given again, the bundle's map"] = of_detail["old"]
        rows["labels given again, by 1 - max P_db"] = of_detail["new"]
    cells = [
        [name, *("-" if row[key] is None else f"{row[key]:.5f}" for key in ("ece", "brier"))]
        for name, row in rows.items()
    ]
    print_table("Calibration (mean over blocks of frames; new maps cross-validated)", ["", "ece", "brier"], cells)


def _print_proposal(answer: Mapping[str, Any]) -> None:
    proposal = answer["proposal"]
    if proposal is None:
        print(f"{answer['frames']} frames: no t gains on them")
        return
    print(
        f"{answer['frames']} frames: t = {proposal['t']} gains {100 * proposal['gain']:+.2f} points of mIoU for "
        f"{proposal['flagged']:.1%} flagged; budget={proposal['budget']:.2f} leaves 19 frames in 20 uncut "
        f"(the bundle's t is {answer['threshold']})"
    )


def _write(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    """Write the bundle's files under a new manifest, with the model card that belongs to it."""
    from errseg_rt.bundle.bundle import write_bundle
    from errseg_rt.export.model_card import model_card

    files = {name: bundle.read(name) for name in bundle.manifest.files}
    if "MODEL_CARD.md" in files:
        files["MODEL_CARD.md"] = model_card(manifest).encode()
    write_bundle(folder, manifest, files)
