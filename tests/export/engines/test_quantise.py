"""int8 graphs: which convolutions are quantised, for which engine, and that their labels stay above the bar."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.quantise import _round_weights, quantise
from errseg_rt.export.engines.tensorrt.operators import refused
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.scenes import StreetScene


def image(index: int):
    spec, size = Bundle.open("camvid").manifest.input, (145, 209)
    frame = StreetScene(3, *size).frame(index).frame
    return preprocess(frame, spec.content_size(size), spec.input_size(size), mean=spec.mean, std=spec.std)


@pytest.fixture(scope="module")
def front() -> bytes:
    return Bundle.open("camvid").read("graphs/front.onnx")


@pytest.fixture(scope="module", params=["onnxruntime", "tensorrt"])
def quantised(request, front: bytes):
    feeds = [{"image": image(10 * index)} for index in range(4)]
    return request.param, onnx.load_from_string(quantise(front, feeds, request.param))


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {each: node for node in model.graph.node for each in node.output}


def largest_sum(model: onnx.ModelProto) -> int:
    """The largest sum, by its amount, of two products of a uint8 and weights of one output channel."""
    made, constants = makers(model), {each.name: each for each in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and has_int8_weight(node, made)]
    sums = []
    for node in convolutions:
        weight = onnx.numpy_helper.to_array(constants[made[node.input[1]].input[0]]).astype(np.int64)
        rows = weight.reshape(len(weight), -1)
        for signed in (rows, -rows):
            two = np.sort(signed.clip(min=0), axis=1)[:, -2:]  # alone with a zero where there is but one weight
            sums.append(255 * two.sum(axis=1).max())
    assert len(sums) > 100
    return int(max(sums))


def has_int8_weight(node: onnx.NodeProto, made: dict[str, onnx.NodeProto]) -> bool:
    return node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear"


def test_what_is_quantised(quantised) -> None:
    engine, model = quantised
    made = makers(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_fp32 = [node.name for node in convolutions if not has_int8_weight(node, made)]
    constants = {each.name: each.dims for each in model.graph.initializer}
    light = in_fp32[4:]
    for node in convolutions:
        is_int8 = node.input[0] in made and made[node.input[0]].op_type == "DequantizeLinear"
        assert is_int8 == (node.name not in in_fp32) or node.name in light, node.name
    if engine == "tensorrt":
        assert in_fp32 == []
    else:  # the first block, what sees P_sb, and what gives one value for each of 11 classes
        assert in_fp32[:4] == [node.name for node in convolutions[:4]]
        shapes = [constants[node.input[1]][:2] for node in convolutions if node.name in light]
        assert [shape for shape in shapes if shape[0] != 11] == [[16, 12]]
        assert len(shapes) == 4
    assert len(convolutions) > 50


def test_onnxruntime_computes_what_was_decided(quantised, tmp_path) -> None:
    """Its optimiser makes int8 convolutions of fp32 ones that stand between two Q/DQ pairs: there shall be none."""
    engine, model = quantised
    if engine != "onnxruntime":
        pytest.skip("TensorRT decides for itself")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in optimised.graph.node)
    made = makers(model)
    decided = Counter(has_int8_weight(node, made) for node in model.graph.node if node.op_type == "Conv")
    assert kinds["Conv"] + kinds["FusedConv"] == decided[False]
    assert kinds["QLinearConv"] == decided[True]


def test_weights_are_symmetric_channel_by_channel(quantised) -> None:
    _, model = quantised
    constants = {each.name: each for each in model.graph.initializer}
    found = 0
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weight = constants[node.input[0]]
            if weight.data_type == TensorProto.INT8 and len(weight.dims) == 4:
                assert list(constants[node.input[1]].dims) == [weight.dims[0]]
                assert not onnx.numpy_helper.to_array(constants[node.input[2]]).any()
                found += 1
    assert found > 50


def test_activations_are_what_the_engine_wants(quantised) -> None:
    engine, model = quantised
    constants = {each.name: each.data_type for each in model.graph.initializer}
    kinds = {constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert kinds == {TensorProto.UINT8 if engine == "onnxruntime" else TensorProto.INT8}
    if engine == "tensorrt":
        assert refused(model) == []


def test_inputs_and_outputs_stay(quantised, front: bytes) -> None:
    _, model = quantised
    original = onnx.load_from_string(front)
    for kind in ("input", "output"):
        assert [each.name for each in getattr(model.graph, kind)] == [
            each.name for each in getattr(original.graph, kind)
        ]
        assert {each.type.tensor_type.elem_type for each in getattr(model.graph, kind)} == {TensorProto.FLOAT}


def test_no_two_products_overflow_16_bits(quantised) -> None:
    """So that x86-64 without VNNI, which adds them two by two with saturation, computes what all others do.

    This holds in whatever order a kernel takes the weights, and for whatever lies in a frame.
    """
    engine, model = quantised
    assert (largest_sum(model) <= np.iinfo(np.int16).max) == (engine == "onnxruntime")


def conv(weight: np.ndarray) -> onnx.GraphProto:
    values = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    return onnx.helper.make_graph([node], "g", values[:1], values[1:], [onnx.numpy_helper.from_array(weight, "w")])


@pytest.mark.parametrize(
    ("weights", "largest"),
    [
        ([1.0], 127),  # alone
        ([1.0, 0.1, -1.0], 115),  # products of opposite signs do not add up
        ([1.0, 0.001], 127),
        ([1.0, 1.0, 0.5], 64),
        ([-1.0, -1.0, 1.0], 64),
        ([0.0, 0.0], 0),
    ],
)
def test_steps_are_no_coarser_than_two_weights_want(weights: list[float], largest: int) -> None:
    graph = conv(np.float32(weights).reshape(1, -1, 1, 1))
    ((step,),) = _round_weights(graph, set()).values()
    rounded = onnx.numpy_helper.to_array(graph.initializer[0])
    assert np.abs(rounded / step["scale"]).max() == pytest.approx(largest, rel=1e-6)
    assert _round_weights(graph, {"conv"}) == {}


@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (4, 1, 5, 5), (3, 64, 1, 1), (2, 1, 1, 1)], ids=str)
def test_weights_move_by_less_than_a_step_and_their_sums_by_half_of_one(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(shape[0]).standard_normal(shape).astype(np.float32)
    weight[0, 0, 0, 0] = 0
    graph = conv(weight)
    (steps,) = _round_weights(graph, set()).values()
    step = np.array([each["scale"] for each in steps], np.float64).reshape(-1, 1, 1, 1)
    rounded = onnx.numpy_helper.to_array(graph.initializer[0]) / step
    np.testing.assert_allclose(rounded, np.rint(rounded), atol=1e-4)  # 127 steps in float32
    moved = np.rint(rounded) - weight / step
    assert np.abs(moved).max() < 1
    assert np.abs(moved.sum(axis=(1, 2, 3))).max() <= 0.5 + 1e-6
    assert rounded[0, 0, 0, 0] == 0


def test_labels_stay_above_the_bar(quantised, front: bytes) -> None:
    """On frames that it was not calibrated on."""
    _, model = quantised
    data = model.SerializeToString()
    reference, other = (OnnxRuntimeEngine(each, "front", threads=1) for each in (front, data))
    equal = []
    for index in (5, 25):
        logits = [each.run({"image": image(index)})["logits"] for each in (reference, other)]
        equal.append((logits[0].argmax(1) == logits[1].argmax(1)).mean())
    assert np.mean(equal) >= 0.98  # the bar of 99 % is for fused labels of whole frames; these are 55x79 grids
    assert np.mean(equal) < 1, "nothing was quantised"


def test_it_wants_a_frame(front: bytes) -> None:
    with pytest.raises(ValueError, match="no frame to calibrate on"):
        quantise(front, [], "onnxruntime")
