"""int8 graphs: which convolutions are quantised, for which engine, and that their labels stay above the bar."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from errseg_rt.bundle import Bundle
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.quantise import quantise
from errseg_rt.export.tensorrt.operators import refused
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


def test_what_is_quantised(quantised, front: bytes) -> None:
    engine, model = quantised
    made = makers(model)
    weights = {each.name: each for each in onnx.load_from_string(front).graph.initializer}
    count = 0
    for node in model.graph.node:
        is_int8 = any(made[each].op_type == "DequantizeLinear" for each in node.input[:1] if each in made)
        if node.op_type == "Conv":
            has_int8_weight = node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear"
            count += has_int8_weight
            if has_int8_weight:
                assert is_int8, node.name
            else:
                assert engine == "onnxruntime"
                assert weights[node.input[1]].dims[1] < 16
    assert count > 50


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
