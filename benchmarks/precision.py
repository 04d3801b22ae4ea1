"""Is the front graph in int8 faster than in fp32 in ONNX Runtime, and what does it cost in labels?

    python -m benchmarks.precision --frames camvid/val

DeepLabv3+ has random weights: its speed does not depend on them, its share of equal labels is no trained network's. The
embedded bundle is calibrated and compared on the frames, or on rendered streets.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from benchmarks.report import Row, compare, finish
from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.builds import BARS, BuildOptions, build_engine
from errseg_rt.export.engines.quantise import quantise
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.scenes import StreetScene

SIZE = (1024, 2048)
CALIBRATION = 4


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of frames, with labels beside them or without")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--skip-deeplab", action="store_true", help="measure the embedded bundle alone")
    args, rest = parser.parse_known_args()
    rows = embedded(args.frames, args.pairs)
    if not args.skip_deeplab:
        rows.append(deeplab(args.pairs))
    finish(rows, "precision", rest)


def embedded(frames: Path | None, pairs: int) -> list[Row]:
    """The embedded bundle: built as a user builds it, below the bar too, so that the row says by how much."""
    source = Bundle.open("camvid")
    with TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "b", source.manifest, {n: source.read(n) for n in source.manifest.files})
        options = BuildOptions("onnxruntime", "int8", bar=1e-9, frames=frames)
        built = build_engine(bundle, options)
        int8 = built.engine.read("front.onnx")
    report = built.report or {}
    branches = report["branches"]
    note = f"{report['frames']} frames; " + ", ".join(
        f"{name} {branch['agreement']:.3%}" for name, branch in branches.items()
    )
    scores = branches["fused"]
    if scores["miou"] is not None:
        note += f"; fused mIoU {100 * scores['reference_miou']:.2f} -> {100 * scores['miou']:.2f}"
    least = min(branch["agreement"] for branch in branches.values())
    return [
        _speed("embedded", source.read("graphs/front.onnx"), int8, pairs),
        Row("labels/int8_vs_fp32@embedded", 100 * least, "%", note=f"{note}; bar {BARS['int8']:.0%}"),
    ]


def deeplab(pairs: int) -> Row:
    """DeepLabv3+ with ResNet-50, the network of mmdeploy's and others' tables."""
    import torch

    from errseg_rt.export.graphs import export_graphs
    from errseg_rt.networks import Cascade, CascadeConfig

    torch.manual_seed(0)
    cascade = Cascade(CascadeConfig("deeplabv3plus-resnet50", 19, error_width=32, detail_width=96))
    front = export_graphs(cascade, names=("front",))["front"]
    scenes = [StreetScene(seed, 257, 513).frame(10).frame for seed in range(CALIBRATION)]
    int8 = quantise(front, [{"image": _image(scene)} for scene in scenes], "onnxruntime")
    return _speed("deeplabv3plus-resnet50", front, int8, pairs)


def _speed(name: str, fp32: bytes, int8: bytes, pairs: int) -> Row:
    cores = os.cpu_count() or 1
    ours, theirs = (OnnxRuntimeEngine(graph, "front", threads=cores) for graph in (int8, fp32))
    feeds = {"image": _image(StreetScene(0, *SIZE).frame(0).frame)}
    logits = [engine.run(feeds)["logits"].argmax(axis=1) for engine in (ours, theirs)]
    return compare(
        f"front/int8_vs_fp32_{name}@{SIZE[0]}x{SIZE[1]}",
        lambda: ours.run(feeds),
        lambda: theirs.run(feeds),
        pairs=pairs,
        warm_up=1,
        note=f"{cores} threads; {np.mean(logits[0] == logits[1]):.2%} of the grid's labels equal on the timed frame",
    )


def _image(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    spec, size = Bundle.open("camvid").manifest.input, (frame.shape[0], frame.shape[1])
    return preprocess(frame, size, size, mean=spec.mean, std=spec.std)


if __name__ == "__main__":
    main()
