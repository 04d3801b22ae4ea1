"""What is done with ONNX graphs here: who makes a tensor, what a constant holds, what is needed, free names."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from errseg_rt.export.engines.nodes import every_node, reads, subgraphs

_AXES_ARE_INPUTS = 18  # opset from which on ReduceMax and ReduceMin are told so; ReduceSum from 13 on


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def constant(graph: onnx.GraphProto, name: str) -> npt.NDArray[np.generic] | None:
    """What a tensor holds, if the file says so."""
    found = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    return None if found is None else numpy_helper.to_array(found)


def prune(graph: onnx.GraphProto) -> None:
    """Leave what the graph's outputs need alone."""
    made = producers(graph)
    needed, left = set(), [value.name for value in graph.output]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += reads(made[name]) if name in made else ()
            left += made[name].output if name in made else ()
    for values in (graph.node, graph.initializer, graph.value_info):
        kept = [each for each in values if needed.intersection(getattr(each, "output", ()) or [each.name])]
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del values[:]
        values.extend(copies)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those that they need, as ONNX wants it and not every exporter does it."""
    index = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = {number: {index[name] for name in reads(node) if name in index} for number, node in enumerate(graph.node)}
    if all(before < number for number, befores in needs.items() for before in befores):
        return
    nodes = [
        onnx.NodeProto.FromString(graph.node[number].SerializeToString())
        for number in TopologicalSorter(needs).static_order()
    ]
    del graph.node[:]
    graph.node.extend(nodes)


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors of a graph."""
    values = {value.name for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)}
    for node in every_node(graph):
        values.update(node.input, node.output)
        for inner in subgraphs(node):
            values.update(value.name for value in (*inner.input, *inner.output, *inner.initializer))
    return values


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors other names, wherever they are read or made."""
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        for inner in subgraphs(node):
            rename(inner, names)


def free_name(wanted: str, taken: set[str]) -> str:
    """A name like the one that is wanted, which is taken from then on."""
    name = wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: quantisers, and messages, tell nodes by them."""
    taken: set[str] = set()
    for node in every_node(graph):
        node.name = free_name(node.name or f"{node.op_type}_{node.output[0]}", taken)


class Builder:
    """Makes nodes under names that are free.

    Args:
        prefix: What the new names begin with.
        taken: Names that are not.
        opset: Version of the operators.

    Attributes:
        graph: The nodes so far, and their constants.
    """

    def __init__(self, prefix: str, taken: Iterable[str], opset: int) -> None:
        self.graph, self._prefix, self._opset = onnx.GraphProto(), prefix, opset
        self._taken = set(taken)

    def node(self, op: str, inputs: Iterable[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; gives the name of its output."""
        name = free_name(f"{self._prefix}{op}", self._taken)
        output = output or name
        self.graph.node.append(onnx.helper.make_node(op, list(inputs), [output], name, **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant; gives its name."""
        name = free_name(f"{self._prefix}constant", self._taken)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def reduce(self, op: str, name: str) -> str:
        """Append ReduceMax, ReduceMin or ReduceSum over the channels, whose axes are an input in newer opsets."""
        if op == "ReduceSum" or self._opset >= _AXES_ARE_INPUTS:
            return self.node(op, [name, self.constant([1], np.int64)], keepdims=1)
        return self.node(op, [name], axes=[1], keepdims=1)
