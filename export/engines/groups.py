"""Narrow groups of convolutions, joined: the same function, and fewer gathers for ONNX Runtime on a CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from errseg_rt.export.engines.nodes import names_read

FEWEST_CHANNELS = 16
"""Of a group that stays by itself: a vector of AVX-512, the block in which ONNX Runtime lays out channels there."""


def join_narrow_groups(graph: onnx.GraphProto) -> None:
    """Join groups of few channels into wider ones, with zeros between them, but depthwise ones.

    The function is the same, also in int8, where zero is exact. ONNX Runtime has convolutions on blocks of 8 channels
    (AVX2) or 16 (AVX-512). Groups whose channels are no multiple of that it takes out of the blocks, gathers one by one
    and puts back: two groups of 8 or 12 channels took three to five times as long as one group of both (onnxruntime
    1.31, AVX-512). Joined further than into 16 channels or the next more, they take longer again, by what zeros cost.

    Args:
        graph: Changed in place. Weights that are no constants of its own stay, and the nodes that read them.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        weights.pop(value.name, None)
    replaced = set()
    for node in graph.node:
        attribute = next((each for each in node.attribute if each.name == "group"), None)
        if node.op_type != "Conv" or node.domain or attribute is None or node.input[1] not in weights:
            continue
        old, groups = node.input[1], attribute.i
        outputs, channels = weights[old].dims[:2]
        count = _joined(groups, channels, outputs)
        if count == 1:
            continue
        node.input[1], attribute.i = f"{old}.{groups}_to_{groups // count}", groups // count
        if node.input[1] not in weights:  # unless another node reads the same
            joined = wide(numpy_helper.to_array(weights[old]), groups, count)
            weights[node.input[1]] = numpy_helper.from_array(joined, node.input[1])
            graph.initializer.append(weights[node.input[1]])
        replaced.add(old)
    left = replaced - set(names_read(graph))
    kept = [tensor for tensor in graph.initializer if tensor.name not in left]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _joined(groups: int, channels: int, outputs: int) -> int:
    """How many groups shall be one: 1 where they stay as they are."""
    is_depthwise = channels == 1 and groups == outputs
    if groups == 1 or is_depthwise or channels >= FEWEST_CHANNELS:
        return 1
    divisors = (count for count in range(2, groups) if groups % count == 0)
    return next((count for count in divisors if count * channels >= FEWEST_CHANNELS), groups)


def wide(weight: npt.NDArray[np.generic], groups: int, count: int) -> npt.NDArray[np.generic]:
    """The weight `[O, count * c, ...]` of groups joined by `count`, from `[O, c, ...]` of all `groups`."""
    outputs, channels = weight.shape[:2]
    result = np.zeros((outputs, count * channels, *weight.shape[2:]), weight.dtype)
    for group, rows in enumerate(np.split(np.arange(outputs), groups)):
        first = group % count * channels
        result[rows, first : first + channels] = weight[rows]
    return result
