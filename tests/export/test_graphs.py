"""The exported graphs, against the modules they were exported from."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch

from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.networks.graphs import GRAPHS

# Largest difference of logits: float32 through a hundred layers whose sums run in another order.
ROUNDING = 1e-4

SIZES = {
    "odd": (1, 97, 129),
    "batch": (2, 65, 33),
    "even": (1, 64, 128),
    "portrait": (1, 161, 49),
    "neither": (1, 50, 62),
    "one_pixel_at_stride_16": (1, 16, 16),
    "two_pooling_windows": (1, 33, 1105),  # 49 + 20 pixels at stride 16
}


@pytest.fixture(scope="module")
def engines(bundle):
    return {name: OnnxRuntimeEngine(bundle.read(f"graphs/{name}.onnx"), name, threads=1) for name in GRAPHS}


def test_graphs_name_what_goes_in_and_out(engines):
    assert list(engines["front"].inputs) == ["image"]
    assert list(engines["front"].outputs) == ["logits", "error_logit", "low", "coarse", "gate"]
    assert list(engines["refine"].inputs) == ["logits", "low", "coarse", "gate"]
    assert list(engines["refine"].outputs) == ["detail_logits"]


def test_batch_height_and_width_are_dynamic(engines, cascade):
    for name, engine in engines.items():
        graph = GRAPHS[name](cascade)
        for specs, shapes in ((engine.inputs, graph.input_shapes()), (engine.outputs, graph.output_shapes())):
            for key, shape in shapes.items():
                assert specs[key].dtype == "float32"
                assert specs[key].shape == shape, f"{name}: {key}"


@pytest.fixture(scope="module")
def exact_cascade(cascade):
    return copy.deepcopy(cascade).double()


def outputs(cascade, image, keys):
    with torch.no_grad():
        front = cascade.front(image)._asdict()
        detail = cascade.detail.refine(*(front[key] for key in keys))
    return {key: tensor.numpy() for key, tensor in {**front, "detail_logits": detail}.items()}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_graphs_agree_with_torch(engines, cascade, exact_cascade, size):
    batch, height, width = size
    image = torch.from_numpy(np.random.default_rng(height * width).standard_normal((batch, 3, height, width))).float()
    keys = list(engines["refine"].inputs)
    wanted, exact = outputs(cascade, image, keys), outputs(exact_cascade, image.double(), keys)
    found = engines["front"].run({"image": image.numpy()})
    found = {**found, **engines["refine"].run({key: wanted[key] for key in keys})}
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].shape == array.shape, key
        if key.endswith(("logits", "logit")):
            rounding = 2 * ROUNDING if key == "error_logit" else ROUNDING  # a difference of logits
            np.testing.assert_allclose(found[key], array, rtol=0, atol=rounding, err_msg=key)
        # Random weights let rounding grow from norm to norm: torch's own distance from float64 is the measure.
        own = np.abs(array - exact[key]).max()
        np.testing.assert_allclose(found[key], exact[key], rtol=0, atol=5 * own + 1e-5, err_msg=key)
    # The heads do something here, or refine would be trivial.
    assert np.abs(found["detail_logits"] - found["logits"]).max() > 0.1


def test_logits_are_handed_on_not_probabilities(engines, bundle):
    image = np.random.default_rng(0).standard_normal((1, 3, 97, 129)).astype(np.float32)
    front = engines["front"].run({"image": image})
    detail = engines["refine"].run({key: front[key] for key in engines["refine"].inputs})["detail_logits"]
    for logits in (front["logits"], detail):
        assert logits.min() < 0
        assert np.abs(logits.sum(axis=1) - 1).min() > 1e-6
    assert front["error_logit"].min() < 0 or front["error_logit"].max() > 1
    for name in GRAPHS:
        graph = onnx.load_from_string(bundle.read(f"graphs/{name}.onnx")).graph
        outputs = {output.name for output in graph.output}
        last = {node.op_type for node in graph.node if outputs & set(node.output)}
        assert not last & {"Softmax", "LogSoftmax", "Sigmoid"}


def test_graphs_are_valid_and_carry_no_traces(bundle):
    for name in GRAPHS:
        data = bundle.read(f"graphs/{name}.onnx")
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert b"site-packages" not in data
        assert b".py" not in data


def test_export_leaves_the_weights_as_they_are(cascade, bundle):
    from safetensors.torch import load

    exported = load(bundle.read("weights.safetensors"))
    assert exported.keys() == cascade.state_dict().keys()
    for name, tensor in cascade.state_dict().items():
        torch.testing.assert_close(exported[name], tensor, rtol=0, atol=0)
