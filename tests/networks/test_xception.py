"""Xception-65, against its authors' layer table and a published count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.xception import Xception65

# Name, stride, dilation, and whether the block is summed with its input as it is.
BLOCKS = [
    *(("entry_flow.block1", 2, 1, False), ("entry_flow.block2", 2, 1, False), ("entry_flow.block3", 2, 1, False)),
    *((f"middle_flow.{index}", 1, 1, True) for index in range(16)),
    ("exit_flow.block1", 1, 1, False),
]


def conv(weights, x, name, stride=1, dilation=1):
    """Convolution `name.conv` and batch norm `name.bn`, padded alike on all sides as the authors do."""
    kernel = weights[f"{name}.conv.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, None, stride, dilation * (kernel.shape[-1] // 2), dilation, groups)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-3).sqrt() * scale + shift


def by_definition(weights, image):
    """Chen et al. 2018, fig. 4; dilations as their code sets them at output stride 16."""
    x = conv(weights, image, "entry_flow.conv1_1", stride=2).relu()
    x = conv(weights, x, "entry_flow.conv1_2").relu()
    outputs = {}
    for name, stride, dilation, identity in BLOCKS:
        y = x
        for number in (1, 2, 3):
            step = stride if number == 3 else 1
            y = conv(weights, y.relu(), f"{name}.separable_conv{number}.depthwise", step, dilation)
            y = conv(weights, y, f"{name}.separable_conv{number}.pointwise")
            outputs[f"{name}.{number}"] = y
        x = y + (x if identity else conv(weights, x, f"{name}.shortcut", stride))
        outputs[name] = x
    for number in (1, 2, 3):
        x = conv(weights, x, f"exit_flow.block2.separable_conv{number}.depthwise", dilation=2).relu()
        x = conv(weights, x, f"exit_flow.block2.separable_conv{number}.pointwise").relu()
    return outputs["entry_flow.block2.2"], outputs["entry_flow.block2"], outputs["middle_flow.15"], x


def test_features_follow_the_authors_layers(random_norms):
    network = random_norms(Xception65()).double()
    image = torch.randn(1, 3, 49, 65, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = network(image), by_definition(network.state_dict(), image)
    for name, tensor, reference in zip(found._fields, found, wanted, strict=True):
        assert reference.abs().mean() > 1e-3, name
        torch.testing.assert_close(tensor, reference, rtol=1e-9, atol=1e-9, msg=name)


def test_parameter_count(on_meta):
    # timm's model card of xception65: 39.9 M with the classifier of 2048 x 1000 weights and 1000 biases.
    count = sum(parameter.numel() for parameter in on_meta(Xception65).parameters())
    assert count == 37_867_312
    assert round((count + 2048 * 1000 + 1000) / 1e6, 1) == 39.9


@pytest.mark.parametrize("size", [(1025, 2049), (50, 97)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_features_have_the_strides_and_channels_they_claim(on_meta, size):
    features = on_meta(Xception65)(torch.empty(2, 3, *size, device="meta"))
    for tensor, stride, channels in zip(features, (4, 8, 16, 16), (256, 256, 728, 2048), strict=True):
        assert tuple(tensor.shape) == (2, channels, *(-(-side // stride) for side in size))
