"""Batches that are killed in the middle, and what must be there afterwards; on processes and on Ray alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

PROGRAM = "from errseg_rt.cli import main; main()"
SECONDS = 300.0  # until what must come has come; Ray alone may need two minutes to start on a busy machine


def write_images(folder: Path, frame: np.ndarray, count: int) -> list[str]:
    """Images that differ; their names without suffix."""
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.roll(frame, 3 * index, axis=1))
    return [f"{index:02d}" for index in range(count)]


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, "batch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(out: Path) -> dict[str, dict]:
    """What is noted of each file that is done, by name."""
    return {path.name[: -len("_result.json")]: json.loads(path.read_text()) for path in out.glob("*_result.json")}


def until(is_so: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, "it never was so"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def process_state(number: int) -> str:
    """As Linux tells it: `S` sleeps, `Z` has ended."""
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]


def is_alive(worker: str) -> bool:
    try:
        os.kill(int(worker.rpartition(":")[2]), 0)
    except ProcessLookupError:
        return False
    return process_state(int(worker.rpartition(":")[2])) != "Z"  # nobody has waited for it


def kill_a_worker(process: subprocess.Popen[str], out: Path) -> str:
    """Kill a worker once some files are done; its name."""
    until(lambda: len(records(out)) >= 3, process)
    worker = next(iter(records(out).values()))["worker"]
    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
    return worker


def kill_the_driver(process: subprocess.Popen[str], out: Path) -> dict[str, dict]:
    """Kill the driver once some files are done, and wait until its workers are gone; what is noted then."""
    until(lambda: len(records(out)) >= 3, process)
    process.kill()
    process.communicate()
    workers = {entry["worker"] for entry in records(out).values()}
    until(lambda: not any(is_alive(worker) for worker in workers))
    return records(out)


def check_whole(out: Path, names: Sequence[str]) -> None:
    """Each image has one whole result, and nothing else is there that is whole."""
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    ends = ("_colors.png", "_error.png", "_labels.png", "_overlay.png", "_result.json")
    wanted = [f"{name}{end}" for name in names for end in ends]
    assert [name for name in found if not name.startswith(("index.", "summary."))] == sorted(wanted)
    for name in wanted:
        assert name.endswith(".json") or cv2.imread(str(out / name)) is not None
