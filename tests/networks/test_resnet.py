"""The dilated ResNets, against their definition and torchvision's published counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.resnet import ResNet

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CLASSIFIER = 2048 * 1000 + 1000  # weights and biases of `fc`, which the backbone lacks


def norm(weights, x, name):
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def by_definition(weights, image, blocks, output_stride, multi_grid):
    """He et al. 2016, table 1, with the stride in the 3x3; a stage that may not stride doubles the dilation instead."""
    x = norm(weights, F.conv2d(image, weights["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    reached, dilation, outputs = 4, 1, []
    for stage, count in enumerate(blocks, start=1):
        stride = 1
        if stage > 1 and reached < output_stride:
            stride, reached = 2, 2 * reached
        elif stage > 1:
            dilation *= 2
        for block in range(count):
            name, step = f"layer{stage}.{block}", stride if block == 0 else 1
            rate = dilation * (multi_grid[block] if stage == 4 else 1)
            y = norm(weights, F.conv2d(x, weights[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = F.conv2d(y, weights[f"{name}.conv2.weight"], stride=step, padding=rate, dilation=rate)
            y = norm(weights, y, f"{name}.bn2").relu()
            y = norm(weights, F.conv2d(y, weights[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=step)
                x = norm(weights, x, f"{name}.downsample.1")
            x = (x + y).relu()
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(
    ("output_stride", "multi_grid"), [(8, (1, 1, 1)), (16, (2, 4, 1)), (32, (1, 1, 1))], ids=["8", "16", "32"]
)
def test_features_follow_the_definition(random_norms, output_stride, multi_grid):
    network = random_norms(ResNet(50, output_stride, multi_grid=multi_grid)).double()
    image = torch.randn(1, 3, 65, 161, dtype=torch.float64)  # 11 pixels across at stride 16: more than any dilation
    with torch.no_grad():
        found = network(image)
        wanted = by_definition(network.state_dict(), image, BLOCKS[50], output_stride, multi_grid)
    for name, tensor, reference in zip(found._fields, found, wanted, strict=True):
        torch.testing.assert_close(tensor, reference, rtol=1e-9, atol=1e-9, msg=name)


def test_a_deep_stem_is_three_convolutions(random_norms):
    network = random_norms(ResNet(50, 8, deep_stem=True))
    weights, x = network.state_dict(), torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        stem = F.relu(network.bn1(network.conv1(x)))
        for name, bn, stride in (
            ("conv1.0.conv", "conv1.0.bn", 2),
            ("conv1.1.conv", "conv1.1.bn", 1),
            ("conv1.2", "bn1", 1),
        ):
            x = norm(weights, F.conv2d(x, weights[f"{name}.weight"], stride=stride, padding=1), bn).relu()
    assert [weights[f"{name}.weight"].shape[0] for name in ("conv1.0.conv", "conv1.1.conv", "conv1.2")] == [64, 64, 128]
    torch.testing.assert_close(stem, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    # torchvision's documentation of its ResNets: parameters, and multiply-adds at 224x224 ("GFLOPS").
    ("depth", "parameters", "billions"),
    [(50, 25_557_032, 4.09), (101, 44_549_160, 7.80), (152, 60_192_808, 11.51)],
    ids=["resnet50", "resnet101", "resnet152"],
)
def test_published_counts(on_meta, multiply_adds, depth, parameters, billions):
    network = on_meta(ResNet, depth, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) + CLASSIFIER == parameters
    assert round(multiply_adds(network, 224, 224)[0] + 2048 * 1000 / 1e9, 2) == billions
    assert {parameter.numel() for parameter in on_meta(ResNet, depth, 8).conv1.parameters()} == {7 * 7 * 3 * 64}


@pytest.mark.parametrize("depth", BLOCKS)
def test_state_dict_has_torchvisions_names(on_meta, depth):
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    wanted = {"conv1.weight", *(f"bn1.{part}" for part in norms)}
    for stage, count in enumerate(BLOCKS[depth], start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            wanted |= {f"{name}.conv{i}.weight" for i in (1, 2, 3)}
            wanted |= {f"{name}.bn{i}.{part}" for i in (1, 2, 3) for part in norms}
        wanted |= {f"layer{stage}.0.downsample.0.weight", *(f"layer{stage}.0.downsample.1.{part}" for part in norms)}
    assert set(on_meta(ResNet, depth, 16).state_dict()) == wanted


@pytest.mark.parametrize("size", [(713, 713), (50, 97)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("output_stride", [8, 16])
def test_features_have_the_strides_and_channels_they_claim(on_meta, output_stride, size):
    features = on_meta(ResNet, 50, output_stride, deep_stem=True)(torch.empty(2, 3, *size, device="meta"))
    strides = (4, 8, output_stride, output_stride)
    for tensor, stride, channels in zip(features, strides, (256, 512, 1024, 2048), strict=True):
        assert tuple(tensor.shape) == (2, channels, *(-(-side // stride) for side in size))


@pytest.mark.parametrize(("depth", "output_stride"), [(34, 16), (50, 4)])
def test_unknown_shapes_are_refused(depth, output_stride):
    with pytest.raises(ValueError, match=rf"depth is one of \[50, 101, 152\].*: {depth = }, {output_stride = }"):
        ResNet(depth, output_stride)
