"""Does `errseg-rt video` use the machine, does a camera stay near, and does a stream keep its memory?

    python -m benchmarks.video

Linux only. A rendered street of 480x360 is encoded ahead. Throughput is held, round by round, against the ideal, which
is 1 / (time to segment a frame on all cores + CPU time to decode, draw and encode it / cores), and against a plain loop
with the same encoder. For latency, the RTSP server of the tests (Debian's GStreamer) gives four times as many frames as
can be segmented; each picture tells when it was made. For memory, a stream goes over the clip again and again.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.many_frames import state
from benchmarks.report import Row, finish
from errseg_rt import Runtime
from errseg_rt.scenes import StreetScene
from errseg_rt.system.cores import usable_cores
from errseg_rt.video.clip import ClipWriter
from errseg_rt.video.drawing import drawn
from errseg_rt.video.files import FileSource
from errseg_rt.video.open import open_source
from errseg_rt.video.record import Recorder

HEIGHT, WIDTH = 360, 480
VIEW = "side-by-side"
SERVER = Path(__file__).parents[1] / "tests/video/rtsp_server.py"
PORT = 18554
WARM = 120.0  # seconds of the soak until memory is looked at
NEVER = threading.Event()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=150, help="of the clip")
    parser.add_argument("--rounds", type=int, default=7, help="of throughput")
    parser.add_argument("--live", type=float, default=300, help="seconds of a camera; 0: none")
    parser.add_argument("--soak", type=float, default=1800, help="seconds of a stream; 0: none")
    args, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, Runtime() as runtime:
        runtime.warm_up()
        clip = rendered(Path(folder) / "street.mp4", args.frames)
        rows = throughput(runtime, clip, args.rounds)
        if args.live:
            rows += latency(runtime, args.live)
        if args.soak:
            rows += soak(runtime, clip, min(WARM, args.soak / 3), args.soak)
    finish(rows, "video", rest)


def rendered(path: Path, count: int) -> Path:
    """A clip of a street."""
    scene = StreetScene(5, HEIGHT, WIDTH, 25)
    with ClipWriter(path) as writer:
        for index in range(count):
            writer.write(scene.frame(index).frame, index / 25)
    return path


def throughput(runtime: Runtime, clip: Path, rounds: int) -> list[Row]:
    """Frames a second of the stream, of the ideal and of a plain loop, in turn."""
    frames = [picture.frame for picture in FileSource(clip).pictures(NEVER)]
    results = [runtime.segment(frame) for frame in frames]
    pictures = [drawn(VIEW, frame, result, 0.0) for frame, result in zip(frames, results, strict=True)]
    out = clip.with_name("out.mp4")

    def encode() -> None:
        with ClipWriter(out) as writer:
            for index, picture in enumerate(pictures):
                writer.write(picture, index / 25)

    def plain() -> None:
        with ClipWriter(out) as writer:
            for picture in FileSource(clip).pictures(NEVER):
                shown = drawn(VIEW, picture.frame, runtime.segment(picture.frame), picture.timestamp)
                writer.write(shown, picture.timestamp)

    def streamed() -> None:
        recorder = Recorder(out.parent, "out", out, view=VIEW)
        with runtime.stream(clip) as stream, recorder:
            for shot in stream:
                recorder.write(shot)

    parts: dict[str, tuple[Callable[[], Any], Callable[[], float]]] = {
        "segment": (lambda: [runtime.segment(frame) for frame in frames], time.perf_counter),
        "decode": (lambda: list(FileSource(clip).pictures(NEVER)), time.process_time),
        "draw": (lambda: [drawn(VIEW, f, r, 0.0) for f, r in zip(frames, results, strict=True)], time.process_time),
        "encode": (encode, time.process_time),
        "plain": (plain, time.perf_counter),
        "streamed": (streamed, time.perf_counter),
    }
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, (function, clock) in parts.items():
            begun = clock()
            function()
            if number:  # the first round warms up
                taken[name].append((clock() - begun) / len(frames))
    times = {name: np.array(values) for name, values in taken.items()}
    ideal = times["segment"] + (times["decode"] + times["draw"] + times["encode"]) / usable_cores()
    of_parts = ", ".join(
        f"{name} {1000 * np.median(times[name]):.1f}" for name in ("segment", "decode", "draw", "encode")
    )
    return [
        _against("video/throughput/ideal", times["streamed"], ideal, f"bar: 0.95; ms a frame: {of_parts}"),
        _against("video/throughput/plain_loop", times["streamed"], times["plain"], "bar: 1.1; the same encoder"),
    ]


def _against(name: str, ours: np.ndarray, theirs: np.ndarray, note: str) -> Row:
    low, middle, high = (float(q) for q in np.quantile(theirs / ours, (0.1, 0.5, 0.9)))
    fps, baseline = float(1 / np.median(ours)), float(1 / np.median(theirs))
    return Row(name, fps, "frames/s", baseline, middle, (low, middle, high), f"{note}; {len(ours)} rounds")


def latency(runtime: Runtime, seconds: float) -> list[Row]:
    """From picture to result, of a camera that is four times too fast."""
    frame = StreetScene(5, HEIGHT, WIDTH, 25).frame(0).frame
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        runtime.segment(frame)
        times.append(time.perf_counter() - begun)
    segment = float(np.median(times))
    fps = round(4 / segment)
    command = ["/usr/bin/python3", str(SERVER), str(PORT), "h264", str(WIDTH), str(HEIGHT), str(fps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            server.stdout.readline()  # it listens
            ages, ends = _ages(runtime, seconds)
        finally:
            server.kill()
    settled = ages[ends > 10]  # what had been waiting while the stream was opened is over
    minute = min(60.0, seconds / 3)
    first, last = ages[(ends > 10) & (ends < 10 + minute)], ages[ends > ends[-1] - minute]
    low, middle, high = (float(q / segment) for q in np.quantile(settled, (0.1, 0.5, 0.95)))
    growth = float(np.median(last) / np.median(first))
    note = f"10th, 50th and 95th percentile; of {fps} frames/s, segmented in {1000 * segment:.1f} ms; bar: 3 such times"
    return [
        Row("video/latency/p95", high, "segment times", quantiles=(low, middle, high), note=note),
        Row("video/latency/growth", growth, "times", note=f"last minute of {seconds:g} s over the first; bar: 1.1"),
    ]


def _ages(runtime: Runtime, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Ages of pictures when their results were there, and when that was; both in seconds."""
    ages, ends, begun = [], [], time.monotonic()
    with runtime.stream(f"rtsp://127.0.0.1:{PORT}/cam") as stream:
        for shot in stream:
            millis = int(time.time() * 1000)
            ages.append(((millis - _made_at(shot.frame)) % 86_400_000) / 1000)
            ends.append(time.monotonic() - begun)
            if ends[-1] > seconds:
                break
    return np.array(ages), np.array(ends)


def _made_at(frame: np.ndarray) -> int:
    """Milliseconds of the day, as 32 bars below the first quarter of the server's picture tell them."""
    levels = frame[3 * frame.shape[0] // 8, [(2 * bit + 1) * frame.shape[1] // 64 for bit in range(32)]].mean(1)
    return sum(1 << bit for bit, level in enumerate(levels) if level > 125)


def soak(
    runtime: Runtime, clip: Path, warm: float, end: float, clock: Callable[[], float] = time.monotonic
) -> list[Row]:
    """Resident memory, threads and handles of a stream and what it writes, soon after its begin and at its end.

    Args:
        runtime: Of the stream.
        clip: Is opened again and again; what is written lies beside it.
        warm: Seconds until what the process holds is looked at first.
        end: Seconds of it all.
        clock: Is asked once for each frame; in tests, it counts them.
    """
    begun = clock()
    before: tuple[float, int, int] | None = None
    out = clip.with_name("soak.mp4")
    with (
        runtime.stream(_again_and_again(clip)) as stream,
        Recorder(out.parent, "soak", out, view=VIEW, also=("lines",)) as to,
    ):
        for shot in stream:
            to.write(shot)
            passed = clock() - begun
            if before is None and passed > warm:
                before = state()
            if passed > end:
                break
        after = state()
    first = before or after
    note = f"from {warm:g} to {end:g} s, {stream.stats.segmented} frames; bar: 2 %"
    return [
        Row("video/soak/memory_growth", 100 * (after[0] / first[0] - 1), "%", note=note),
        *(Row(f"video/soak/{what}", after[at], what, first[at]) for at, what in ((1, "threads"), (2, "handles"))),
    ]


def _again_and_again(clip: Path) -> Iterator[tuple[np.ndarray, float]]:
    source: Any = open_source(clip)
    length = (source.length or 1) / 25
    for turn in itertools.count():
        for picture in source.pictures(NEVER):
            yield picture.frame, turn * length + picture.timestamp


if __name__ == "__main__":
    main()
