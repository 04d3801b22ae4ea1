"""A network's graph cut down to its taps."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, compose, helper

from errseg_rt.taps.chosen import Tap
from errseg_rt.taps.onnx_maps import needs

PREFIX = "network/"
"""What the names of a network's own tensors begin with, beside those of the branches."""
TAP = "taps/"
"""What the names of its outputs begin with."""


def cut(model: onnx.ModelProto, taps: Mapping[str, Tap]) -> onnx.ModelProto:
    """A graph from `image` to the tensors that are taken as taps, float32 and called `taps/low` and so on.

    Args:
        model: The network, whose only input is `image`.
        taps: By name.
    """
    model = compose.add_prefix(model, PREFIX, rename_inputs=False)
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    frames = batch.dim_value or batch.dim_param or "batch"
    del graph.output[:], graph.value_info[:]
    for name, tap in taps.items():
        graph.node.append(
            helper.make_node("Cast", [PREFIX + tap.tensor], [TAP + name], TAP + name, to=TensorProto.FLOAT)
        )
        shape = [frames, tap.channels, f"{name}_height", f"{name}_width"]
        graph.output.append(helper.make_tensor_value_info(TAP + name, TensorProto.FLOAT, shape))
    _prune(graph)
    return model


def _prune(graph: onnx.GraphProto) -> None:
    """Leave out what no output needs."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(needs(node))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    tensors = [
        TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in wanted
    ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
