"""What an ONNX node says, reads, and holds within itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, texts as texts."""
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs within a node, as those of If and Loop."""
    for each in node.attribute:
        yield from [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of graphs within nodes too."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from every_node(inner)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, also from within its graphs."""
    yield from filter(None, node.input)
    for inner in subgraphs(node):
        yield from names_read(inner)


def names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the tensors that a graph's nodes read, each as often as it is, and of those that it gives."""
    for node in graph.node:
        yield from reads(node)
    yield from (value.name for value in graph.output)
