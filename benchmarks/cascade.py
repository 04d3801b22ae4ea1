"""What does the cascade cost: over its semantic branch, and beside a plain network? And do budgets and deadlines hold?

    python -m benchmarks.cascade --frames camvid/val/images cityscapes/leftImg8bit/train/aachen

Without `--frames`, rendered streets stand in for real ones. Whoever has labels of a plain network pays for its
post-processing: `vs_plain_network` is the time of a whole cascade, as a share of the time from a frame to labels by the
semantic branch alone in ONNX Runtime, then torch or NumPy and OpenCV. Of each frame all are timed in turn, on the same
threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.plain_network import Frame, PlainNetwork, image_of, semantic_graph
from benchmarks.report import Row, finish, spread
from errseg_rt import Runtime
from errseg_rt.datasets.inputs import find_images
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.frames.reading import read_frame
from errseg_rt.scenes import StreetScene
from errseg_rt.system.cores import usable_cores

SIZES = {"480x360": (360, 480), "1024x2048": (1024, 2048)}
SEEDS = 4
SHARE = 0.1  # the budget that is tried, of the dense stage
ROOM = 1.1  # the deadline that is tried, over the median frame without one
LEAST_ALIKE = 0.97  # share of labels that the plain network and the semantic branch must have in common on a frame
WARM_UP = 2  # rounds that do not count


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="*", default=[], help="folders of real frames")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--varied", type=int, default=200, help="frames that limits are tried on; 0: none")
    args, rest = parser.parse_known_args()
    frames = _frames(args.frames)
    rows: list[Row] = []
    with Runtime() as runtime:
        runtime.warm_up()
        for name, size in SIZES.items():
            same = [frame for frame in frames if frame.shape[:2] == size]
            rows += against(runtime, name, same, args.pairs, usable_cores()) if same else []
    small = [frame for frame in frames if frame.shape[:2] == SIZES["480x360"]]
    rows += limits(small, args.varied) if small and args.varied else []
    finish(rows, "cascade", rest)


def against(runtime: Runtime, name: str, frames: Sequence[Frame], rounds: int, threads: int) -> list[Row]:
    """The whole cascade beside its semantic branch alone, and beside that as a network with the usual post-processing.

    Raises:
        RuntimeError: The plain network gives other labels.
    """
    spec, plain = runtime.manifest.input, PlainNetwork(runtime, threads)
    semantic = OnnxRuntimeEngine(semantic_graph(runtime), "semantic", threads=threads)
    alike = {way: _alike(runtime, plain, way, frames[0]) for way in plain.ways}
    taken, laps, flagged = [], [], []
    for index in range(rounds + WARM_UP):
        frame = frames[index % len(frames)]
        image = image_of(frame, spec, threads)
        alone, _ = _timed(semantic.run, {"image": image})
        others = [_timed(plain.labels, frame, way)[0] for way in plain.ways]
        whole, segmentation = _timed(runtime.segment, frame)
        if index >= WARM_UP:
            taken.append([alone, *others, whole])
            laps.append(segmentation.timings)
            flagged.append(segmentation.flagged_share)
    wall, processor = np.moveaxis(1000 * np.array(taken), 2, 0)  # ms [rounds, semantic, each way, cascade], each
    steps = {step: np.array([lap[step] for lap in laps]) for step in laps[0]}
    added = 100 * (sum(took for step, took in steps.items() if step != "preprocess") / wall[:, 0] - 1)
    note = f"semantic branch alone {np.median(wall[:, 0]):.1f} ms; whole cascade "
    note += ", ".join(f"{step} {np.median(took):.1f} ms" for step, took in steps.items())
    note += f"; {100 * np.mean(flagged):.1f} % flagged at t = {runtime.threshold}"
    rows = [spread(f"cascade/overhead@{name}", added, "%", note)]
    for column, way in enumerate(plain.ways, 1):
        ours, theirs = (np.median(wall[:, each]) for each in (-1, column))
        note = (
            f"cascade {ours:.1f} ms, plain network {theirs:.1f} ms, {threads} threads, {rounds} rounds; "
            f"{np.median(processor[:, -1] / processor[:, column]):.3f} in processor time; {alike[way]:.2%} of labels "
            "as the semantic branch's in the cascade"
        )
        rows.append(
            spread(f"cascade/vs_plain_network/{way}@{name}", wall[:, -1] / wall[:, column], "of its time", note)
        )
    return rows


def _alike(runtime: Runtime, plain: PlainNetwork, way: str, frame: Frame) -> float:
    """Share of labels in common: the ways round differently, and OpenCV knows no aligned corners."""
    wanted = runtime.segment(frame, semantic=True).semantic_labels
    share = float((plain.labels(frame, way) == wanted).mean())
    if share < LEAST_ALIKE:
        raise RuntimeError(f"{way}: {share:.2%} of labels are the semantic branch's; nothing was timed")
    return share


def limits(frames: Sequence[Frame], count: int) -> list[Row]:
    """Frame times over varied frames: without a limit, with a budget, with a deadline."""
    varied = [frames[index * max(len(frames), count) // count % len(frames)] for index in range(count)]
    free, works = _run(varied)
    budgeted, limited = _run(varied, budget=SHARE)
    deadline = ROOM * float(np.median(free))
    timed, _ = _run(varied, deadline_ms=deadline)
    met = float(np.mean(np.array(timed) <= deadline))
    over = sum(work > SHARE for work in limited)
    return [
        _times("frame_time/no_limit@480x360", free, f"work up to {max(works):.1%} of the dense stage"),
        _times(f"frame_time/budget_{SHARE:.0%}@480x360", budgeted, f"{over} of {count} frames exceeded the budget"),
        _times("frame_time/deadline@480x360", timed, f"deadline {deadline:.0f} ms"),
        Row("frame_time/deadline_met@480x360", 100 * met, "%", note=f"of {count} frames, deadline {deadline:.0f} ms"),
    ]


def _run(frames: Sequence[Frame], **limits: float) -> tuple[list[float], list[float]]:
    with Runtime(**limits) as runtime:  # type: ignore[arg-type]
        runtime.warm_up()
        for frame in frames[:3]:
            runtime.segment(frame)
        results = [runtime.segment(frame) for frame in frames]
    return [sum(result.timings.values()) for result in results], [result.work for result in results]


def _times(name: str, times: Sequence[float], note: str) -> Row:
    low, middle, high = (float(q) for q in np.quantile(times, (0.05, 0.5, 0.95)))
    return Row(name, middle, "ms", quantiles=(low, middle, high), note=f"{note}; quantiles 5, 50 and 95 %")


def _frames(folders: Sequence[str]) -> list[Frame]:
    if folders:
        return [read_frame(item.path) for item in find_images(folders).items]
    return [
        StreetScene(seed, *size).frame(20 * view).frame
        for size in SIZES.values()
        for seed in range(SEEDS)
        for view in range(5)
    ]


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[tuple[float, float], Any]:
    """Wall and processor time in seconds, and what the function gives."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return (time.perf_counter() - wall, time.process_time() - processor), result


if __name__ == "__main__":
    main()
