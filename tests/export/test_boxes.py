"""Boxes of a bundle's front graph: the localization head's, of a cascade whose semantic branch is given or trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.bundle import export_bundle
from errseg_rt.networks import Cascade, CascadeConfig
from errseg_rt.networks.graphs import FrontGraph
from errseg_rt.runtime import Runtime
from errseg_rt.training.checkpoint import load_cascade, save_cascade
from tests.export.conftest import NOTES

SHAPE = {
    "semantic": "light-unet",
    "classes": 3,
    "error_width": 4,
    "error_features": "low",
    "error_context": "mid",
    "error_kernels": [1, 3, 1],
    "detail_width": 6,
    "detail_kernels": [1, 1, 3],
}
NAMES = ["logits", "error_logit", "low", "coarse", "gate", "boxes"]


@pytest.fixture(scope="module")
def cascade():
    torch.manual_seed(0)
    config = CascadeConfig(**SHAPE, grid_stride=2, things=(0, 2), localization_width=5, box_scale=6.0)
    cascade = Cascade(config)
    for module in cascade.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.2, 0.6)
    return cascade.eval()


@pytest.fixture(scope="module")
def bundle(cascade, tmp_path_factory):
    """What is exported of a training that found instances."""
    recipe = {
        **NOTES["recipe"],
        "cascade": cascade.config.to_dict(),
        "data": {"classes": {"names": ["cell", "ground", "bubble"]}},
        "input": {"multiple": 16},
        "localization": {"iterations": 1, "checkpoint_every": 1},
        "instances": {"overlap": 0.4, "least_pixels": 3},
    }
    metrics = {name: {"miou": None, "accuracy": None, "iou": {}} for name in ("semantic", "fused")}
    notes = {**NOTES, "recipe": recipe, "metrics": {"val": {"frames": 1, "flagged": 0.5, **metrics}}}
    folder = tmp_path_factory.mktemp("things")
    save_cascade(folder / "cascade.safetensors", cascade, notes)
    return export_bundle(folder / "cascade.safetensors", folder / "bundle", "things")


@pytest.fixture(scope="module")
def engine(bundle):
    return OnnxRuntimeEngine(bundle.read("graphs/front.onnx"), "front", threads=1)


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 33, 50), (1, 16, 16)], ids=str)
def test_onnxruntime_gives_torchs_boxes(cascade, engine, size):
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((size[0], 3, *size[1:]), np.float32))
    found = engine.run({"image": image.numpy()})
    assert list(found) == NAMES
    with torch.no_grad():
        wanted = cascade.localization(cascade.taps(image)).numpy()
        alone = FrontGraph(cascade)(image)
    assert found["boxes"].shape == wanted.shape == (size[0], 8, -(-size[1] // 2), -(-size[2] // 2))
    np.testing.assert_allclose(found["boxes"], wanted, rtol=1e-4, atol=1e-3)  # of boxes of six cells
    np.testing.assert_array_equal(alone[-1].numpy(), wanted)
    sides = found["boxes"].reshape(size[0], 2, 4, -1)[:, :, 2:]
    assert sides.min() > 0


def test_heads_scale_is_that_of_the_config(cascade):
    taps = cascade.taps(torch.randn(1, 3, 32, 32))
    before = cascade.localization(taps)
    cascade.localization.scale *= 2
    after = cascade.localization(taps)
    cascade.localization.scale /= 2
    torch.testing.assert_close(after, 2 * before, rtol=0, atol=0)


def test_a_head_whose_last_layer_is_zero_says_boxes_of_the_typical_side(cascade):
    head = Cascade(cascade.config).eval().localization
    nn.init.zeros_(head.head.weight)
    boxes = head(cascade.taps(torch.randn(1, 3, 16, 32))).detach()
    assert boxes[0, :4, 0, 0].tolist() == [0, 0, 6, 6]


def test_graphs_without_things_have_no_boxes():
    plain = Cascade(CascadeConfig(**SHAPE, grid_stride=2))
    assert list(FrontGraph(plain).output_shapes()) == NAMES[:-1]
    assert not any(name.startswith("localization") for name in plain.state_dict())


def test_a_saved_cascade_keeps_its_things(tmp_path, cascade):
    path = tmp_path / "cascade.safetensors"
    save_cascade(path, cascade, {})
    loaded, _ = load_cascade(path)
    assert loaded.config == cascade.config
    for name, value in cascade.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_bundle_says_how_its_instances_are_found(bundle):
    again = Bundle.open(bundle.folder).manifest
    assert again.instances == InstanceSpec((0, 2), overlap=0.4, least_pixels=3)
    frame = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
    found = []
    for engine in ("onnxruntime", "torch"):
        with Runtime(bundle.folder, engine=engine) as runtime:
            found.append(runtime.segment(frame).instances)
    assert len(found[0]) == len(found[1])
    assert (found[0].map == found[1].map).mean() > 0.999  # but where scores tie to their last digits
