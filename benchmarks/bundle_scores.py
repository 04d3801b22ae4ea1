"""Scores of the embedded bundle `camvid` on frames that nothing of it learned from, as `errseg-rt evaluate` has them.

    python -m benchmarks.bundle_scores --data camvid

Scored are val, the frames of train that were held out (which its calibration was fitted on), and rendered streets that
training did not draw. Scores go to `results/bundle_scores.json`, of which `python -m benchmarks.accuracy_tables` makes
the tables of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS
from errseg_rt.datasets import LabelledFrames, open_dataset
from errseg_rt.evaluation import THRESHOLDS, Evaluation, calibrations_of, evaluate_frames
from errseg_rt.places.driver import gpu_name
from errseg_rt.runtime import Runtime
from errseg_rt.system.atomic import write_json
from errseg_rt.system.stamp import machine_stamp
from errseg_rt.training.data import RenderedData
from errseg_rt.training.folds import hold_out
from errseg_rt.training.recipe_files import load_recipe

_RENDERED = 60  # frames, as the training's own report has them


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--json", type=Path, default=RESULTS / "bundle_scores.json")
    args = parser.parse_args()
    with Runtime("camvid") as runtime:
        answer = {
            "command": f"python -m benchmarks.bundle_scores --data {args.data}",
            "bundle": runtime.bundle.stamp(),
            "machine": machine_stamp(gpu_name()),
            "sets": {name: scores_of(runtime, frames, name) for name, frames in sets(args.data).items()},
        }
    write_json(args.json, answer)


def sets(data: Path) -> dict[str, LabelledFrames]:
    """The frames, by what they are called."""
    recipe = load_recipe("camvid")
    train, val = (open_dataset(data, recipe.classes, split=split, void=recipe.data.void) for split in ("train", "val"))
    _, held = hold_out(len(train))
    return {"held_out": train.subset(held), "val": val, "rendered": RenderedData(_RENDERED)}


def scores_of(runtime: Runtime, frames: LabelledFrames, title: str) -> dict[str, Any]:
    """All scores of some frames."""
    manifest = runtime.manifest
    calibrations = calibrations_of(manifest)
    evaluation = Evaluation(
        len(manifest.classes),
        runtime.threshold,
        thresholds=THRESHOLDS,
        boundary=True,
        layers=runtime.layers,
        threads=runtime.options.cores,
        calibrations=calibrations,
    )
    done = evaluate_frames(runtime, frames, evaluation, title)
    if done.failed:
        raise SystemExit(f"{title}: {done.failed}")
    return evaluation.to_dict(manifest.classes, calibrations)


if __name__ == "__main__":
    main()
