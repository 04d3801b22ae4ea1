"""Networks in half precision, back in float32: processors compute in that, and engines choose a precision anew."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from errseg_rt.export.wrap.graph import every_node, subgraphs

_NARROW = {TensorProto.FLOAT16, TensorProto.BFLOAT16}


def widen(model: onnx.ModelProto) -> bool:
    """Give every tensor of half precision float32; what it holds stays the same. Whether there were any."""
    return any([_widen_graph(model.graph), *map(_widen_attributes, every_node(model.graph))])


def _widen_graph(graph: onnx.GraphProto) -> bool:
    found = False
    for tensor in graph.initializer:
        found |= _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            found = True
    return any([_widen_graph(inner) for node in graph.node for inner in subgraphs(node)]) or found


def _widen_attributes(node: onnx.NodeProto) -> bool:
    found = False
    for each in node.attribute:
        if each.type == onnx.AttributeProto.TENSOR:
            found |= _widen_tensor(each.t)
        elif each.name in ("to", "dtype") and each.i in _NARROW:
            each.i = TensorProto.FLOAT
            found = True
    return found


def _widen_tensor(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in _NARROW:
        return False
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return True
