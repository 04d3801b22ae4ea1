"""What does the cascade add to its semantic branch, and do budgets and deadlines hold?

    python -m benchmarks.cascade --frames camvid/val/images cityscapes/leftImg8bit/train/aachen

Without `--frames`, rendered streets stand in for real ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils

from benchmarks.report import Row, finish
from errseg_rt import Runtime
from errseg_rt.datasets.inputs import find_images
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.frames.reading import read_frame
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.scenes import StreetScene

Frame = npt.NDArray[np.uint8]
SIZES = {"480x360": (360, 480), "1024x2048": (1024, 2048)}
SEEDS = 4
SHARE = 0.1  # the budget that is tried, of the dense stage
ROOM = 1.1  # the deadline that is tried, over the median frame without one


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="*", default=[], help="folders of real frames")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--varied", type=int, default=200, help="frames that limits are tried on")
    args, rest = parser.parse_known_args()
    frames = _frames(args.frames)
    rows: list[Row] = []
    with Runtime() as runtime:
        runtime.warm_up()
        for name, size in SIZES.items():
            same = [frame for frame in frames if frame.shape[:2] == size]
            rows += overhead(runtime, name, same, args.pairs) if same else []
    small = [frame for frame in frames if frame.shape[:2] == SIZES["480x360"]]
    rows += limits(small, args.varied) if small else []
    finish(rows, "cascade", rest)


def overhead(runtime: Runtime, name: str, frames: Sequence[Frame], pairs: int) -> list[Row]:
    """Everything behind the semantic branch, as a share of it: error prediction, refinement, fusion."""
    semantic = OnnxRuntimeEngine(semantic_graph(runtime), "semantic")
    shares, alone, parts, flagged = [], [], [], []
    for index in range(pairs + 2):
        frame = frames[index % len(frames)]
        image = _input(runtime, frame)
        took = _milliseconds(lambda image=image: semantic.run({"image": image}))  # type: ignore[misc]
        segmentation = runtime.segment(frame)
        if index < 2:
            continue
        timings = {step: took for step, took in segmentation.timings.items() if step != "preprocess"}
        alone.append(took)
        parts.append(timings)
        flagged.append(segmentation.flagged_share)
        shares.append(sum(timings.values()) / took - 1)
    low, middle, high = (float(q) for q in np.quantile(shares, (0.1, 0.5, 0.9)))
    laps = {lap: float(np.median([part[lap] for part in parts])) for lap in parts[0]}
    note = (
        f"semantic branch alone {np.median(alone):.1f} ms; whole cascade "
        + ", ".join(f"{lap} {value:.1f} ms" for lap, value in laps.items())
        + f"; {100 * np.mean(flagged):.1f} % flagged at t = {runtime.threshold}"
    )
    return [
        Row(f"cascade/overhead@{name}", 100 * middle, "%", quantiles=(100 * low, 100 * middle, 100 * high), note=note)
    ]


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


def semantic_graph(runtime: Runtime) -> bytes:
    """The part of the front graph that the semantic logits need."""
    model = onnx.load_from_string(runtime.bundle.read("graphs/front.onnx"))
    part: Any = onnx.utils.Extractor(model).extract_model(["image"], ["logits"])
    data: bytes = part.SerializeToString()
    return data


def _input(runtime: Runtime, frame: Frame) -> npt.NDArray[np.float32]:
    spec, size = runtime.manifest.input, (frame.shape[0], frame.shape[1])
    return preprocess(frame, spec.content_size(size), spec.input_size(size), mean=spec.mean, std=spec.std)


def _milliseconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
