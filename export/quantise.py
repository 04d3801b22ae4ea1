"""int8 graphs: Q/DQ nodes with ranges from real frames, by ONNX Runtime's static quantiser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from errseg_rt.engines.engine import Array
from errseg_rt.export.precision import fp32_nodes

_SHARE = 0.5  # of the newest frame in the moving average of the ranges: an outlier in one frame does not widen them
_FEWEST_CHANNELS = 16  # of a group: below, int8 took 1.5 to 5 times as long (onnxruntime 1.31, AVX-512 VNNI)
_ONNXRUNTIME_OPS = ["Add", "AveragePool", "Concat", "Conv", "MaxPool", "Mul", "Relu", "Resize"]


def quantise(model: bytes, feeds: Sequence[Mapping[str, Array]], engine: str) -> bytes:
    """A graph whose convolutions compute in int8, weights channel by channel.

    What stays fp32 in fp16 graphs stays fp32 here. For onnxruntime, activations are uint8 with a zero point, since its
    kernels for processors are fast in that, and whatever lies between two convolutions is quantised too. TensorRT takes
    symmetric int8 alone, and fuses best where only the inputs of convolutions are quantised.

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
    is_cpu = engine == "onnxruntime"
    options: dict[str, Any] = {"CalibMovingAverage": True, "CalibMovingAverageConstant": _SHARE}
    if not is_cpu:
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
            nodes_to_exclude=sorted(fp32_nodes(proto) | (_narrow(proto.graph) if is_cpu else set())),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        return path.read_bytes()


def _narrow(graph: onnx.GraphProto) -> set[str]:
    """Convolutions with so few input channels that onnxruntime computes them faster in fp32, but depthwise ones."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    found = set()
    for node in graph.node:
        if node.op_type == "Conv":
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            outputs, channels = shapes[node.input[1]][:2]
            if channels < _FEWEST_CHANNELS and not groups == outputs > 1:
                found.add(node.name)
    return found


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

    def __init__(self, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """The next feed; None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)
