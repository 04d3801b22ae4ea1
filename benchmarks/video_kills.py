"""What does a kill of `errseg-rt video` at any moment cost of the clip?

    python -m benchmarks.video_kills

Linux only. A rendered street with a sound is segmented again and again, and each time killed (SIGKILL) at a moment that
chance draws. What had been written by then is told by the lines of JSON, of which none waits in a buffer; what plays of
`NAME.partial.mp4` is what FFmpeg decodes of it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Row, finish
from errseg_rt.errors import SourceError
from errseg_rt.scenes import StreetScene
from errseg_rt.video.clip import ClipWriter
from errseg_rt.video.files import FileSource
from tests.video.clips import write_clip

FPS = 25
BEGIN = 60.0  # seconds until the first frame must be written


def main() -> None:
    """Kill and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=10, help="of the clip")
    parser.add_argument("--seed", type=int, default=0)
    args, rest = parser.parse_known_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        clip = street(Path(name), args.seconds)
        takes = _killed(clip, Path(name) / "whole", float("inf"))[0]
        found = [_killed(clip, Path(name) / str(n), chance.uniform(0, takes))[1:] for n in range(args.kills)]
    finish(rows(found), "video_kills", rest)


def street(folder: Path, seconds: int) -> Path:
    """A clip of a street, 320x240, with a sound."""
    scene = StreetScene(5, 240, 320, FPS)
    with ClipWriter(folder / "street.mp4", write_clip(folder / "tone.mp4", [0.0, seconds], sound=True)) as writer:
        for index in range(seconds * FPS):
            writer.write(scene.frame(index).frame, index / FPS)
    return folder / "street.mp4"


def _killed(clip: Path, out: Path, after: float) -> tuple[float, float, float]:
    """A run that is killed so many seconds after its first frame.

    Returns: how many seconds it ran from then on, and how many of the clip had been written, and play.
    """
    command = [sys.executable, "-c", "from errseg_rt.cli import main; main()", "video", str(clip), "-o", str(out)]
    lines = out / "street.jsonl"
    with subprocess.Popen([*command, "--also", "lines"], stdout=subprocess.DEVNULL) as process:
        due = time.monotonic() + BEGIN
        while not (lines.exists() and lines.stat().st_size):
            if process.poll() is not None or time.monotonic() > due:
                process.kill()
                raise SystemExit(f"no frame was written within {BEGIN:g} seconds; exit code {process.poll()}")
            time.sleep(0.005)
        begun = time.monotonic()
        try:
            process.wait(None if after == float("inf") else after)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        ran = time.monotonic() - begun
    written = [json.loads(line)["timestamp"] + 1 / FPS for line in lines.read_text().split("\n")[:-1]]
    partial = out / "street.partial.mp4"
    return ran, written[-1], _plays(partial if partial.exists() else out / "street.mp4")


def _plays(path: Path) -> float:
    """How many seconds of a clip play; none of one that has no header yet."""
    try:
        return max(picture.timestamp for picture in FileSource(path).pictures(threading.Event())) + 1 / FPS
    except SourceError:
        return 0.0


def rows(found: list[tuple[float, float]]) -> list[Row]:
    """What kills cost, of how many seconds had been written and how many play."""
    written, plays = np.array(found).T
    missing = np.maximum(0.0, written - plays)
    low, middle, high = (float(q) for q in np.quantile(missing, (0.1, 0.5, 0.9)))
    note = f"of {len(found)} kills, after {written.min():.1f} to {written.max():.1f} s of the clip; bar: 2"
    early = written[plays == 0]
    none = "none" if not len(early) else f"{len(early)}, of which {early.max():.2f} s at most had been written"
    return [
        Row("video/kills/missing", float(missing.max()), "s", quantiles=(low, middle, high), note=f"most; {note}"),
        Row("video/kills/play", float((plays > 0).mean()), "share", note=f"nothing plays of: {none}"),
    ]


if __name__ == "__main__":
    main()
