"""PSPNet, against its authors' layers, torch's adaptive pooling, and published counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.pspnet import PSPNet, pool_bins
from errseg_rt.networks.registry import SEMANTIC_NETWORKS

RESNET50, RESNET101 = "pspnet-resnet50", "pspnet-resnet101"


def conv(weights, x, name):
    """Convolution, batch norm, ReLU."""
    kernel = weights[f"{name}.conv.weight"]
    x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()


def by_definition(weights, last):
    """Zhao et al. 2017, fig. 3: logits, and what the pyramid pooling generates."""
    levels = []
    for index, bins in enumerate((1, 2, 3, 6)):
        level = conv(weights, F.adaptive_avg_pool2d(last, bins), f"pyramid.levels.{index}")
        levels.append(F.interpolate(level, size=last.shape[2:], mode="bilinear", align_corners=True))
    high = torch.cat(levels, dim=1)
    x = conv(weights, torch.cat([last, high], dim=1), "fuse")
    return F.conv2d(x, weights["logits.weight"], weights["logits.bias"]), high


def halved(x):
    """Means of 2x2 blocks; at an odd end, of what there is."""
    rows, cols = (range(0, side, 2) for side in x.shape[2:])
    blocks = [[x[:, :, r : r + 2, c : c + 2].mean(dim=(2, 3)) for c in cols] for r in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in blocks], dim=-2)


@pytest.mark.parametrize(
    "size", [(90, 90), (129, 257), (17, 25), (7, 6), (5, 4), (1, 2)], ids=lambda s: f"{s[0]}x{s[1]}"
)
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_bins_are_those_of_adaptive_pooling(size, bins):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(pool_bins(x, bins), F.adaptive_avg_pool2d(x, bins), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(97, 129), (88, 90)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_head_follows_the_authors_layers(random_norms, stub_backbone, size, stride):
    network = random_norms(PSPNet(5, stub_backbone(stride))).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        low, mid, deep, last = network.backbone(image)
        taps = network(image)
        logits, high = by_definition(network.state_dict(), last)
    wanted = (logits, low, mid, *((halved(deep), halved(high)) if stride == 8 else (deep, high)))
    for name, tap, reference in zip(taps._fields, taps, wanted, strict=True):
        torch.testing.assert_close(tap, reference, rtol=1e-9, atol=1e-9, msg=name)


def test_published_counts(on_meta, multiply_adds):
    # Xie et al. 2021 (SegFormer), table 2: PSPNet with ResNet-101 on ADE20K, 68.1 M parameters, 256.4 G at 512x512.
    # That one (of mmsegmentation) has an auxiliary head, left out of its multiply-adds, and a stem of half the width.
    network = on_meta(SEMANTIC_NETWORKS[RESNET101], 150)
    stem, first = 9 * (3 * 64 + 64 * 64 + 64 * 128), 128 * (64 + 256)
    narrow_stem, narrow_first = 9 * (3 * 32 + 32 * 32 + 32 * 64), 64 * (64 + 256)
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 256 * 150 + 150
    norms = 2 * (64 + 64 + 128 - 32 - 32 - 64)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    parameters += auxiliary - (stem - narrow_stem) - (first - narrow_first) - norms
    assert round(parameters / 1e6, 1) == 68.1
    billions = multiply_adds(network, 512, 512)[0]
    billions -= ((stem - narrow_stem) * 256**2 + (first - narrow_first) * 128**2) / 1e9
    # Theirs count norms and pooling too.
    assert billions == pytest.approx(256.4, rel=0.002)


@pytest.mark.parametrize("size", [(1025, 2049), (50, 97)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("name", "stride", "channels"),
    [
        (RESNET50, 8, (256, 512, 1024, 2048)),
        (f"{RESNET101}-os16", 16, (256, 512, 1024, 2048)),
        ("pspnet-xception65", 8, (256, 256, 728, 2048)),
        ("pspnet-xception65-os16", 16, (256, 256, 728, 2048)),
    ],
)
def test_taps_have_the_strides_and_channels_they_claim(on_meta, name, stride, channels, size):
    network = on_meta(SEMANTIC_NETWORKS[name], 19)
    taps = network(torch.empty(1, 3, *size, device="meta"))
    for tap, at, count in zip(taps, (stride, 4, 8, 16, 16), (19, *channels), strict=True):
        assert tuple(tap.shape) == (1, count, *(-(-side // at) for side in size))
    assert tuple(getattr(network, f"{tap}_channels") for tap in ("low", "mid", "deep", "high")) == channels
    assert (network.classes, network.align_corners) == (19, True)


def test_gradients_reach_every_parameter(random_norms):
    network = random_norms(SEMANTIC_NETWORKS[RESNET50](3))
    network(torch.randn(1, 3, 33, 49)).logits.square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_exported_head_runs_at_any_size(random_norms, stub_backbone, exported):
    # The head alone: it has all that is not a plain convolution, and a whole network takes the exporter a minute.
    network = random_norms(PSPNet(5, stub_backbone(8)))
    engine = exported(network)
    for size in ((1, 65, 97), (2, 50, 129), (1, 33, 24)):
        image = torch.randn(size[0], 3, *size[1:])
        found = engine.run({"image": image.numpy()})
        with torch.no_grad():
            wanted = network(image)._asdict()
        for name, tap in wanted.items():
            np.testing.assert_allclose(found[name], tap.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
