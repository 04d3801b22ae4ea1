"""One stage of `benchmarks/gpu.py`, in a process of its own: `python -m benchmarks.on_gpu.worker STAGE`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.on_gpu.record import Missing, Record
from benchmarks.on_gpu.schedule import MISSING, in_words
from benchmarks.report import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage; its log is what is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeats", type=int, default=100)
    args = parser.parse_args(arguments)
    record = Record(args.json)
    try:
        from benchmarks.on_gpu.work import on_gpu, parts_of

        parts = parts_of(args.stage, on_gpu(args.device, args.repeats, record))
    except Exception as error:
        return _failed(record, args.stage, error)
    return run_parts(args.stage, record, parts)


def run_parts(stage: str, record: Record, parts: Sequence[tuple[str, Callable[[], object]]]) -> int:
    """Run a stage's parts; one that fails is named, and the others are run all the same.

    Returns:
        Exit code: 0, 1 where a part failed, `MISSING` where one lacks what it needs.
    """
    code = 0
    for name, part in parts:
        print(f"-- {name}", flush=True)
        try:
            for found in part():
                record.add(stage, found)
                print(f"{in_words(found)}  ({found.note})" if isinstance(found, Row) else found, flush=True)
        except Missing as error:
            record.blame(stage, str(error))
            code = code or MISSING
        except Exception as error:
            code = _failed(record, stage, error, f"{name}: ")
    return code


def _failed(record: Record, stage: str, error: Exception, where: str = "") -> int:
    traceback.print_exc()
    record.blame(stage, where + (str(error) or type(error).__name__).splitlines()[0])
    return 1


if __name__ == "__main__":
    sys.exit(main())
