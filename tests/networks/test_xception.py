"""Xception-65 and -71, against their authors' layer tables and published counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.xception import Xception

ENTRY = {65: (2, 2, 2), 71: (2, 1, 2, 1, 2)}
"""Strides of the blocks of the entry flow."""


def conv(weights, x, name, stride=1, dilation=1):
    """Convolution `name.conv` and batch norm `name.bn`, padded alike on all sides as the authors do."""
    kernel = weights[f"{name}.conv.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, None, stride, dilation * (kernel.shape[-1] // 2), dilation, groups)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-3).sqrt() * scale + shift


def by_definition(weights, image, depth, output_stride):
    """Chen et al. 2018, fig. 4; as in their code, a block that would stride too far dilates those behind it instead."""
    x = conv(weights, image, "entry_flow.conv1_1", stride=2).relu()
    x = conv(weights, x, "entry_flow.conv1_2").relu()
    blocks = [(f"entry_flow.block{i}", stride) for i, stride in enumerate(ENTRY[depth], start=1)]
    blocks += [*((f"middle_flow.{i}", 1) for i in range(16)), ("exit_flow.block1", 2)]
    reached, rate, second, sums = 2, 1, {}, {}
    for name, stride in blocks:
        stays = reached == output_stride
        y, step = x, 1 if stays else stride
        for number in (1, 2, 3):
            y = conv(weights, y.relu(), f"{name}.separable_conv{number}.depthwise", step if number == 3 else 1, rate)
            y = conv(weights, y, f"{name}.separable_conv{number}.pointwise")
            second.update({name: y} if number == 2 else {})
        x = y + (x if "middle" in name else conv(weights, x, f"{name}.shortcut", step))
        sums[name] = x
        reached, rate = (reached, rate * stride) if stays else (reached * stride, rate)
    for number in (1, 2, 3):
        x = conv(weights, x, f"exit_flow.block2.separable_conv{number}.depthwise", dilation=rate).relu()
        x = conv(weights, x, f"exit_flow.block2.separable_conv{number}.pointwise").relu()
    fine = {65: "entry_flow.block2", 71: "entry_flow.block3"}[depth]
    return second[fine], sums[fine], sums["middle_flow.15"], x


@pytest.mark.parametrize(("depth", "output_stride"), [(65, 8), (65, 16), (65, 32), (71, 8), (71, 16)])
def test_features_follow_the_authors_layers(random_norms, depth, output_stride):
    network = random_norms(Xception(depth, output_stride)).double()
    image = torch.randn(1, 3, 49, 65, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = network(image), by_definition(network.state_dict(), image, depth, output_stride)
    for name, tensor, reference in zip(found._fields, found, wanted, strict=True):
        assert reference.abs().mean() > 1e-3, name
        torch.testing.assert_close(tensor, reference, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    # timm's model cards of xception65 and xception71, with the classifier of 2048 x 1000 weights and 1000 biases; their
    # multiply-adds (at 299x299) count the norms too.
    ("depth", "millions", "billions"),
    [(65, 39.9, 14.0), (71, 42.3, 18.1)],
)
def test_published_counts(on_meta, multiply_adds, depth, millions, billions):
    network = on_meta(Xception, depth, 32)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round((count + 2048 * 1000 + 1000) / 1e6, 1) == millions
    assert multiply_adds(network, 299, 299)[0] == pytest.approx(billions, rel=0.015)


@pytest.mark.parametrize("size", [(1025, 2049), (50, 97)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(("depth", "output_stride"), [(65, 16), (71, 8), (71, 16), (65, 32)])
def test_features_have_the_strides_and_channels_they_claim(on_meta, depth, output_stride, size):
    features = on_meta(Xception, depth, output_stride)(torch.empty(2, 3, *size, device="meta"))
    strides = (4, 8, min(16, output_stride), output_stride)
    for tensor, stride, channels in zip(features, strides, (256, 256, 728, 2048), strict=True):
        assert tuple(tensor.shape) == (2, channels, *(-(-side // stride) for side in size))


@pytest.mark.parametrize(("depth", "output_stride"), [(41, 16), (65, 4)])
def test_unknown_shapes_are_refused(depth, output_stride):
    with pytest.raises(ValueError, match=rf"depth is one of \[65, 71\].*: {depth = }, {output_stride = }"):
        Xception(depth, output_stride)
