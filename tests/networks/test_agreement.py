"""Torch, ONNX Runtime and the saved bundle give the same labels, whatever the network.

ERRSEG_ALL_NETWORKS=1 has every registered network compared, at its full depth, which takes half an hour or more; -s
shows the shares. Without, it is one of each head.
"""

from __future__ import annotations

import copy
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import WEIGHTS, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.export.graphs import export_graphs
from errseg_rt.networks import resnet, xception
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.networks.registry import SEMANTIC_NETWORKS, build_semantic
from errseg_rt.scenes import StreetScene

ALL = os.environ.get("ERRSEG_ALL_NETWORKS") == "1"
# One of each head; each takes a minute to export, and the others are of the same layers.
NETWORKS = sorted(SEMANTIC_NETWORKS) if ALL else ("dpc-xception71-os8", "pspnet-resnet101")
SIZES = {True: ((257, 513), (385, 289)), False: ((256, 512), (384, 288))} if ALL else {True: ((97, 129), (145, 113))}
"""Two sizes, by whether the corners are aligned; large enough, with all, that one near tie is less than 0.01 %."""


@pytest.fixture(params=NETWORKS)
def cascade(request, monkeypatch):
    """A cascade on a network, with one block where its authors repeat it: an exporter takes minutes for all of them."""
    if not ALL:
        monkeypatch.setattr(xception, "_MIDDLE_BLOCKS", 1)
        monkeypatch.setattr(resnet, "_BLOCKS", {50: (1, 1, 1), 101: (1, 1, 1)})
    torch.manual_seed(0)
    network = build_semantic(request.param, len(CAMVID.names))
    stride = getattr(network, "grid_stride", GRID_STRIDE)
    config = CascadeConfig(
        request.param, len(CAMVID.names), 8, 8, grid_stride=stride, error_frozen=True, detail_frozen=True
    )
    cascade = Cascade(config, network)
    for norm in (module for module in cascade.semantic.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = None  # statistics of the whole pass below: with others, all pixels would get one label
    size = SIZES[cascade.semantic.align_corners][0]
    streets = [StreetScene(seed, *size).frame(0).frame for seed in range(4)]
    with torch.no_grad():
        cascade.semantic(torch.cat([as_input(street) for street in streets]))
    for head in (cascade.error.head, cascade.detail.head):  # which start at zero
        nn.init.normal_(head.weight)
    return cascade.eval()


def as_input(frame):
    return torch.from_numpy(frame[None, :, :, ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def threshold_of(cascade, frames):
    """One that flags about half of the pixels, and that no error logit is near: rounding shall not flag others."""
    logits = torch.cat([cascade.front(as_input(frame)).error_logit.flatten() for frame in frames]).sort().values
    middle = logits[2 * len(logits) // 5 : 3 * len(logits) // 5]
    widest = middle.diff().argmax()
    return middle[widest : widest + 2].mean().sigmoid().item()


def bundle_of(cascade, threshold, folder):
    aligned = cascade.semantic.align_corners
    manifest = Manifest(
        name="random",
        classes=CAMVID,
        input=InputSpec(multiple=16 if aligned else 32, plus_one=aligned, mean=(0.5,) * 3, std=(0.5,) * 3),
        align_corners=aligned,
        grid_stride=cascade.config.grid_stride,
        threshold=threshold,
        lowest_threshold=threshold,
        calibration=Calibration((-5.0, 5.0), (0.1, 0.9)),
        cascade=cascade.config.to_dict(),
    )
    files = {f"graphs/{name}.onnx": data for name, data in export_graphs(cascade).items()}
    files[WEIGHTS] = save({name: tensor.contiguous() for name, tensor in cascade.state_dict().items()})
    return write_bundle(folder, manifest, files)


@torch.no_grad()
def by_definition(cascade, threshold, frame):
    """Labels of the definition, in double precision, on the frame's pixels, which are the input's; and which are clear.

    Not clear is what single precision leaves open: where twice its rounding is more than lies between the two best
    probabilities, or, at a grid pixel near by, between the two best logits, one of which the error logit is about, or
    between the error logit and the threshold.
    """
    image, aligned = as_input(frame), cascade.semantic.align_corners
    precise = copy.deepcopy(cascade).double()

    def upsampled(grid):
        return F.interpolate(grid, size=frame.shape[:2], mode="bilinear", align_corners=aligned)[0]

    def rounding(wanted, got):
        return 2 * (wanted - got).abs().amax()

    wanted, got = precise.front(image.double()), cascade.front(image)
    best = wanted.logits.topk(2, dim=1).values
    is_open = best[:, :1] - best[:, 1:] <= rounding(wanted.logits, got.logits)
    error = rounding(wanted.error_logit[~is_open], got.error_logit[~is_open])
    is_open |= (wanted.error_logit - math.log(threshold / (1 - threshold))).abs() <= error
    is_clear = upsampled(is_open.double())[0] == 0
    fused = precise(image.double(), threshold)
    probabilities = upsampled(fused.p_f)
    same = rounding(probabilities[:, is_clear], upsampled(cascade(image, threshold).p_f)[:, is_clear])
    best = probabilities.topk(2, dim=0)
    is_clear &= best.values[0] - best.values[1] > same
    return best.indices[0].numpy(), is_clear.numpy(), fused.flagged.float().mean().item()


def test_labels_agree(cascade, tmp_path):
    frames = [StreetScene(9, *size).frame(0).frame for size in SIZES[cascade.semantic.align_corners]]
    threshold = threshold_of(cascade, frames)
    bundle_of(cascade, threshold, tmp_path / "bundle")
    same = total = 0
    with Runtime(tmp_path / "bundle") as onnx, Runtime(tmp_path / "bundle", engine="torch") as torched:
        for frame in frames:
            wanted, is_clear, flagged = by_definition(cascade, threshold, frame)
            assert len(np.unique(wanted)) > 2
            assert 0.1 < flagged < 0.9
            assert is_clear.mean() > 0.9
            for runtime in (onnx, torched):
                agrees = runtime.segment(frame).labels == wanted
                shares = f"{agrees[is_clear].mean():.4%} of {is_clear.mean():.1%}, {agrees.mean():.4%} of all"
                print(cascade.config.semantic, runtime.options.engine, wanted.shape, shares)
                same += agrees[is_clear].sum()
                total += is_clear.sum()
    assert same >= 0.9999 * total
