"""Narrow groups joined: the same function, and nothing lost that other nodes read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from errseg_rt.bundle.bundle import Bundle, zoo_names
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.groups import FEWEST_CHANNELS, join_narrow_groups

CASES = [  # groups, channels of each, outputs, groups when joined
    (2, 8, 16, 1),
    (2, 12, 24, 1),
    (3, 7, 9, 1),  # too few for one group even when all are joined
    (6, 5, 12, 1),  # 5 groups would do, and do not divide 6
    (8, 4, 24, 2),
    (5, 1, 5, 5),  # depthwise
    (5, 1, 10, 1),  # depthwise, two outputs each
    (2, 16, 4, 2),  # wide enough
    (1, 3, 8, 1),
]


def model_of(nodes, weights, inputs="x", outputs="y") -> onnx.ModelProto:
    values = [
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in names.split()]
        for names in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def run(model: onnx.ModelProto, **feeds):
    return OnnxRuntimeEngine(model.SerializeToString(), "g", threads=1).run(feeds)


def groups_of(model: onnx.ModelProto) -> list[int]:
    return [each.i for node in model.graph.node for each in node.attribute if each.name == "group"]


def shapes_of(model: onnx.ModelProto) -> list[list[int]]:
    return [list(each.dims) for each in model.graph.initializer]


@pytest.mark.parametrize(("groups", "channels", "outputs", "joined"), CASES)
def test_the_function_stays(groups, channels, outputs, joined):
    generator = np.random.default_rng(groups)
    weight = generator.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    x = generator.standard_normal((1, groups * channels, 7, 5)).astype(np.float32)
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"], group=groups)], {"w": weight})
    before = run(model, x=x)["y"]
    join_narrow_groups(model.graph)
    assert groups_of(model) == [joined]
    assert shapes_of(model) == [[outputs, groups * channels // joined, 3, 3]]
    np.testing.assert_allclose(run(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


def test_a_weight_is_joined_once_for_each_number_of_groups_and_stays_where_others_read_it():
    """A branch within a node reads the first weight, too."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((16, 4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=4),
        helper.make_node("Conv", ["a", "w"], ["b"], group=4),
        helper.make_node("Concat", ["b", "x"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "w"], ["y"], group=8),
    ]
    model = model_of(nodes, {"w": weight})
    x = generator.standard_normal((1, 16, 3, 2)).astype(np.float32)
    before = run(model, x=x)["y"]
    join_narrow_groups(model.graph)
    assert groups_of(model) == [1, 1, 2]
    assert shapes_of(model) == [[16, 16, 1, 1]] * 2
    np.testing.assert_allclose(run(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)

    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["i"])],
        "i",
        [],
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
    )
    model = model_of(
        [nodes[0], helper.make_node("If", ["a"], ["y"], then_branch=inner, else_branch=inner)], {"w": weight}
    )
    join_narrow_groups(model.graph)
    assert shapes_of(model) == [[16, 4, 1, 1], [16, 16, 1, 1]]


def test_weights_that_are_no_constants_stay():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    weight = np.ones((16, 4, 1, 1), np.float32)
    for model in (
        model_of([node], {}, "x w"),
        model_of([node], {"w": weight}, "x w"),
        model_of([node], {"w": weight}, "x", "y w"),
    ):
        before = model.SerializeToString()
        join_narrow_groups(model.graph)
        assert model.SerializeToString() == before


@pytest.mark.parametrize("name", zoo_names())
def test_embedded_graphs_have_no_narrow_groups(name):
    for graph in ("front", "refine"):
        model = onnx.load_from_string(Bundle.open(name).read(f"graphs/{graph}.onnx"))
        before = model.SerializeToString()
        join_narrow_groups(model.graph)
        assert model.SerializeToString() == before
        dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
        groups = [
            (node, next((each.i for each in node.attribute if each.name == "group"), 1)) for node in model.graph.node
        ]
        shapes = [(dims[node.input[1]], count) for node, count in groups if node.op_type == "Conv" and count > 1]
        assert all(shape[1] >= FEWEST_CHANNELS or (shape[1], shape[0]) == (1, count) for shape, count in shapes)
