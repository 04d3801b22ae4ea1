"""Convolutions of concatenations, taken apart: the same function, and less moved to and fro by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from errseg_rt.export.engines.nodes import attributes, names_read

# What ONNX Runtime computes on channels in blocks, where what it reads is in blocks, too.
_IN_BLOCKS = {"Add", "AveragePool", "Clip", "MaxPool", "Relu"}


def part_concatenations(model: onnx.ModelProto) -> None:
    """Make a 1x1 convolution of a concatenation the sum of two: of what comes from convolutions, and of the rest.

    Between convolutions on a CPU, ONNX Runtime has channels in blocks. A concatenation with something else takes all of
    them out of the blocks, for a convolution that puts them back: apart, only the rest is put into blocks. The front
    graph of the embedded bundle, whose error-prediction branch sees P_sb beside features, takes 1 to 2 % less time on
    one thread (onnxruntime 1.31, AVX2; docs/benchmarks.md).

    Args:
        model: Changed in place. Convolutions whose weights are no constants stay, and where sizes are not known.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        weights.pop(value.name, None)
    read = Counter(names_read(graph))
    depths, blocks = _depths(model), _in_blocks(graph)
    concatenations = {node.output[0]: node for node in graph.node if _joins_channels(node)}
    nodes, gone = list[onnx.NodeProto](), set[str]()
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or node.domain or node.input[0] not in concatenations or node.input[1] not in weights:
            continue
        parts, weight = list(concatenations[node.input[0]].input), weights[node.input[1]]
        apart = [[name for name in parts if (name in blocks) == is_block] for is_block in (True, False)]
        is_known = all(depths.get(name) for name in parts)
        if is_known and all(apart) and read[node.input[0]] == 1 and _is_pointwise(node, weight):
            nodes[-1:] = _sum_of_two(graph, node, weight, parts, apart, depths)
            gone.add(node.input[0])
    if not gone:
        return
    kept = [node for node in nodes if gone.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    used = set(names_read(graph))
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _sum_of_two(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    weight: onnx.TensorProto,
    parts: list[str],
    apart: list[list[str]],
    depths: Mapping[str, int],
) -> list[onnx.NodeProto]:
    """The nodes in its stead, whose weights are put into the graph; the bias goes with the first."""
    values = numpy_helper.to_array(weight)
    begins = dict(zip(parts, np.cumsum([0, *(depths[name] for name in parts)])[:-1], strict=True))
    made, sums = list[onnx.NodeProto](), list[str]()
    for which, names in zip(("blocks", "rest"), apart, strict=True):
        source, of = names[0], f"{node.output[0]}.{which}"
        if len(names) > 1:
            source = f"{of}.joined"
            made.append(helper.make_node("Concat", names, [source], f"{node.name}.{which}.joined", axis=1))
        columns = np.concatenate([np.arange(begins[name], begins[name] + depths[name]) for name in names])
        own = numpy_helper.from_array(np.ascontiguousarray(values[:, columns]), f"{weight.name}.{which}")
        graph.initializer.append(own)
        convolution = onnx.NodeProto()
        convolution.CopyFrom(node)
        convolution.name = f"{node.name}.{which}"
        bias = [] if sums else node.input[2:]
        del convolution.input[:], convolution.output[:]
        convolution.input.extend([source, own.name, *bias])
        convolution.output.append(of)
        made.append(convolution)
        sums.append(of)
    return [*made, helper.make_node("Add", sums, list(node.output), f"{node.name}.sum")]


def _joins_channels(node: onnx.NodeProto) -> bool:
    repeated = len(set(node.input)) < len(node.input)
    return node.op_type == "Concat" and not node.domain and not repeated and attributes(node).get("axis") == 1


def _is_pointwise(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    """Whether a convolution is of kernel 1, one group, and nothing else."""
    says = attributes(node)
    is_one = list(weight.dims[2:]) == [1, 1] and says.get("group", 1) == 1
    return is_one and not any(says.get("pads", ())) and set(says.get("strides", (1,))) == {1}


def _in_blocks(graph: onnx.GraphProto) -> set[str]:
    """Tensors that ONNX Runtime has in blocks when it has made them."""
    blocks = set[str]()
    for node in graph.node:
        maps = [name for name in node.input if name]
        if node.op_type == "Conv" or (node.op_type in _IN_BLOCKS and blocks.issuperset(maps)):
            blocks.update(node.output)
    return blocks


def _depths(model: onnx.ModelProto) -> dict[str, int]:
    """Channels of the tensors of which they are known; others have none."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: value.type.tensor_type.shape.dim
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return {name: shape[1].dim_value for name, shape in shapes.items() if len(shape) == 4}
