"""DeepLabv3+ and the dense prediction cell, against their authors' layers and published multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.context import DensePredictionCell
from errseg_rt.networks.deeplabv3plus import DeepLabV3Plus
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.registry import SEMANTIC_NETWORKS

XCEPTION, RESNET, DPC = "deeplabv3plus-xception65", "deeplabv3plus-resnet50", "dpc-xception71"


def conv(weights, x, name, dilation=1):
    """Convolution, batch norm, ReLU."""
    kernel = weights[f"{name}.conv.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, padding="same", dilation=dilation, groups=groups)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()


def separable(weights, x, name, dilation=1):
    return conv(weights, conv(weights, x, f"{name}.depthwise", dilation), f"{name}.pointwise")


def aspp(weights, last, factor):
    """Chen et al. (ECCV 2018), fig. 2."""
    image = conv(weights, last.mean(dim=(2, 3), keepdim=True), "aspp.image_pooling")
    branches = [image.expand(-1, -1, *last.shape[2:]), conv(weights, last, "aspp.aspp0")]
    rates = ((1, 6), (2, 12), (3, 18))
    branches += [separable(weights, last, f"aspp.aspp{i}", factor * rate) for i, rate in rates]
    return conv(weights, torch.cat(branches, dim=1), "aspp.concat_projection")


def dpc(weights, last, factor):
    """Chen et al. (NeurIPS 2018), fig. 5a: rates down x across, each behind the one it is drawn below."""
    first = separable(weights, last, "dpc.branch0", (1 * factor, 6 * factor))
    second = separable(weights, first, "dpc.branch1", (18 * factor, 15 * factor))
    third = separable(weights, second, "dpc.branch2", (6 * factor, 3 * factor))
    fourth = separable(weights, first, "dpc.branch3", (1 * factor, 1 * factor))
    fifth = separable(weights, first, "dpc.branch4", (6 * factor, 21 * factor))
    return conv(weights, torch.cat([first, second, third, fourth, fifth], dim=1), "dpc.concat_projection")


def by_definition(weights, low, last, context, stride):
    """Chen et al. (ECCV 2018), fig. 2: logits, and the encoder's features."""
    high = {"aspp": aspp, "dpc": dpc}[context](weights, last, 16 // stride)
    up = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=True)
    x = torch.cat([up, conv(weights, low, "decoder.feature_projection0")], dim=1)
    x = separable(weights, separable(weights, x, "decoder.decoder_conv0"), "decoder.decoder_conv1")
    return F.conv2d(x, weights["decoder.logits.weight"], weights["decoder.logits.bias"]), high


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("context", ["aspp", "dpc"])
def test_head_follows_the_authors_layers(random_norms, stub_backbone, context, stride):
    network = random_norms(DeepLabV3Plus(5, stub_backbone(stride), context)).double()
    image = torch.randn(1, 3, 353, 369, dtype=torch.float64)  # 23 pixels at stride 16: more than any dilation
    with torch.no_grad():
        low, mid, deep, last = network.backbone(image)
        taps = network(image)
        logits, high = by_definition(network.state_dict(), low, last, context, stride)
    torch.testing.assert_close(taps.logits, logits, rtol=1e-9, atol=1e-9)
    if stride == 8:
        deep, high = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (deep, high))
    torch.testing.assert_close(taps.high, high, rtol=1e-9, atol=1e-9)
    for found, feature in ((taps.low, low), (taps.mid, mid), (taps.deep, deep)):
        torch.testing.assert_close(found, feature, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    # DeepLab's model zoo (tensorflow/models, research/deeplab/g3doc/model_zoo.md), output stride 16, one scale:
    # xception65_coco_voc_trainaug; xception65_cityscapes_trainfine and xception71_dpc_cityscapes_trainfine, networks of
    # Gong et al. 2021 (78.79 and 80.31 mIoU).
    ("name", "classes", "size", "billions"),
    [(XCEPTION, 21, (513, 513), 54.17), (XCEPTION, 19, (1025, 2049), 418.64), (DPC, 19, (1025, 2049), 502.07)],
    ids=["voc", "cityscapes", "dpc"],
)
def test_published_multiply_adds(on_meta, multiply_adds, name, classes, size, billions):
    network = on_meta(SEMANTIC_NETWORKS[name], classes)
    # Theirs count a little more than the convolutions.
    assert multiply_adds(network, *size)[0] == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(
    # The same table at output stride 8: the sum over scales, each of them flipped, too.
    ("classes", "sizes", "billions"),
    [
        (21, [(side, side) for side in (257, 385, 513, 641, 769, 897)], 3055.35),
        (19, [(769, 1537), (1025, 2049), (1281, 2561)], 8677.92),
    ],
    ids=["voc", "cityscapes"],
)
def test_published_multiply_adds_at_output_stride_8(on_meta, multiply_adds, classes, sizes, billions):
    network = on_meta(SEMANTIC_NETWORKS[f"{XCEPTION}-os8"], classes)
    assert 2 * sum(multiply_adds(network, *size)[0] for size in sizes) == pytest.approx(billions, rel=0.003)


def test_published_counts_of_the_cell(on_meta, multiply_adds):
    # Chen et al. 2018, table 2, on the modified Xception at 1025x2049: 0.81 M parameters, 6.84 B multiply-adds. Theirs
    # are the branches' convolutions: no norms, and not the projection behind them.
    cell = on_meta(DensePredictionCell, 2048, 16)
    branches = [module for name, module in cell.named_modules() if name.startswith("branch")]
    convs = [module for branch in branches for module in branch.modules() if isinstance(module, nn.Conv2d)]
    parameters = sum({id(conv): conv.weight.numel() for conv in convs}.values())
    assert round(parameters / 1e6, 2) == 0.81
    assert parameters * 65 * 129 / 1e9 == pytest.approx(6.84, rel=0.003)


def test_published_parameter_counts(on_meta):
    # Keras DeepLabv3+ (bonlime/keras-deeplab-v3-plus), whose weights are the authors': 41,258,213 "total params" with
    # the 21 classes of VOC, which counts the running means and variances too.
    network = on_meta(SEMANTIC_NETWORKS[XCEPTION], 21)
    statistics = [tensor for name, tensor in network.named_buffers() if "running" in name]
    assert sum(tensor.numel() for tensor in (*network.parameters(), *statistics)) == 41_258_213
    # ResNet-50 without its classifier as torchvision publishes it, and a head that its layers add up to.
    separable = [(inputs, 256) for inputs in (2048, 2048, 2048, 304, 256)]
    head = sum(9 * i + 2 * i + i * o + 2 * o for i, o in separable)
    head += sum(i * o + 2 * o for i, o in ((2048, 256), (2048, 256), (5 * 256, 256), (256, 48))) + 256 * 19 + 19
    resnet = on_meta(SEMANTIC_NETWORKS[RESNET], 19)
    assert sum(parameter.numel() for parameter in resnet.parameters()) == 25_557_032 - 2_049_000 + head


@pytest.mark.parametrize("size", [(1025, 2049), (50, 97)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (XCEPTION, (256, 256, 728, 256)),
        (RESNET, (256, 512, 1024, 256)),
        (f"{XCEPTION}-os8", (256, 256, 728, 256)),
        (DPC, (256, 256, 728, 256)),
        (f"{DPC}-os8", (256, 256, 728, 256)),
    ],
)
def test_taps_have_the_strides_and_channels_they_claim(on_meta, name, channels, size):
    network = on_meta(SEMANTIC_NETWORKS[name], 19)
    taps = network(torch.empty(1, 3, *size, device="meta"))
    for tap, stride, count in zip(taps, (4, 4, 8, 16, 16), (19, *channels), strict=True):
        assert tuple(tap.shape) == (1, count, *(-(-side // stride) for side in size))
    assert tuple(getattr(network, f"{tap}_channels") for tap in ("low", "mid", "deep", "high")) == channels
    assert (network.classes, network.align_corners) == (19, True)


def test_detail_branch_has_the_papers_size(on_meta):
    """Gong et al. 2021, section 5.2.2: 11.6 MB of parameters."""
    semantic = on_meta(SEMANTIC_NETWORKS[XCEPTION], 19)
    branch = on_meta(DetailBranch, semantic, 144, residual=True)
    count = sum(parameter.numel() for parameter in branch.parameters())
    assert round(count / 1e6, 1) == 2.9
    assert round(4 * count / 1e6, 1) == 11.6


def test_gradients_reach_every_parameter(random_norms):
    network = random_norms(SEMANTIC_NETWORKS[XCEPTION](3))
    network(torch.randn(1, 3, 49, 65)).logits.square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("context", ["aspp", "dpc"])
def test_training_drops_out_and_inference_does_not(stub_backbone, context):
    network = DeepLabV3Plus(3, stub_backbone(16), context)
    image = torch.randn(2, 3, 65, 97)
    assert not torch.equal(network(image).high, network(image).high)
    network.eval()
    torch.testing.assert_close(network(image), network(image), rtol=0, atol=0)


def test_exported_head_runs_at_any_size(random_norms, stub_backbone, exported):
    # The head alone: it has all that is not a plain convolution, and a whole network takes the exporter a minute.
    network = random_norms(DeepLabV3Plus(5, stub_backbone(16)))
    engine = exported(network)
    for size in ((1, 65, 97), (2, 50, 129)):
        image = torch.randn(size[0], 3, *size[1:])
        found = engine.run({"image": image.numpy()})
        with torch.no_grad():
            wanted = network(image)._asdict()
        for name, tap in wanted.items():
            np.testing.assert_allclose(found[name], tap.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
