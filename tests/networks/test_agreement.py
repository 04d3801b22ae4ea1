"""Torch, ONNX Runtime and the saved bundle give the same labels, whatever the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import WEIGHTS, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.export.graphs import export_graphs
from errseg_rt.networks import resnet, xception
from errseg_rt.networks.cascade import Cascade, CascadeConfig

# Between them, all backbones, heads and output strides. Others differ by how often they repeat a block.
NETWORKS = ("deeplabv3plus-resnet50", "dpc-xception71-os8", "pspnet-resnet101", "pspnet-xception65-os16")
SPEC = InputSpec(multiple=16, plus_one=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
THRESHOLD = 0.6


@pytest.fixture(params=NETWORKS)
def cascade(request, monkeypatch, random_norms):
    """A cascade on a network with one block where its authors repeat it: an exporter takes minutes for all of them."""
    monkeypatch.setattr(xception, "_MIDDLE_BLOCKS", 1)
    monkeypatch.setattr(resnet, "_BLOCKS", {50: (1, 1, 1), 101: (1, 1, 1)})
    torch.manual_seed(0)
    config = CascadeConfig(request.param, len(CAMVID.names), 8, 8, error_frozen=True, detail_frozen=True)
    cascade = random_norms(Cascade(config))
    for head in (cascade.error.head, cascade.detail.head):  # which start at zero
        torch.nn.init.normal_(head.weight)
    return cascade


def bundle_of(cascade, folder):
    manifest = Manifest(
        name="random",
        classes=CAMVID,
        input=SPEC,
        align_corners=True,
        threshold=THRESHOLD,
        lowest_threshold=THRESHOLD,
        calibration=Calibration((-5.0, 5.0), (0.1, 0.9)),
        cascade=cascade.config.to_dict(),
    )
    files = {f"graphs/{name}.onnx": data for name, data in export_graphs(cascade).items()}
    files[WEIGHTS] = save({name: tensor.contiguous() for name, tensor in cascade.state_dict().items()})
    return write_bundle(folder, manifest, files)


def by_definition(cascade, frame):
    """Labels of the definition, on the frame's pixels, which are the input's."""
    image = torch.from_numpy(frame[None, :, :, ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        fused = cascade(image, THRESHOLD)
    probabilities = F.interpolate(fused.p_f, size=frame.shape[:2], mode="bilinear", align_corners=True)
    return probabilities.argmax(1)[0].numpy(), fused.flagged.float().mean().item()


def test_labels_agree(cascade, tmp_path):
    bundle_of(cascade, tmp_path / "bundle")
    same = total = 0
    with Runtime(tmp_path / "bundle") as onnx, Runtime(tmp_path / "bundle", engine="torch") as torched:
        for size in ((97, 129), (145, 113)):
            frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
            wanted, flagged = by_definition(cascade, frame)
            assert len(np.unique(wanted)) > 2
            assert 0 < flagged < 1
            for runtime in (onnx, torched):
                same += (runtime.segment(frame).labels == wanted).sum()
                total += wanted.size
    assert same >= 0.9999 * total
