"""Feature maps of an ONNX graph: shapes that can be told from the file are, and for the others it is run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, shape_inference

from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.errors import DataError
from errseg_rt.taps.maps import FeatureMap, Maps
from errseg_rt.taps.sizes import Shape, is_exact, probe_sizes, stride_of

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TOGETHER = 64  # tensors that one run gives, so that a large network's need not all be in memory
_NORMS = ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization")
_ACTIVATIONS = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Clip", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Gelu", "Mish", "Tanh", "Softplus", "Erf", "Swish"),
)
_POOLS = ("GlobalAveragePool", "AveragePool", "ReduceMean")
_LEARNED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_PASSING = ("Identity", "Dropout", "Cast")

_GROUPS = 7  # more of them, and a convolution is taken for one that looks at each channel alone


def onnx_maps(model: onnx.ModelProto, spec: InputSpec) -> Maps:
    """All feature maps of a graph that takes one image.

    Args:
        model: Its only input is `[1, 3, H, W]`, or has such dimensions free.
        spec: The sizes that it takes.

    Raises:
        DataError: It does not run on an image of such a size.
    """
    graph = model.graph
    sizes = probe_sizes(spec)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    number = {name: index for index, node in enumerate(nodes, 1) for name in node.output if name}
    shapes = [_shapes(model, size, number) for size in sizes]
    readers = _readers(nodes)
    behind = _behind(nodes, number)
    learned = sum(1 << index for index, node in enumerate(nodes, 1) if node.op_type in _LEARNED)
    found = []
    for name, depth in number.items():
        each = [shape[name] for shape in shapes if name in shape]
        stride = stride_of(each, sizes)
        if stride and (behind[depth] | 1 << depth) & learned:  # what comes before the first weights is the image
            found.append(
                FeatureMap(
                    name,
                    stride,
                    each[0][1],
                    _made_by(nodes, number, depth),
                    depth,
                    is_end=not _goes_on(name, readers),
                    is_spread=_is_spread(name, readers),
                    is_learned=nodes[depth - 1].op_type in _LEARNED,
                    is_exact=is_exact(each, sizes, stride),
                )
            )
    made_of = {
        each.name: frozenset(other.name for other in found if behind[each.depth] >> other.depth & 1) for each in found
    }
    return Maps(tuple(found), len(nodes), made_of)


def _shapes(model: onnx.ModelProto, size: Size, names: Mapping[str, int]) -> dict[str, Shape]:
    """Shapes of the floating tensors of four dimensions among those named, for an input of a size."""
    fixed = copy.deepcopy(model)
    del fixed.graph.value_info[:]  # those of another size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for dim, length in zip(dims, (1, 3, *size), strict=True):
        dim.dim_value = length
    try:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    except Exception:  # of what kind is onnx's affair; then everything is run
        inferred = fixed.graph
    told: dict[str, Shape] = {}
    unknown = dict(names)
    for value in (*inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        lengths = tuple(dim.dim_value for dim in tensor.shape.dim)
        if value.name in unknown and tensor.HasField("shape") and all(lengths):
            del unknown[value.name]
            if len(lengths) == 4 and tensor.elem_type in _FLOATS:
                told[value.name] = lengths
    return {**told, **_run_for_shapes(model, size, list(unknown))}


def _run_for_shapes(model: onnx.ModelProto, size: Size, names: Sequence[str]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for start in range(0, len(names), _TOGETHER):
        part = names[start : start + _TOGETHER]
        for name, value in zip(part, run(with_outputs(model, part), size), strict=True):
            if isinstance(value, np.ndarray) and value.ndim == 4 and value.dtype.kind == "f":
                found[name] = value.shape
    return found


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with other outputs, of whatever types these have."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.output[:]
    other.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return other


def run(model: onnx.ModelProto, size: Size) -> list[Any]:
    """Outputs for an image of noise.

    Raises:
        DataError: It does not run.
    """
    image = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return list(session.run(None, {session.get_inputs()[0].name: image}))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the network does not run on an input of {size[0]}x{size[1]} ({reason}); say which sizes it takes: "
            "input.multiple, input.plus_one, or input.size"
        ) from error


def _readers(nodes: Sequence[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in needs(node):
            readers.setdefault(name, []).append(node)
    return readers


def needs(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, its sub-graphs' own ones included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from needs(inner)


def _goes_on(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """Whether a tensor is on its way through a layer: norms, activations and depthwise convolutions alone read it."""
    kinds = {"depthwise" if _is_depthwise(node) else node.op_type for node in readers.get(name, ())} - {"Shape"}
    if not kinds:
        return False
    if kinds <= {*_NORMS, *_ACTIVATIONS, *_PASSING, "depthwise"}:
        return True
    return "Mul" in kinds and bool(kinds & set(_ACTIVATIONS)) and len(kinds) == 2  # x * sigmoid(x), written out


def _is_spread(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """Whether convolutions look at a tensor from near and far, a pool does beside one, or several pools do."""
    nodes = readers.get(name, ())
    convs, pools = ([node for node in nodes if node.op_type in kinds] for kinds in (("Conv",), _POOLS))
    return bool(convs and pools) or len(pools) > 1 or (len(convs) > 2 and any(_dilation(node) > 1 for node in convs))


def _is_depthwise(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and any(each.name == "group" and each.i > _GROUPS for each in node.attribute)


def _dilation(node: onnx.NodeProto) -> int:
    return max((max(each.ints, default=1) for each in node.attribute if each.name == "dilations"), default=1)


def _made_by(nodes: Sequence[onnx.NodeProto], number: Mapping[str, int], depth: int) -> str:
    """The operator that makes a tensor; behind a norm, an activation or the like, also what these are of."""
    node = nodes[depth - 1]
    steps: list[str] = []
    while node.op_type in (*_NORMS, *_ACTIVATIONS, *_PASSING) and len(steps) < 3:
        steps.append(node.op_type)
        before = next((number[name] for name in node.input if name in number), 0)
        if not before:
            break
        node = nodes[before - 1]
    else:
        steps.append(node.op_type)
    return " of ".join(steps)


def _behind(nodes: Sequence[onnx.NodeProto], number: Mapping[str, int]) -> list[int]:
    """For each node, by its number, a bit for every node that it is made of."""
    behind = [0] * (len(nodes) + 1)
    for index, node in enumerate(nodes, 1):
        for name in needs(node):
            if name in number:
                behind[index] |= behind[number[name]] | 1 << number[name]
    return behind
