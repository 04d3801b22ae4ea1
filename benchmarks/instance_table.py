"""What each part of Wu et al.'s system is worth, as the paper's Table 6 has it, on data of one's own.

    python -m benchmarks.instance_table nuclei --data split --runs runs --seeds 1 2 3 --json table.json

`--data` has `train/` and `val/`, each with `images/` and `instances/`. Of each seed, the recipes NAME-plain,
NAME-bootstrapped and NAME are trained, exported, and scored on `val/`; the last one once more with what its cascade
labels again, and that ranked by the error map, too. Beside these stand pieces of the class map and its watershed, of
the same labels. Differences have the intervals of a paired bootstrap over frames, the widest of the seeds'. A run that
is there already is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.instance_baselines import connected_components, watershed
from benchmarks.instance_methods import RANKED, Method, Subset, difference, scored, tuned
from errseg_rt.datasets import open_labelled
from errseg_rt.evaluation import InstanceScores
from errseg_rt.runtime import Runtime
from errseg_rt.system.atomic import write_json
from errseg_rt.system.stamp import machine_stamp

CASCADE = "+ fused class maps"
ROUNDS = (
    ("plain", "-plain", 0.0),
    ("+ bootstrapping", "-bootstrapped", 0.0),
    ("+ weighted loss", "", 0.0),
    (CASCADE, "", None),
)
"""What a row is called, how its recipe's name ends, and the budget of its detail branch; None: what it flags."""
BASELINES = ("components", "watershed")
TUNED_ON = 12  # frames, spread over those that were learned from
SHOWN = ("map_r_0.5", "map_r_0.7", "map_r_vol")


def bundle_of(recipe: str, seed: int, data: Path, runs: Path, changes: Sequence[str], init: Path | None) -> Path:
    """The bundle of a recipe and a seed, trained and exported where it is not there yet."""
    run = runs / f"{recipe}-{seed}"
    bundle = run.with_name(f"{run.name}.bundle")
    if not (bundle / "manifest.json").exists():
        sets = [word for change in changes for word in ("--set", change)]
        start = ["--init", str(init)] if init else []
        _command("train", recipe, "--data", str(data), "-o", str(run), "--seed", str(seed), *sets, *start)
        _command("export", str(run / "cascade.safetensors"), "-o", str(bundle))
    return bundle


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-c", "from errseg_rt.cli import main; main()", *words], check=True)


def scores_of(bundle: Path, budget: float | None, data: Path) -> dict[str, InstanceScores]:
    """Scores of a bundle and, where its whole cascade runs, of the baselines on its labels.

    The watershed's parameters are those that are best on frames that were learned from.
    """
    with Runtime(bundle, budget=budget, threads=1) as runtime:
        classes, things = runtime.manifest.classes, runtime.manifest.things
        methods: dict[str, Method] = {}
        if budget is None:
            learned = open_labelled(data / "train", classes, things=things)
            dozen = np.unique(np.linspace(0, len(learned) - 1, min(TUNED_ON, len(learned))).round().astype(int))
            best = tuned(runtime, Subset(learned, dozen.tolist()))
            methods = {"components": connected_components, "watershed": partial(watershed, **best)}
        return scored(runtime, open_labelled(data / "val", classes, things=things), methods)


def table(found: Mapping[tuple[str, int], Mapping[str, InstanceScores]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each part and each baseline: the mean over seeds, their range, and what it gains over the row before.

    Args:
        found: Scores of the bundle and the baselines, by the name of a row and the seed.
        seeds: Those that all rows have.
    """
    rows, before = [], ""
    listed = [(name, name, "bundle", before) for name, before in _with_before([row[0] for row in ROUNDS])]
    listed.append(("+ ranked by the error map", CASCADE, RANKED, CASCADE))
    listed += [(f"{method} of its labels", CASCADE, method, CASCADE) for method in BASELINES]
    for shown, name, method, before in listed:
        scores = [found[name, seed][method] for seed in seeds]
        row: dict[str, Any] = {"name": shown, "seeds": list(seeds)}
        for score, at in zip(SHOWN, ([0.5], [0.7], None), strict=True):
            of_seeds = [100 * (each.map_r(at) if at else each.map_r() or 0) for each in scores]  # type: ignore[operator]
            row[score] = {"mean": float(np.mean(of_seeds)), "seeds": of_seeds}
        if before:
            pairs = [difference(each, found[before, seed]["bundle"]) for each, seed in zip(scores, seeds, strict=True)]
            row["gain"] = {
                "over": before,
                "map_r_0.5": [100 * pair.difference for pair in pairs if pair],
                "intervals": [[pair.low, pair.high] for pair in pairs if pair],
            }
        rows.append(row)
    return rows


def _with_before(names: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(names, ("", *names[:-1]), strict=True))


def line(row: Mapping[str, Any]) -> str:
    """A line of the table, in Markdown: means and ranges of the seeds, and the gain with the widest interval."""
    cells = [f"{row[of]['mean']:.1f} ({min(row[of]['seeds']):.1f} to {max(row[of]['seeds']):.1f})" for of in SHOWN]
    gain = row.get("gain")
    if gain and gain["map_r_0.5"]:
        ends = [end for pair in gain["intervals"] for end in pair if end is not None]
        between = f" ({100 * min(ends):+.1f} to {100 * max(ends):+.1f})" if ends else ""
        cells.append(f"{np.mean(gain['map_r_0.5']):+.1f}{between}")
    else:
        cells.append("")
    return f"| {' | '.join([row['name'], *cells])} |"


def main() -> None:
    """Train what is missing, score, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the last row's; those of the others end in -plain and -bootstrapped")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of trainings and bundles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="as of errseg-rt train")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, int], dict[str, InstanceScores]] = {}
    for seed in args.seeds:
        for name, ending, budget in ROUNDS:
            # Only the last row looks at what the branches beside the localization head have learned.
            recipe = f"{args.recipe}{ending}"
            changes = [*args.changes, *(_NO_BRANCHES if ending else ())]
            bundle = bundle_of(recipe, seed, args.data, args.runs, changes, args.init)
            found[name, seed] = scores_of(bundle, budget, args.data)
            score = found[name, seed]["bundle"].map_r([0.5])
            print(f"seed {seed}, {name}: mAP^r at 0.5 {100 * (score or 0):.1f}", flush=True)
    rows = table(found, args.seeds)
    print("| | mAP^r 0.5, % | 0.7 | vol | gain at 0.5 |\n| --- | --- | --- | --- | --- |", *map(line, rows), sep="\n")
    if args.json:
        settings = {"recipe": args.recipe, "set": args.changes, "data": str(args.data)}
        write_json(args.json, {**settings, "rows": rows, "machine": machine_stamp(None)})


_NO_BRANCHES = tuple(
    f"{stage}.{what}=1"
    for stage in ("error", "detail", "error_frozen", "detail_frozen")
    for what in ("iterations", "checkpoint_every")
)


if __name__ == "__main__":
    main()
