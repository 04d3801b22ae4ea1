"""int8 graphs: Q/DQ nodes with ranges from real frames, by ONNX Runtime's static quantiser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from errseg_rt.export.engines.groups import FEWEST_CHANNELS, join_narrow_groups
from errseg_rt.export.engines.nodes import attributes
from errseg_rt.export.engines.precision import fp32_nodes

_SHARE = 0.5  # of the newest frame in the moving average of the ranges: an outlier in one frame does not widen them
_LEAST_WORK = 12  # products per value read or written, to begin int8 with: 1x1 of 16 to 16 channels (8) gained nothing
_PAIR = 127  # steps that two weights of a channel may be worth: rounded up, they are 128 at most, and 255 * 128 < 2**15
_ONNXRUNTIME_OPS = ["Add", "AveragePool", "Concat", "Conv", "MaxPool", "Mul", "Relu", "Resize"]


def quantise(model: bytes, feeds: Sequence[Mapping[str, npt.NDArray[Any]]], engine: str) -> bytes:
    """A graph whose convolutions compute in int8, weights channel by channel.

    What stays fp32 in fp16 graphs stays fp32 here. For onnxruntime, activations are uint8 with a zero point, since its
    kernels for processors are fast in that; whatever lies between two convolutions is quantised too, and narrow groups
    are joined. TensorRT takes symmetric int8 alone, and fuses best where only the inputs of convolutions are quantised.

    On x86-64 without VNNI, onnxruntime adds products of uint8 and int8 two by two in 16 bits, and what does not fit is
    cut off. Weights take steps so large that this cannot happen: a graph computes the same on every processor.
    (onnxruntime's own remedy, the option `session.x64quantprecision`, has it multiply uint8 and uint8, on processors
    with VNNI as well, where int8 was then slower than fp32.)

    Args:
        model: An fp32 ONNX model.
        feeds: Inputs of the graph, from frames like those that it shall see.
        engine: `"onnxruntime"` or `"tensorrt"`.

    Raises:
        ValueError: There are no feeds.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not feeds:
        raise ValueError("no frame to calibrate on")
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    fp32 = fp32_nodes(proto)
    is_cpu = engine == "onnxruntime"
    options: dict[str, Any] = {"CalibMovingAverage": True, "CalibMovingAverageConstant": _SHARE}
    if is_cpu:
        join_narrow_groups(proto.graph)  # of a bundle whose exporter left them as they were
        fp32 = {node.name for node in proto.graph.node} - _gaining(proto.graph, fp32)
        options["TensorQuantOverrides"] = _round_weights(proto.graph, fp32)
    else:
        options |= {"ActivationSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Conv"]}
    with TemporaryDirectory() as folder, _without_advice():
        path = Path(folder) / "quantised.onnx"
        quantize_static(
            proto,
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_ONNXRUNTIME_OPS if is_cpu else ["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8 if is_cpu else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(fp32),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        return path.read_bytes()


def _gaining(graph: onnx.GraphProto, fp32: set[str]) -> set[str]:
    """Names of the nodes that onnxruntime shall compute in int8: convolutions, and what follows them until fp32 nodes.

    A convolution is one of them where it gains by itself, or where its input is int8 anyway: one that is left in fp32
    between int8 neighbours is made int8 by onnxruntime's optimiser, with one range for all channels. The last of them
    must gain by themselves: light ones classify, and labels hang on differences of what they give.

    Args:
        graph: The graph.
        fp32: Names of nodes that are none, but concatenations for a convolution, which would round the same values.
    """
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolved = {node.input[0] for node in graph.node if node.op_type == "Conv"}
    int8: set[str] = set()  # tensors
    names = set()
    for node in graph.node:
        is_joined = node.op_type == "Concat" and node.output[0] in convolved
        if node.op_type not in _ONNXRUNTIME_OPS or (node.name in fp32 and not is_joined):
            continue
        follows = any(name in int8 for name in node.input)
        if follows or (node.op_type == "Conv" and _gains(node, weights[node.input[1]])):
            names.add(node.name)
            int8.update(node.output)
    read: set[str] = set()  # by int8 nodes
    for node in reversed(graph.node):
        if node.name not in names:
            continue
        is_kept = node.op_type == "Relu" or (node.op_type == "Conv" and _gains(node, weights[node.input[1]]))
        if is_kept or not read.isdisjoint(node.output):
            read.update(node.input)
        else:
            names.remove(node.name)
    return names


def _gains(node: onnx.NodeProto, weight: Sequence[int]) -> bool:
    """Whether a convolution is faster in int8 where its input is fp32."""
    groups = attributes(node).get("group", 1)
    outputs, channels = weight[:2]
    products = outputs * int(np.prod(weight[1:]))
    # In narrower groups, int8 took 1.5 to 5 times as long (onnxruntime 1.31, AVX-512 VNNI).
    return channels >= FEWEST_CHANNELS and products >= _LEAST_WORK * (groups * channels + outputs)


def _round_weights(graph: onnx.GraphProto, fp32: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Round the weights of convolutions to multiples of a step, and say the steps, as the quantiser takes them.

    No two weights of an output channel are worth more than 128 together, so that no two products with uint8 overflow 16
    bits, whichever of them a kernel adds first. The quantiser's `reduce_range` is safe, too, and coarser: it grants no
    weight more than half.

    Args:
        graph: The graph, whose weights are replaced.
        fp32: Names of nodes that are not quantised.
    """
    names = {node.input[1] for node in graph.node if node.op_type == "Conv" and node.name not in fp32}
    steps = {}
    for tensor in graph.initializer:
        if tensor.name not in names:
            continue
        weight = numpy_helper.to_array(tensor)  # [O, C / groups, kh, kw]
        rows = weight.reshape(len(weight), -1).astype(np.float64)
        signs = np.pad(np.stack([rows, -rows]).clip(min=0), ((0, 0), (0, 0), (0, 1)))  # products of one sign add up
        scales = np.sort(signs, axis=-1)[..., -2:].sum(axis=-1).max(axis=0).astype(np.float32) / np.float32(_PAIR)
        scales[scales == 0] = 1  # nothing but zeros
        rounded = scales[:, None] * _round_keeping_sums(rows / scales[:, None])
        tensor.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32).reshape(weight.shape), tensor.name))
        steps[tensor.name] = [{"axis": 0, "scale": scale, "zero_point": np.int8(0)} for scale in scales]
    return steps


def _round_keeping_sums(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round up or down, to the nearest but for as many as keep each row's sum within a half.

    Activations behind a ReLU have one sign, so that what a channel's errors sum up to shifts all that it gives.
    """
    rounded = np.rint(rows)
    for row, values in zip(rounded, rows, strict=True):
        errors = values - row
        missing = round(errors.sum())
        turned = np.argsort(-np.sign(missing) * errors, kind="stable")[: abs(missing)]
        row[turned] += np.sign(missing)
    return rounded


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the quantiser's advice to optimise the graph first from users: the exporter has done that."""
    root = logging.getLogger()

    def is_other(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)


class _Reader:
    """The feeds, one by one, as the quantiser reads them."""

    def __init__(self, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next feed; None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)
