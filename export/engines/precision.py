"""fp16 and bf16 graphs: what tensor cores gain by is computed in these, what would lose by it in fp32.

A strongly typed network computes in the types that its graph says, so that the precision is decided here. Sums over
many values (softmax, norms, averages) and logarithms stay in fp32, and with them what follows until the next
convolution: the whole path of the error logit behind its branch's last one. The converters that are around
(onnxconverter-common's, `onnxruntime.transformers.float16`) round between two fp32 nodes, and know no bf16.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto, numpy_helper

from errseg_rt.bundle.contract import CONTRACT
from errseg_rt.system.bfloat16 import to_bfloat16

LOW_PRECISIONS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
"""ONNX element types by the names that users give precisions."""
FP32_NAMES = tuple(tensor.name for tensor in CONTRACT.values() if tensor.stays_float32)
"""Inputs and outputs that stay in fp32: the image, which is made in it, the logit by which pixels are ranked, boxes."""

# Computed in less than fp32 wherever they stand.
_MATRIX = {"Conv", "ConvTranspose", "DequantizeLinear", "Gemm", "MatMul"}
# Computed in what their inputs have: fp32 when any of them is.
_FOLLOWING = {
    "Add", "Clip", "Concat", "Expand", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze",
    "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
# Inputs that ONNX wants in fp32 whatever the others are: regions and scales of Resize.
_ALWAYS_FP32 = {"Resize": (1, 2)}
_BF16_OPSET = 22  # the first in which Conv takes bfloat16
_FP16_SCALES_OPSET = (
    19  # the first in which Q/DQ nodes take fp16; from 21 on, onnxruntime 1.31 makes invalid ones of them
)
_LARGEST_FP16 = float(np.finfo(np.float16).max)
_SMALLEST_FP16 = float(np.finfo(np.float16).smallest_subnormal)


def lower(model: bytes, precision: str, *, fp32: Collection[str] = FP32_NAMES) -> bytes:
    """A graph that computes in fp16 or bf16.

    Args:
        model: An fp32 ONNX model; for fp16 also one whose convolutions have Q/DQ nodes before them.
        precision: A key of `LOW_PRECISIONS`.
        fp32: Names of the inputs and outputs that stay fp32; the others take the precision's type.

    Raises:
        KeyError: There is no such precision.
    """
    low = LOW_PRECISIONS[precision]
    proto = onnx.load_from_string(model)
    if precision == "bf16":
        proto = onnx.version_converter.convert_version(proto, _BF16_OPSET)
    elif any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        proto = onnx.version_converter.convert_version(proto, _FP16_SCALES_OPSET)
    graph = proto.graph
    lowering = _lowered(proto, low, fp32)
    wanted = {value.name: int(TensorProto.FLOAT if value.name in fp32 else low) for value in graph.output}
    lowering.hand_out(wanted)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = lowering.types[value.name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(lowering.nodes)
    used = {name for node in lowering.nodes for name in node.input}
    graph.initializer.extend(tensor for name, tensor in lowering.weights.items() if name in used)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def fp32_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that `lower` leaves in fp32, and that give floats."""
    lowering = _lowered(model, TensorProto.FLOAT16, FP32_NAMES)
    return {
        node.name
        for node in model.graph.node
        if any(lowering.types.get(name) == TensorProto.FLOAT for name in node.output)
    }


def _lowered(model: onnx.ModelProto, low: int, fp32: Collection[str]) -> _Lowering:
    lowering = _Lowering(onnx.shape_inference.infer_shapes(model).graph, low)
    lowering.types |= {value.name: TensorProto.FLOAT if value.name in fp32 else low for value in model.graph.input}
    for node in model.graph.node:
        lowering.add(node)
    return lowering


class _Lowering:
    """The nodes of a new graph, with casts where the type changes.

    Attributes:
        types: Element type that each float tensor of the new graph has.
        weights: Its constants by name.
        nodes: Its nodes.
    """

    def __init__(self, graph: onnx.GraphProto, low: int) -> None:
        self.low = low
        known = (*graph.value_info, *graph.input, *graph.output)
        self._floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self._constants = {name for name, t in self.weights.items() if t.data_type == TensorProto.FLOAT}
        self.types: dict[str, int] = dict.fromkeys(self._constants, TensorProto.FLOAT)
        self.nodes: list[onnx.NodeProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        """Take over a node of the fp32 graph, whose inputs have all been made."""
        node = onnx.NodeProto.FromString(node.SerializeToString())
        kept = _ALWAYS_FP32.get(node.op_type, ())
        floats = [i for i, name in enumerate(node.input) if name in self.types and i not in kept]
        maps = [self.types[node.input[i]] for i in floats if node.input[i] not in self._constants]
        follows = node.op_type in _FOLLOWING and bool(maps)
        is_low = node.op_type in _MATRIX or (follows and TensorProto.FLOAT not in maps)
        type_ = self.low if is_low else TensorProto.FLOAT
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and type_ == TensorProto.FLOAT16:
            self._lower_scale(node)
            floats.remove(1)
        for i in floats:
            node.input[i] = self._as(node.input[i], type_)
        self.types |= dict.fromkeys((name for name in node.output if name in self._floats), type_)
        self.nodes.append(node)

    def hand_out(self, wanted: dict[str, int]) -> None:
        """Give the graph's outputs the types that are wanted, and their names."""
        for name, type_ in wanted.items():
            if self.types[name] == type_:
                continue
            inner = f"{name}.inner"
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [inner if each == name else each for each in names]
            self.nodes.append(onnx.helper.make_node("Cast", [inner], [name], f"{name}.cast", to=type_))
            self.types |= {inner: self.types[name], name: type_}

    def _lower_scale(self, node: onnx.NodeProto) -> None:
        """Give a Q/DQ node its scale in fp16, and its weight, where it has one, in steps of that scale.

        Scales of weights that are all but zero would become zero, which TensorRT refuses.
        """
        weight, name = node.input[0], node.input[1]
        scale = numpy_helper.to_array(self.weights[name])
        held = scale.clip(_SMALLEST_FP16, _LARGEST_FP16)
        rounded = held.astype(np.float16)
        # Upwards, so that the largest weight stays within the steps of int8.
        rounded = np.where(rounded < held, np.nextafter(rounded, np.float16(np.inf)), rounded)
        node.input[1] = f"{name}.float16"
        self.weights[node.input[1]] = numpy_helper.from_array(rounded, node.input[1])
        if weight in self.weights:
            steps = numpy_helper.to_array(self.weights[weight])
            ratio = (scale / rounded.astype(np.float32)).reshape(-1, *[1] * (steps.ndim - 1))
            node.input[0] = f"{weight}.of_float16"
            limits = np.iinfo(steps.dtype)
            steps = np.rint(steps * ratio).clip(limits.min, limits.max).astype(steps.dtype)
            self.weights[node.input[0]] = numpy_helper.from_array(steps, node.input[0])

    def _as(self, name: str, type_: int) -> str:
        """The name of a tensor in some type, which is made where it is not there."""
        if self.types[name] == type_:
            return name
        cast = f"{name}.{TensorProto.DataType.Name(type_).lower()}"
        if cast not in self.types:
            if name in self._constants:
                self.weights[cast] = _converted(self.weights[name], cast, type_)
            else:
                self.nodes.append(onnx.helper.make_node("Cast", [name], [cast], f"{cast}.cast", to=type_))
            self.types[cast] = type_
        return cast


def _converted(tensor: TensorProto, name: str, type_: int) -> TensorProto:
    """An fp32 constant in another type; what fp16 cannot hold becomes its largest value."""
    values = numpy_helper.to_array(tensor)
    if type_ == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.clip(-_LARGEST_FP16, _LARGEST_FP16).astype(np.float16), name)
    return onnx.helper.make_tensor(name, type_, values.shape, to_bfloat16(values).tobytes(), raw=True)
