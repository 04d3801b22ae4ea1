"""Which branch of the cascade a node of a graph belongs to, told by the outputs that need it."""

from __future__ import annotations

import onnx

from errseg_rt.bundle.contract import PARTS, outputs_of


def branches_of_nodes(graph: onnx.GraphProto) -> list[str]:
    """The branch of each node, in the graph's order; "" for one that no output needs."""
    maker = {output: index for index, node in enumerate(graph.node) for output in node.output}
    found = [""] * len(graph.node)
    own = {output.name for output in graph.output}
    for branch in PARTS:
        open_names = [name for name in outputs_of(branch) if name in own]
        while open_names:
            index = maker.get(open_names.pop())
            if index is not None and not found[index]:
                found[index] = branch
                open_names += graph.node[index].input
    return found
