"""Accuracy of the cascade beside its comparisons (Gong et al. 2021, tables 1 to 3).

    python -m benchmarks.accuracy --data camvid --init squeezenas_mac_large_cityscapes.pth --runs runs

Trains what is missing, then scores. All trainings share one semantic branch, its folds and its kept taps; those of one
seed share their error branch, and all but the shipped one have the same, shorter, budget for the detail branch. A
training that is finished is not done again, one that was killed goes on. Scores go to `results/accuracy.json`, of which
`python -m benchmarks.accuracy_tables` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.datasets import LabelledFrames, open_dataset
from errseg_rt.evaluation.bootstrap import paired_bootstrap
from errseg_rt.evaluation.error_maps import P_EP
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.sweep import THRESHOLDS
from errseg_rt.places.driver import gpu_name
from errseg_rt.system.progress import track
from errseg_rt.system.stamp import machine_stamp
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.data import RenderedData
from errseg_rt.training.evaluation import evaluate
from errseg_rt.training.folds import hold_out
from errseg_rt.training.loop import freeze, train
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.recipe_files import load_recipe
from errseg_rt.training.taps import TapStore


@dataclass(frozen=True)
class Method:
    """A row of the tables: a recipe with some values changed, and how many seeds it is trained with."""

    title: str
    recipe: str
    changes: tuple[str, ...] = ()
    seeds: int = 1


BUDGET = ("detail.iterations=400", "detail_frozen.iterations=100")  # of every method, but what is shipped
SHIPPED = Method("ours, as shipped", "camvid")
OURS = Method("ours", "camvid", BUDGET, seeds=3)
METHODS = (
    SHIPPED,
    OURS,
    Method("every pixel (control)", "camvid-every-pixel", BUDGET, seeds=3),
    Method("entropy as selector (control)", "camvid-entropy", BUDGET, seeds=3),
    Method("logit adjustment alone (control)", "camvid", ("detail.iterations=0", "detail_frozen.iterations=0")),
    Method("GAU decoder", "camvid-gau-decoder", BUDGET),
    Method("layer cascading", "camvid-layer-cascade", BUDGET),
    Method("loss-rank mining", "camvid-loss-rank", BUDGET),
    Method("bagging", "camvid-bagging", BUDGET),
    Method("DUpsampling", "camvid-dupsampling", BUDGET),
    Method("ours without residual start", "camvid", (*BUDGET, "cascade.residual=false")),
    Method("ours, cross-fitted", "camvid-crossfit", BUDGET),
    Method("ours, trained at t = 0.5", "camvid", (*BUDGET, "threshold=0.5")),
    Method("ours, trained at t = 0.8", "camvid", (*BUDGET, "threshold=0.8")),
)


def main() -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--init", type=Path, help="weights that the semantic branch starts from")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--only", nargs="*", help="titles of the methods to train; the others only if they are trained")
    parser.add_argument("--no-scores", action="store_true", help="train only")
    parser.add_argument("--json", type=Path, default=RESULTS / "accuracy.json")
    args = parser.parse_args()
    runs = {}
    for method in METHODS:
        for seed in range(1, method.seeds + 1):
            recipe = load_recipe(method.recipe, [*method.changes, f"seed={seed}"])
            out = _folder(args.runs, method, seed)
            if args.only is None or method.title in args.only:
                train(recipe, args.data, out, args.init, shared=_shared(args.runs, method, seed))
            if (out / "cascade.safetensors").exists():
                runs[method.title, seed] = (recipe, out)
    if not args.no_scores:
        results = {
            "command": f"python -m benchmarks.accuracy {' '.join(sys.argv[1:])}",
            "machine": machine_stamp(gpu_name()),
            "sets": {
                name: _score(runs, frames, args.runs / f"taps_{name}") for name, frames in _sets(args.data).items()
            },
        }
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _folder(runs: Path, method: Method, seed: int) -> Path:
    return runs / "-".join([method.recipe, *method.changes, str(seed)]).replace("=", "_")


def _shared(runs: Path, method: Method, seed: int) -> Path | None:
    """Whose semantic branch and taps a training takes, and whose error branch where that is of the same seed."""
    first, base = _folder(runs, SHIPPED, 1), _folder(runs, OURS, seed)
    if method is SHIPPED:
        return None
    if seed == 1 or method is OURS:
        _link(first, base)
        return first
    return base


def _link(source: Path, target: Path) -> None:
    """Let the trainings of another seed find the semantic branch and taps of the first."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("semantic.safetensors", "folds", "taps"):
        if (source / name).exists() and not (target / name).exists():
            (target / name).symlink_to((source / name).resolve())


def _sets(data: Path) -> dict[str, LabelledFrames]:
    recipe = load_recipe("camvid")
    frames = open_dataset(data, recipe.classes, split="train", void=recipe.data.void)
    _, held = hold_out(len(frames))
    val = open_dataset(data, recipe.classes, split="val", void=recipe.data.void)
    return {"held_out": frames.subset(held), "val": val}


def _score(
    runs: dict[tuple[str, int], tuple[Recipe, Path]], frames: LabelledFrames, taps: Path
) -> list[dict[str, Any]]:
    """Scores of every run on some frames, each beside ours of the same seed."""
    rows, ours = [], {}
    for (title, seed), (recipe, out) in runs.items():
        cascade, notes = load_cascade(out / "cascade.safetensors")
        maps = {P_EP: notes["calibration"], **notes["baseline_calibrations"]}  # fitted on the frames held out
        calibrations = {name: Calibration.from_dict(knots) for name, knots in maps.items()}
        store = TapStore(taps, frames, lambda index, cascade=cascade: cascade, recipe.input)  # type: ignore[misc]
        is_ours = title in (OURS.title, SHIPPED.title)
        scored = _evaluate(cascade, recipe, store, title, sweep=is_ours)
        counts = scored.fused.frames
        if title == OURS.title:
            ours[seed] = counts
        against = None if is_ours else paired_bootstrap(ours[seed], counts)
        row = {
            "method": title,
            "seed": seed,
            **scored.to_dict(recipe.classes, calibrations),
            "ours_minus_this": against and [against.difference, against.low, against.high],
        }
        if title == SHIPPED.title:
            row["norms"] = _norms(recipe, out, store)
        rows.append(row)
    return rows


def _evaluate(cascade: Any, recipe: Recipe, store: TapStore, title: str, *, sweep: bool = False) -> Evaluation:
    return evaluate(cascade, recipe.deployed, store, track, f"score {title}", thresholds=THRESHOLDS if sweep else ())


def _norms(recipe: Recipe, out: Path, store: TapStore) -> dict[str, float]:
    """Scores of the fused labels with GroupNorm in the detail branch, its norms just frozen, and fine-tuned.

    All before logit adjustment.
    """
    grouped, frozen, tuned = (
        load_cascade(out / f"{name}.safetensors")[0] for name in ("detail", "detail", "detail_frozen")
    )
    learned = range(len(list((out / "taps").glob("*_1.safetensors"))))
    taps = TapStore(out / "taps", learned, lambda index: frozen, recipe.input)  # type: ignore[arg-type]
    freeze(frozen, "detail", recipe, RenderedData(0), taps)
    norms = {"group norm": grouped, "frozen": frozen, "frozen, fine-tuned": tuned}
    return {name: _evaluate(cascade, recipe, store, name).fused.confusion.miou() for name, cascade in norms.items()}


if __name__ == "__main__":
    main()
