"""Is the front graph faster in ONNX Runtime than the same modules in torch eager?

python -m benchmarks.front_graph
"""

from __future__ import annotations

import os

import numpy as np
import torch

from benchmarks.report import Row, compare, finish
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.open import open_engine
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.options import Options
from errseg_rt.places.cpu import Cpu
from errseg_rt.scenes import StreetScene

_LARGEST_DIFFERENCE = 1e-3


def measure(height: int, width: int) -> Row:
    """Time both on one rendered frame, after checking that they give the same."""
    bundle = Bundle.open("camvid")
    spec = bundle.manifest.input
    frame = StreetScene(0, height, width).frame(0).frame
    content, padded = spec.content_size((height, width)), spec.input_size((height, width))
    feeds = {"image": preprocess(frame, content, padded, mean=spec.mean, std=spec.std)}
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    ours, theirs = (
        open_engine(bundle, "front", Options(engine, threads=cores), Cpu(cores)) for engine in ("onnxruntime", "torch")
    )
    for name, value in ours.run(feeds).items():
        difference = float(np.abs(value - theirs.run(feeds)[name]).max())
        if difference > _LARGEST_DIFFERENCE:
            raise RuntimeError(f"{name} differs by {difference} between the engines; nothing was timed")
    note = f"input {padded[0]}x{padded[1]}, {cores} threads"
    return compare(
        f"front/onnxruntime_vs_torch_eager@{height}x{width}",
        lambda: ours.run(feeds),
        lambda: theirs.run(feeds),
        note=note,
    )


if __name__ == "__main__":
    finish([measure(360, 480), measure(1024, 2048)], "front_graph")
