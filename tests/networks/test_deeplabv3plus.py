"""DeepLabv3+, against its authors' layers and their published multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.deeplabv3plus import DeepLabV3Plus
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.registry import SEMANTIC_NETWORKS

XCEPTION, RESNET = "deeplabv3plus-xception65", "deeplabv3plus-resnet50"


def conv(weights, x, name, dilation=1):
    """Convolution, batch norm, ReLU."""
    kernel = weights[f"{name}.conv.weight"]
    padding, groups = dilation * (kernel.shape[-1] // 2), x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, padding=padding, dilation=dilation, groups=groups)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()


def separable(weights, x, name, dilation=1):
    return conv(weights, conv(weights, x, f"{name}.depthwise", dilation), f"{name}.pointwise")


def by_definition(weights, low, last):
    """Chen et al. 2018, fig. 2: logits, and the encoder's features."""
    image = conv(weights, last.mean(dim=(2, 3), keepdim=True), "aspp.image_pooling")
    branches = [image.expand(-1, -1, *last.shape[2:]), conv(weights, last, "aspp.aspp0")]
    branches += [separable(weights, last, f"aspp.aspp{i}", rate) for i, rate in ((1, 6), (2, 12), (3, 18))]
    high = conv(weights, torch.cat(branches, dim=1), "aspp.concat_projection")
    up = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=True)
    x = torch.cat([up, conv(weights, low, "decoder.feature_projection0")], dim=1)
    x = separable(weights, separable(weights, x, "decoder.decoder_conv0"), "decoder.decoder_conv1")
    return F.conv2d(x, weights["decoder.logits.weight"], weights["decoder.logits.bias"]), high


def test_head_follows_the_authors_layers(random_norms, stub_backbone):
    network = random_norms(DeepLabV3Plus(5, stub_backbone(16))).double()
    image = torch.randn(1, 3, 161, 337, dtype=torch.float64)  # 22 pixels across at stride 16: more than any dilation
    with torch.no_grad():
        low, mid, deep, last = network.backbone(image)
        taps = network(image)
        logits, high = by_definition(network.state_dict(), low, last)
    torch.testing.assert_close(taps.logits, logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(taps.high, high, rtol=1e-9, atol=1e-9)
    for found, feature in ((taps.low, low), (taps.mid, mid), (taps.deep, deep)):
        torch.testing.assert_close(found, feature, rtol=0, atol=0)


@pytest.mark.parametrize(
    # DeepLab's model zoo (tensorflow/models, research/deeplab/g3doc/model_zoo.md), output stride 16, one scale:
    # xception_coco_voc_trainaug, and xception_cityscapes_trainfine, the network of Gong et al. 2021 (78.79 mIoU).
    ("classes", "size", "billions"),
    [(21, (513, 513), 54.17), (19, (1025, 2049), 418.64)],
    ids=["voc", "cityscapes"],
)
def test_published_multiply_adds(on_meta, multiply_adds, classes, size, billions):
    network = on_meta(SEMANTIC_NETWORKS[XCEPTION], classes)
    # Theirs count a little more than the convolutions.
    assert multiply_adds(network, *size)[0] == pytest.approx(billions, rel=0.003)


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
    [(XCEPTION, (256, 256, 728, 256)), (RESNET, (256, 512, 1024, 256))],
    ids=["xception65", "resnet50"],
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


def test_training_drops_out_and_inference_does_not(stub_backbone):
    network = DeepLabV3Plus(3, stub_backbone(16))
    image = torch.randn(2, 3, 65, 97)
    assert (network(image).high == 0).float().mean() > (network.eval()(image).high == 0).float().mean()
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
