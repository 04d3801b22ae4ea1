"""From how many channels on does ONNX Runtime gain nothing more by joining the groups of a convolution?

    python -m benchmarks.narrow_groups

A 1x1 convolution stands before and behind, as in a network, so that what it costs to leave ONNX Runtime's blocks of
channels is counted. Processor time of one thread; which blocks there are depends on the processor (AVX2 or AVX-512).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import Row, compare, finish
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.groups import wide

SHAPES = (  # channels, groups, side of the kernel, side of the map
    (24, 2, 1, 200),
    (48, 4, 1, 100),
    (16, 2, 1, 200),
    (64, 8, 1, 100),
    (64, 16, 1, 100),
    (256, 64, 1, 60),
    (128, 32, 3, 60),
    (256, 16, 1, 60),
    (48, 2, 1, 100),
)
MOST_CHANNELS = 128  # of a group that is tried
TOLERANCE = 1e-4


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    args, rest = parser.parse_known_args()
    finish([row for shape in SHAPES for row in rows(*shape, args.pairs)], "narrow_groups", rest)


def rows(channels: int, groups: int, kernel: int, side: int, pairs: int) -> Iterator[Row]:
    """Joined by every divisor of the number of groups, against groups as they are."""
    rng = np.random.default_rng(0)
    each = channels // groups
    weight = (rng.standard_normal((channels, each, kernel, kernel)) / each).astype(np.float32)
    point = (rng.standard_normal((channels, channels, 1, 1)) / channels).astype(np.float32)
    feeds = {"x": rng.standard_normal((1, channels, side, side), np.float32)}
    plain = _engine(weight, groups, point)
    for count in range(2, groups + 1):
        if groups % count or count * each > MOST_CHANNELS:
            continue
        joined = _engine(wide(weight, groups, count), groups // count, point)
        np.testing.assert_allclose(joined.run(feeds)["y"], plain.run(feeds)["y"], rtol=0, atol=TOLERANCE)
        yield compare(
            f"groups/{channels}_in_{groups}_{kernel}x{kernel}/joined_to_{count * each}",
            lambda joined=joined: joined.run(feeds),  # type: ignore[misc]
            lambda: plain.run(feeds),
            pairs=pairs,
            note=f"groups of {each} channels, {side}x{side}, one thread, processor time",
            clock=time.process_time,
        )


def _engine(weight: npt.NDArray[np.generic], groups: int, point: npt.NDArray[np.float32]) -> OnnxRuntimeEngine:
    pads = [weight.shape[2] // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "point"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "weight"], ["c"], group=groups, pads=pads),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "point"], ["y"]),
    ]
    shape = [1, len(point), None, None]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in (("weight", weight), ("point", point))]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return OnnxRuntimeEngine(model.SerializeToString(), "convolutions", threads=1)


if __name__ == "__main__":
    main()
