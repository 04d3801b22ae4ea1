"""A small cascade with random weights, its checkpoint, and the bundle exported from it, once for all tests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.networks import Cascade, CascadeConfig
from errseg_rt.runtime import Runtime
from errseg_rt.training.checkpoint import load_cascade, save_cascade
from tests.once import made_once

NOTES = {
    "recipe": {
        "name": "tiny",
        "seed": 3,
        "threshold": 0.6,
        "cascade": {"semantic": "squeezenas", "classes": 11, "error_width": 8, "detail_width": 8, "residual": True},
        "data": {"classes": "camvid", "void": [11], "rendered": 1.0, "merge": {}},
        "input": {"scale": 1.0, "multiple": 16, "plus_one": True},
        "augment": {"crop": [65, 65]},
        "semantic": {"iterations": 1, "batch": 1, "rate": 1e-3, "checkpoint_every": 1},
        "error": {"iterations": 1, "batch": 1, "rate": 1e-3, "checkpoint_every": 1},
        "detail": {"iterations": 1, "batch": 1, "rate": 1e-3, "checkpoint_every": 1},
        "bundle_threshold": 0.8,
        "provenance": {"data": "none at all", "initial_weights": "drawn at random"},
    },
    "calibration": {"logits": [-2.0, 0.0, 2.0], "probabilities": [0.05, 0.2, 0.9]},
    "detail_calibration": {"logits": [-1.0, 1.0], "probabilities": [0.2, 0.6]},
    "baseline_calibrations": {"entropy": {"logits": [-1.0, 1.0], "probabilities": [0.1, 0.3]}},
    "metrics": {
        "rendered": {
            "frames": 60,
            "flagged": 0.125,
            "semantic": {"miou": 0.4, "accuracy": 0.75, "iou": {"sky": 0.5, "road": None}},
            "fused": {"miou": 0.45, "accuracy": 0.8, "iou": {"sky": 0.625, "road": None}},
        }
    },
    "command": "errseg-rt train tiny -o out",
    "finished": "2030-01-02",
    "torch": "2.99",
    "init": None,
}


@pytest.fixture(scope="session")
def notes():
    """What a finished training notes."""
    return NOTES


def drawn():
    """Weights without the zeros that a training starts from, and batch norms that fit the activations."""
    torch.manual_seed(0)
    cascade = Cascade(CascadeConfig(**NOTES["recipe"]["cascade"]))
    for module in cascade.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # averages all batches
    with torch.no_grad():
        for _ in range(2):
            cascade.train()(torch.randn(2, 3, 97, 129))
    for head in (cascade.error.head, cascade.detail.head):
        nn.init.normal_(head.weight, std=0.3)
        nn.init.normal_(head.bias, std=0.3)
    return cascade.eval()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    def make(folder):
        save_cascade(folder / "cascade.safetensors", drawn(), NOTES)

    return made_once(tmp_path_factory, "tiny-checkpoint", make) / "cascade.safetensors"


@pytest.fixture(scope="session")
def cascade(checkpoint):
    return load_cascade(checkpoint)[0].eval()


@pytest.fixture(scope="session")
def bundle(checkpoint, tmp_path_factory):
    from errseg_rt.export.bundle import export_bundle

    def make(folder):
        license_file = folder / "TERMS.md"
        license_file.write_text("# Terms\n\nNone.\n", encoding="utf-8")
        export_bundle(checkpoint, folder / "tiny", "tiny bundle", license_file)

    return Bundle.open(made_once(tmp_path_factory, "tiny-bundle", make) / "tiny")


@pytest.fixture(scope="module")
def runtime(bundle):
    with Runtime(bundle.folder, threads=1) as opened:
        yield opened
