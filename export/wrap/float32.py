"""Networks in half or double precision, in float32: processors compute in that, and engines choose a precision anew."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from errseg_rt.export.engines.nodes import every_node, subgraphs

_OTHERS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


def to_float32(model: onnx.ModelProto) -> bool:
    """Give every tensor of half or double precision float32; whether there were any."""
    return any([_graph(model.graph), *map(_attributes, every_node(model.graph))])


def _graph(graph: onnx.GraphProto) -> bool:
    found = False
    for tensor in graph.initializer:
        found |= _tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            found = True
    for node in graph.node:
        for inner in subgraphs(node):
            found |= _graph(inner)
    return found


def _attributes(node: onnx.NodeProto) -> bool:
    found = False
    for each in node.attribute:
        if each.type == onnx.AttributeProto.TENSOR:
            found |= _tensor(each.t)
        elif each.name in ("to", "dtype") and each.i in _OTHERS:
            each.i = TensorProto.FLOAT
            found = True
    return found


def _tensor(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in _OTHERS:
        return False
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return True
