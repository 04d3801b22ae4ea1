"""Runs a command, and kills copies of it at many moments: `killing.py SPEC`.

SPEC is JSON: `arguments` of errseg-rt, `start` (a folder that each run gets a copy of, as its working directory),
`runs` (where these copies lie), `moments` (how many kills), `again` and `seed`. The run `whole` is not killed. A second
run forks at touches of the file system that chance draws, and the fork is killed a few calls later: before a file is
opened, while it is empty, half written, before and after it is renamed. What it left becomes run `00`, `01`, ..., and
the run goes on from what was there before. Afterwards the command is started in the first `again` of these once more,
unkilled. How often files were touched, and exit codes of runs that were not killed, are printed as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_TOUCHES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MOST_CALLS = 40  # from a touch to the kill
_SECONDS = 2  # of a fork that waits for a thread which it does not have

Touched = Callable[[int], None]


def main() -> None:
    """Run all that the specification asks for."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    start, runs = Path(spec["start"]), Path(spec["runs"])
    load()
    if spec["arguments"][0] == "export":
        trace(start / spec["arguments"][1])
    touches, code = run(start, runs / "whole", spec["arguments"], lambda touch: None)
    codes, rng = {"whole": code}, random.Random(spec["seed"])
    moments = sorted(rng.randrange(touches) for _ in range(spec["moments"])) if touches else []
    place = runs / "work"

    def kill(touch: int) -> None:
        for number in (number for number, moment in enumerate(moments) if moment == touch):
            kept = runs / "kept"
            shutil.copytree(place, kept)
            calls = random.Random(number).randrange(_MOST_CALLS)
            child = os.fork()
            if child == 0:
                signal.alarm(_SECONDS)
                _kill_after(calls)
                return  # the fork goes on as if nothing had been
            os.waitpid(child, 0)
            shutil.copytree(place, runs / f"{number:02d}")
            _empty(place)
            shutil.copytree(kept, place, dirs_exist_ok=True)
            shutil.rmtree(kept)

    codes["work"] = run(start, place, spec["arguments"], kill)[1]
    for number in range(spec["again"]):
        codes[f"{number:02d}"] = run(None, runs / f"{number:02d}", spec["arguments"], lambda touch: None)[1]
    print(json.dumps({"touches": touches, "codes": codes}))


def load() -> None:
    """Load what every run would load, without starting a thread that a fork would lose."""
    import numpy as np

    import errseg_rt.cli.app  # noqa: F401
    from errseg_rt.runtime import Runtime

    with Runtime(threads=1) as runtime:
        runtime.segment(np.zeros((32, 48, 3), np.uint8), semantic=True)


def trace(checkpoint: Path) -> None:
    """Have torch export a checkpoint's graphs here, once: it takes half a minute, and touches no file of a run's."""
    from errseg_rt.export import bundle

    export, graphs = bundle.export_graphs, {}

    def known(*given: Any) -> dict[str, bytes]:
        if not graphs:
            graphs.update(export(*given))
        return graphs

    bundle.export_graphs = known
    with TemporaryDirectory() as folder:
        bundle.export_bundle(checkpoint, Path(folder) / "bundle", "known")


def run(start: Path | None, place: Path, arguments: list[str], touched: Touched) -> tuple[int, int]:
    """One run in a copy of `start`, or where it lies; how often it touched its files, and its exit code."""
    if start is not None:
        shutil.copytree(start, place)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_run(place, arguments, touched, writing)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        touches = pipe.read()
    return int(touches or 0), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_run(place: Path, arguments: list[str], touched: Touched, writing: int) -> None:
    """The child: never returns."""
    from errseg_rt.cli.app import main as command

    code, count = 70, 0
    try:
        os.chdir(place)
        log = os.open(place.with_name(place.name + ".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)

        def counted(touch: int) -> None:
            nonlocal count
            count = touch + 1
            touched(touch)

        _watch(place.resolve(), counted)
        try:
            command(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        os.write(writing, str(count).encode())
    except BaseException:  # a fork must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(place: Path, touched: Touched) -> None:
    """Have `touched` called, with its number, before each touch of what lies below a folder."""
    number, is_busy = 0, False

    def hook(event: str, found: tuple[object, ...]) -> None:
        nonlocal number, is_busy
        is_write = event == "open" and isinstance(found[2], int) and bool(found[2] & _WRITES)
        if is_busy or not (is_write or event in _TOUCHES) or not isinstance(found[0], (str, bytes, os.PathLike)):
            return
        if os.path.abspath(os.fsdecode(found[0])).startswith(f"{place}{os.sep}"):
            is_busy = True  # what is done about a touch touches, too
            touched(number)
            number, is_busy = number + 1, False

    sys.addaudithook(hook)


def _kill_after(calls: int) -> None:
    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    main()
