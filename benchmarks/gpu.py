"""Everything there is to check and to measure on an NVIDIA GPU, in one command; one JSON, one log, one plot.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --only tensorrt

Stages are run one after the other, correctness before any time, each in a process of its own with a limit of its own;
all of them end within --minutes. What a machine lacks (TensorRT, cuda-core) is named with its reason. The JSON is whole
after every row, and a stage that is not run again keeps what an earlier run found. Without a GPU there is nothing to
measure: one line, and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and Path(sys.path[0]).name == "benchmarks":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # that folder's `select` would hide Python's

import argparse
import os
import time
from collections.abc import Sequence
from importlib import util
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.on_gpu.plot import plot
from benchmarks.on_gpu.record import CUT_OFF, FAILED, Record
from benchmarks.on_gpu.schedule import ended_by_signals, run_stages
from benchmarks.on_gpu.stages import NAMES, STAGES, Stage
from benchmarks.report import RESULTS
from errseg_rt.system.stamp import machine_stamp, version_of

ROOT = Path(__file__).resolve().parents[1]
_END = 10
"""Seconds that are kept for the plot, and for what ends late."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure and write; the exit code is 2 without a GPU, and 1 where a stage failed or was cut off."""
    begin = time.monotonic()
    args = _parser().parse_args(arguments)
    fault = why_not(args.device)
    if fault:
        print(f"benchmarks/gpu.py: nothing was measured: {fault}")
        return 2
    record = Record(args.json)
    try:
        record.open(stamp(args.device))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"benchmarks/gpu.py: nothing was measured: {str(error).splitlines()[0]}")
        return 2
    stages = [stage for stage in STAGES if stage.name in args.only]
    worker = [sys.executable, "-m", "benchmarks.on_gpu.worker", "--json", str(args.json.resolve())]
    options = ["--device", args.device, "--repeats", str(args.repeats)]
    return run(stages, record, [*worker, *options], begin + 60 * args.minutes)


def run(stages: Sequence[Stage], record: Record, worker: Sequence[str], deadline: float) -> int:
    """Run stages until shortly before a deadline.

    Args:
        stages: In their order.
        record: What they find, opened.
        worker: A command that runs the stage whose name is put behind it.
        deadline: As `time.monotonic` has it.

    Returns:
        Exit code.
    """
    with TemporaryDirectory() as folder, ended_by_signals():
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = dict(os.environ) | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
        variables.pop("TRITON_INTERPRET", None)
        lines = run_stages(
            stages, record, lambda name: [*worker, name], deadline=deadline - _END, variables=variables, root=ROOT
        )
    rows, machine = record.rows(), record.read()["machine"]
    if rows and time.monotonic() < deadline - 0.5 * _END:
        try:
            plot(rows, f"{machine['gpu']['name']}, {machine['date']}", record.path.with_suffix(".png"))
        except Exception as error:  # the figures are there
            print(f"no plot: {error}")
    print("\n".join([f"{record.path}: {len(rows)} rows", *lines]))
    states = {record.read()["stages"][stage.name]["state"] for stage in stages}
    return int(bool(states & {FAILED, CUT_OFF}))


def why_not(device: str) -> str | None:
    """Why there is no GPU to measure on; None where there is one."""
    try:
        import torch
    except ImportError as error:
        return f"torch is not installed ({error})"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no NVIDIA GPU here"
    if util.find_spec("triton") is None:
        return "triton is not installed, which the kernels are written in"
    index = torch.device(device).index or 0
    return None if index < torch.cuda.device_count() else f"there is no {device}"


def stamp(device: str) -> dict[str, Any]:
    """What figures are taken on."""
    import torch

    properties = torch.cuda.get_device_properties(torch.device(device).index or 0)
    return {
        **machine_stamp(None),
        "gpu": {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_GB": properties.total_memory / 1e9,
        },
        "gpu_packages": {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            **{name: version_of(name) for name in ("cuda-core", "tensorrt", "triton")},
        },
    }


def _parser() -> argparse.ArgumentParser:
    shown = "\n".join(f"  {each.name:14}{'* ' * each.by_name}{each.shows}" for each in STAGES)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"stages, in their order (* only where --only names it):\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = os.environ.get("OUT")  # where it is set, what is written elsewhere may be lost
    parser.add_argument("--json", type=Path, default=Path(out or RESULTS) / "gpu.json", metavar="FILE",
                        help="log and plot lie beside it; default: gpu.json in the folder that the variable OUT "
                        "names, or in benchmarks/results")  # fmt: skip
    parser.add_argument("--minutes", type=_minutes, default=9.0, help="all of it ends within; default: 9")
    parser.add_argument("--only", type=_names, default=[each.name for each in STAGES if not each.by_name],
                        metavar="STAGE[,STAGE]", help="default: all but those with a star")  # fmt: skip
    parser.add_argument("--device", default="cuda:0", help="cuda:N")
    parser.add_argument("--repeats", type=int, default=100, help="frames that are timed one by one")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'that'} is none of {', '.join(NAMES)}")
    return names


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 1e4:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
