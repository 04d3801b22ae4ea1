"""Cascades around a user's network, and what they are exported from and to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.export.bundle import export_bundle
from errseg_rt.export.network_file import open_network
from errseg_rt.networks import Cascade, CascadeConfig
from errseg_rt.training.checkpoint import save_cascade
from errseg_rt.training.frozen import FrozenNetwork
from tests.export.conftest import NOTES
from tests.user_network import TAPS, UserNetwork, lively, write

SPEC = InputSpec(multiple=16, plus_one=True)


def cascade_of(
    path: Path,
    spec: InputSpec,
    grid_stride: int,
    features: str = "low",
    names: Mapping[str, str] | None = None,
    things: tuple[int, ...] = (),
) -> Cascade:
    """A cascade whose branches have random weights, and norms that are frozen."""
    network = open_network(path, spec)
    maps = network.maps()
    names = names or {tap: each.map.name for tap, each in network.proposed(maps, grid_stride).items()}
    frozen = FrozenNetwork.of(network, network.chosen(maps, names, grid_stride), grid_stride)
    torch.manual_seed(0)
    config = CascadeConfig(
        "onnx", network.classes, 8, 8, error_features=features, grid_stride=grid_stride, things=things
    )
    cascade = Cascade(config, frozen).eval()
    for head in (cascade.error.head, cascade.detail.head):
        nn.init.normal_(head.weight, std=0.3)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, *(spec.size or (65, 97))), np.float32))
    for branch in ("error", "detail"):
        cascade.freeze_norms(branch, lambda: cascade(image))
    return cascade


def checkpoint_of(cascade: Cascade, folder: Path) -> Path:
    """What a training of it writes."""
    notes = copy.deepcopy(NOTES)
    notes["recipe"].update(
        cascade=cascade.config.to_dict(), semantic={"iterations": 0}, taps=TAPS, views={"scales": [1.0]}
    )
    save_cascade(folder / "cascade.safetensors", cascade, notes)
    return folder / "cascade.safetensors"


def joined_bundle(folder: Path) -> Bundle:
    """A bundle around `UserNetwork`."""
    path = write(lively(UserNetwork()), folder / "user.onnx")
    return export_bundle(checkpoint_of(cascade_of(path, SPEC, 4, names=TAPS), folder), folder / "joined", "joined")
