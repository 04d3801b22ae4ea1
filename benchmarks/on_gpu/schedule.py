"""Runs stages one after the other, each in a process group of its own, which is killed whole when its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from benchmarks.on_gpu.record import CUT_OFF, DONE, FAILED, NOT_RUN, Record
from benchmarks.on_gpu.stages import Stage, seconds_for
from benchmarks.report import Row

MISSING = 77
"""Exit code of a stage that lacks what it needs."""
_HELD = 3  # seconds that a process which was killed is waited for
_TAIL = 12  # lines of the log that are shown where a stage failed


def run_stages(
    stages: Sequence[Stage],
    record: Record,
    command: Callable[[str], Sequence[str]],
    *,
    deadline: float,
    variables: Mapping[str, str],
    root: Path,
) -> list[str]:
    """Run stages until a deadline.

    Args:
        stages: In their order.
        record: What they find; each stage's process adds to it.
        command: Of a stage's process, by name: its exit code is 0, or `MISSING`, or another where something failed.
        deadline: As `time.monotonic` has it.
        variables: Of the environment of these processes.
        root: Their working folder.

    Returns:
        A line for each stage.
    """
    log, lines = record.path.with_suffix(".log"), []
    with log.open("w", encoding="utf-8") as out:
        for index, stage in enumerate(stages):
            left = deadline - time.monotonic()
            seconds = seconds_for(stages[index:], left)
            if seconds is None:
                record.skip(stage.name, f"{max(left, 0):.0f} s are left, it wants {stage.least:.0f}")
                lines.append(f"{stage.name}: not run, {max(left, 0):.0f} s are left and it wants {stage.least:.0f}")
                print(lines[-1], flush=True)
                continue
            print(f"== {stage.name}, up to {seconds:.0f} s: {stage.shows}", flush=True)
            print(f"\n== {stage.name}", file=out, flush=True)
            begin, size = time.monotonic(), log.stat().st_size
            record.begin(stage.name)
            code: int | None = None
            try:
                code = _run(command(stage.name), seconds, out, variables, root)
            finally:  # also where this process is ended
                took = time.monotonic() - begin
                record.end(stage.name, _state(code), took)
                _blame(record, stage.name, code)
                lines.append(line_of(record, stage.name))
                if code not in (0, MISSING):
                    print("\n".join(_tail(log, size)), flush=True)
                for row in record.rows(stage.name):
                    print(f"   {in_words(row)}")
                print(lines[-1], flush=True)
    return lines


def line_of(record: Record, name: str) -> str:
    """What became of a stage, in a line."""
    stage, rows = record.read()["stages"][name], record.rows(name)
    state, seconds, why = stage["state"], stage["seconds"], "; ".join(stage["why"])
    if state == NOT_RUN:
        return f"{name}: not run, {why}"
    showed = "; ".join([*stage["showed"], *([f"{len(rows)} rows"] if rows else [])])
    return f"{name}: {state} after {seconds:.0f} s{f': {why}' if why else ''}{f'; {showed}' if showed else ''}"


def in_words(row: Row) -> str:
    """One line, without its note."""
    against = "" if row.ratio is None else f"  {row.ratio:.2f} x better than {row.baseline:.4g} {row.unit}"
    return f"{row.name}: {row.value:.4g} {row.unit}{against}"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM unwind this process as an interrupt does, so that a running stage is ended and recorded."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(command: Sequence[str], seconds: float, out: IO[str], variables: Mapping[str, str], root: Path) -> int | None:
    """The exit code of a process, below zero for a signal; None where its time was over."""
    # A process group, and not a session, so that what ends this command's session ends them, too.
    group: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}
    process = subprocess.Popen(
        command, cwd=root, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **group
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):  # of those that it started, some may have outlived it
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a driver may hold on to it
            process.wait(_HELD)


def _state(code: int | None) -> str:
    return {None: CUT_OFF, 0: DONE, MISSING: NOT_RUN}.get(code, FAILED)


def _blame(record: Record, name: str, code: int | None) -> None:
    """Say why a process failed that could not say so itself."""
    if code in (None, 0, MISSING) or record.read()["stages"][name]["why"]:
        return
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    record.blame(name, f"its process ended with {how}; see {record.path.with_suffix('.log').name}")


def _tail(log: Path, begin: int) -> list[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(begin)
        return [f"   | {line.rstrip()[:200]}" for line in file.readlines()[-_TAIL:]]
