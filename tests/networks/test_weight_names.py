"""Weights of other libraries and of the authors, in our networks: the same features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.pspnet import pspnet
from errseg_rt.networks.resnet import ResNet
from errseg_rt.networks.weight_names import translated
from errseg_rt.networks.xception import Xception


def fill(backbone, weights):
    """Load what was translated into a backbone, strictly."""
    assert all(name.startswith("backbone.") for name in weights)
    backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    return backbone.eval()


def assert_close(found, wanted):
    """Within 1e-5 of the largest value."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


# At output stride 8, timm's Xception-71 lacks a projection that the authors' code and its own weights have.
@pytest.mark.parametrize(("depth", "stride"), [(65, 8), (65, 16), (71, 16), (71, 32)])
def test_timms_xception_has_our_features(random_norms, depth, stride):
    timm = pytest.importorskip("timm", reason="timm is not installed; the extra adapters has it")
    theirs = random_norms(timm.create_model(f"xception{depth}", output_stride=stride))
    ours = fill(Xception(depth, stride), translated(theirs.state_dict()))
    image = torch.randn(1, 3, 49, 65)
    with torch.no_grad():
        assert_close(ours(image).last, theirs.forward_features(image))


@pytest.mark.parametrize("depth", [50, 101])
def test_torchvisions_resnet_has_our_features(random_norms, depth):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed; the extra adapters has it")
    theirs = random_norms(getattr(models, f"resnet{depth}")())
    ours = fill(ResNet(depth, 32), translated({f"module.{name}": value for name, value in theirs.state_dict().items()}))
    x = image = torch.randn(1, 3, 49, 65)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for number, feature in enumerate(ours(image), start=1):
            x = getattr(theirs, f"layer{number}")(x)
            assert_close(feature, x)


class AuthorsPSPNet(nn.Module):
    """PSPNet with the names of its first author's code, github.com/hszhao/semseg, model/pspnet.py."""

    def __init__(self, classes):
        super().__init__()
        stages = ResNet(50, 8)
        widths = ((3, 64, 2), (64, 64, 1), (64, 128, 1))
        convs = [nn.Conv2d(i, o, 3, stride, padding=1, bias=False) for i, o, stride in widths]
        layers = [layer for conv in convs for layer in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())]
        self.layer0 = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(stages, f"layer{i}") for i in (1, 2, 3, 4))
        first = self.layer1[0]
        first.conv1, first.downsample[0] = nn.Conv2d(128, 64, 1, bias=False), nn.Conv2d(128, 256, 1, bias=False)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins), nn.Conv2d(2048, 512, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU()
            )
            for bins in (1, 2, 3, 6)
        )
        head = nn.Conv2d(4096, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU(), nn.Dropout2d(0.1)
        self.cls = nn.Sequential(*head, nn.Conv2d(512, classes, 1))
        self.aux = nn.Sequential(nn.Conv2d(1024, 256, 3, bias=False), nn.BatchNorm2d(256))

    def forward(self, image):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(image)))))
        levels = [
            F.interpolate(feature(x), x.shape[2:], mode="bilinear", align_corners=True) for feature in self.ppm.features
        ]
        return self.cls(torch.cat([x, *levels], 1))


def test_the_authors_pspnet_has_our_logits(random_norms):
    theirs = random_norms(AuthorsPSPNet(7))
    ours = pspnet(7, "resnet50").eval()
    ours.load_state_dict(translated({f"module.{name}": value for name, value in theirs.state_dict().items()}))
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert_close(ours(image).logits, theirs(image))


def test_names_that_nobody_is_known_by_are_none():
    assert translated({}) == {}
    assert translated({"conv.weight": torch.ones(1), "stem.0.conv.weight": torch.ones(1)}) == {}


def test_a_name_without_a_rule_stays(on_meta):
    weights = on_meta(ResNet, 50, 32).state_dict()
    assert "backbone.odd.weight" in translated({**weights, "odd.weight": torch.ones(1)})
