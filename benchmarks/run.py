"""Run every benchmark of the cascade as it is shipped, in fp32 on the CPU, and write one report with a plot.

    python benchmarks/run.py --json report.json --frames camvid/val/images cityscapes/leftImg8bit/train/aachen

Scripts run one after the other, each in a process of its own; one that fails is named, and the others are run. Apart
from these, each with a JSON of its own, stand `precision`, which builds int8 graphs first and pays for their speed with
labels, `large_frames`, which is about a choice, `instances`, about what only some bundles have, `gpu`, which wants a
GPU, and `accuracy`, which wants trainings.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose `select` would hide Python's
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import RESULTS

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("import_time", "memory", "fuse_labels", "select", "refine", "front_graph", "cascade")
PAIRED = ("fuse_labels", "refine", "cascade")


def main() -> int:
    """Run and write; the exit code is the number of scripts that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "report.json")
    parser.add_argument("--frames", nargs="*", default=[], help="folders of real frames, for the cascade")
    parser.add_argument("--pairs", type=int, help="how often fusion, refinement and the cascade are timed, each")
    parser.add_argument("--only", nargs="*", choices=SCRIPTS, default=SCRIPTS)
    args = parser.parse_args()
    reports, failed = [], []
    for script in args.only:
        extra = ["--frames", *map(os.path.abspath, args.frames)] if script == "cascade" and args.frames else []
        extra += ["--pairs", str(args.pairs)] if script in PAIRED and args.pairs else []
        print(f"== {script}", flush=True)
        report = _run(script, extra)
        if report is None:
            failed.append(script)
        else:
            reports.append(report)
    rows = [row for report in reports for row in report["rows"]]
    content = {"machine": reports[0]["machine"] if reports else None, "failed": failed, "rows": rows}
    args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _plot(rows, args.json.with_suffix(".png"))
    print(f"{args.json}: {len(rows)} rows" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return len(failed)


def _run(script: str, extra: Sequence[str]) -> dict[str, Any] | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"benchmarks.{script}", "--json", str(path), *extra]
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            return None
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report


def _plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of the ratios, with their 10th and 90th percentile."""
    import matplotlib.pyplot as plt
    import numpy as np

    compared = [row for row in rows if row["ratio"] and row["quantiles"]]
    ratios = np.array([row["ratio"] for row in compared])
    ends = np.array([(row["quantiles"][0], row["quantiles"][2]) for row in compared]).reshape(-1, 2)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.35 * len(compared)), layout="constrained")
    spread = np.abs(ends.T - ratios) if len(compared) else None
    axes.barh([row["name"] for row in compared], ratios, xerr=spread, color="tab:blue", ecolor="black")
    axes.axvline(1, color="gray", linewidth=1)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times better than the baseline")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
