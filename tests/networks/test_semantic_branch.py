"""Any torch network as a semantic branch: its taps are its own maps, and it exports and compiles as it runs."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks import SemanticBranch

CLASSES = 5
TAPS = {"low": "stage1", "mid": "stage2", "deep": "stage3", "high": "context"}
SIZES = (97, 129), (64, 160), (131, 77)


def block(inputs, outputs, stride=1):
    layers = {
        "conv": nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        "bn": nn.BatchNorm2d(outputs),
        "relu": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))


class Network(nn.Module):
    """Strides 2, 4, 8, 16, a context module, and logits enlarged to the image, within whatever `wrap` makes."""

    def __init__(self, wrap=lambda logits: logits, classes=CLASSES):
        super().__init__()
        self.stem, self.stage1, self.stage2 = block(3, 6, 2), block(6, 7, 2), block(7, 8, 2)
        self.stage3, self.context, self.head = block(8, 9, 2), block(9, 10), nn.Conv2d(10, classes, 1)
        self.wrap = wrap

    def forward(self, image):
        y = self.head(self.context(self.stage3(self.stage2(self.stage1(self.stem(image))))))
        return self.wrap(F.interpolate(y, size=image.shape[2:], mode="bilinear"))


@pytest.fixture
def make(random_norms):
    def make(*arguments, **options):
        torch.manual_seed(0)
        return random_norms(Network(*arguments, **options))

    return make


def of_noise(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_taps_are_what_the_modules_give(make, size):
    network, image = make(), of_noise(size, 2)
    branch = SemanticBranch.from_module(network, TAPS, CLASSES)
    taps = branch(image)
    x = network.stage1(network.stem(image))
    for name, module in (("low", None), ("mid", network.stage2), ("deep", network.stage3), ("high", network.context)):
        x = x if module is None else module(x)
        torch.testing.assert_close(getattr(taps, name), x, rtol=0, atol=0)
        assert getattr(branch, f"{name}_channels") == x.shape[1]
    torch.testing.assert_close(taps.logits, network(image), rtol=0, atol=0)
    assert (branch.classes, branch.align_corners) == (CLASSES, False)
