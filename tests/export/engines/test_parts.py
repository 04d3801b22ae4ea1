"""Convolutions of concatenations taken apart: the same function, and only where ONNX Runtime gains by it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.parts import part_concatenations

make = helper.make_node
SIZES = {"a": 5, "b": 3, "c": 4}
BESIDE = {"a": "Relu", "b": "Sigmoid", "c": "Exp"}  # the first is made in blocks, behind a convolution


def value(name: str, channels: int | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, None, None])


def model_of(nodes, weights, *, inputs=SIZES, outputs=(("y", 6),)) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
    graph = helper.make_graph(
        nodes, "g", [value(*each) for each in inputs.items()], [value(*each) for each in outputs], tensors
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    return model


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def example(order: str = "cab", *, kernel: int = 1, bias: bool = True, **attributes) -> onnx.ModelProto:
    """A convolution of a concatenation of three, of which the one called "a" comes from a convolution."""
    nodes = [make("Conv", ["a", "first"], ["before"]), make("Relu", ["before"], ["of_a"])]
    nodes += [make(BESIDE[name], [name], [f"of_{name}"]) for name in "bc"]
    nodes.append(make("Concat", [f"of_{name}" for name in order], ["cat"], "cat", axis=1))
    nodes.append(make("Conv", ["cat", "w", "v"][: 2 + bias], ["y"], "last", **attributes))
    shapes = {"first": (5, 5, 1, 1), "w": (6, sum(SIZES[name] for name in order), kernel, kernel)}
    return model_of(nodes, weights(**shapes, **({"v": (6,)} if bias else {})))


def run(model: onnx.ModelProto):
    generator = np.random.default_rng(1)
    feeds = {
        each.name: generator.standard_normal((1, each.type.tensor_type.shape.dim[1].dim_value, 7, 5), np.float32)
        for each in model.graph.input
    }
    return OnnxRuntimeEngine(model.SerializeToString(), "g", threads=1).run(feeds)


def count(model: onnx.ModelProto, operator: str) -> int:
    return sum(node.op_type == operator for node in model.graph.node)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["abc", "cab", "bca", "ba"])
def test_the_function_stays(order: str, bias: bool) -> None:
    model = example(order, bias=bias)
    before = run(model)["y"]
    part_concatenations(model)
    onnx.checker.check_model(model)
    assert (count(model, "Conv"), count(model, "Add"), count(model, "Concat")) == (3, 1, len(order) - 2)
    rest = SIZES["b"] + SIZES["c"] * ("c" in order)
    widths = [list(each.dims[:2]) for each in model.graph.initializer if each.name.startswith("w.")]
    assert widths == [[6, SIZES["a"]], [6, rest]]
    assert "w" not in {each.name for each in model.graph.initializer}
    np.testing.assert_allclose(run(model)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        example("bc"),  # none comes from a convolution
        example(kernel=3, pads=[1, 1, 1, 1]),
        example(strides=[2, 2]),
        example(pads=[1, 1, 1, 1]),
        model_of(  # all do
            [
                *(make("Conv", [name, f"w{name}"], [f"of_{name}"]) for name in "ab"),
                make("Concat", ["of_a", "of_b"], ["cat"], axis=1),
                make("Conv", ["cat", "w"], ["y"]),
            ],
            weights(wa=(5, 5, 1, 1), wb=(3, 3, 1, 1), w=(6, 8, 1, 1)),
            inputs={"a": 5, "b": 3},
        ),
        model_of(  # others read the concatenation, too
            [
                make("Conv", ["a", "first"], ["of_a"]),
                make("Concat", ["of_a", "b"], ["cat"], axis=1),
                make("Conv", ["cat", "w"], ["y"]),
            ],
            weights(first=(5, 5, 1, 1), w=(6, 8, 1, 1)),
            inputs={"a": 5, "b": 3},
            outputs=(("y", 6), ("cat", 8)),
        ),
        model_of(  # groups
            [
                make("Conv", ["a", "first"], ["of_a"]),
                make("Concat", ["of_a", "b"], ["cat"], axis=1),
                make("Conv", ["cat", "w"], ["y"], group=2),
            ],
            weights(first=(5, 5, 1, 1), w=(6, 4, 1, 1)),
            inputs={"a": 5, "b": 3},
        ),
        model_of(  # weights that are computed
            [
                make("Conv", ["a", "first"], ["of_a"]),
                make("Concat", ["of_a", "b"], ["cat"], axis=1),
                make("Abs", ["w"], ["computed"]),
                make("Conv", ["cat", "computed"], ["y"]),
            ],
            weights(first=(5, 5, 1, 1), w=(6, 8, 1, 1)),
            inputs={"a": 5, "b": 3},
        ),
        model_of(  # a part of unknown width
            [
                make("Conv", ["a", "first"], ["of_a"]),
                make("Concat", ["of_a", "b"], ["cat"], axis=1),
                make("Conv", ["cat", "w"], ["y"]),
            ],
            weights(first=(5, 5, 1, 1), w=(6, 8, 1, 1)),
            inputs={"a": 5, "b": None},
        ),
    ],
)
def test_what_stays_as_it_is(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    part_concatenations(model)
    assert model.SerializeToString() == before


def test_a_weight_that_another_convolution_reads_is_kept() -> None:
    nodes = [
        make("Conv", ["a", "first"], ["of_a"]),
        make("Concat", ["of_a", "b"], ["cat"], axis=1),
        make("Conv", ["cat", "w"], ["y"], "one"),
        make("Conv", ["x", "w"], ["z"], "other"),
    ]
    shapes = weights(first=(5, 5, 1, 1), w=(6, 8, 1, 1))
    model = model_of(nodes, shapes, inputs={"a": 5, "b": 3, "x": 8}, outputs=(("y", 6), ("z", 6)))
    before = run(model)
    part_concatenations(model)
    onnx.checker.check_model(model)
    after = run(model)
    assert count(model, "Conv") == 4
    for name in ("y", "z"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)


def test_the_embedded_bundle_is_made_so() -> None:
    model = onnx.load_from_string(Bundle.open("camvid").read("graphs/front.onnx"))
    before = model.SerializeToString()
    part_concatenations(model)
    assert model.SerializeToString() == before
    error = [each.name for each in model.graph.initializer if "error" in each.name and each.name.endswith(".rest")]
    assert len(error) == 1, "P_sb goes into a convolution of its own"
