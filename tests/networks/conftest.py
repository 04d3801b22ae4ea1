"""What the tests of the semantic networks share: random norms, counted work, and a backbone of four convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from errseg_rt.networks.backbone import Features


@pytest.fixture(scope="session")
def random_norms():
    """Puts a network in eval mode, with batch norms that are not the identity and keep its activations near 1."""

    def change(network, seed=0):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.2, 0.6)  # about what torch's initial weights make of it
        return network.eval()

    return change


@pytest.fixture(scope="session")
def on_meta():
    """Builds a network without memory for its weights, in eval mode."""

    def build(make, *arguments, **options):
        with torch.device("meta"):
            return make(*arguments, **options).eval()

    return build


@pytest.fixture(scope="session")
def multiply_adds():
    """Multiply-adds of a network on the meta device, in billions, for an image of some size; and what it gives."""

    def count(network, height, width):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs = network(torch.empty(1, 3, height, width, device="meta"))
        return counter.get_total_flops() / 2e9, outputs

    return count


class Stub(nn.Module):
    """A backbone of one strided convolution for each feature."""

    low_channels, mid_channels, deep_channels, channels = 4, 5, 6, 7

    def __init__(self, output_stride):
        super().__init__()
        self.output_stride = output_stride
        strides = (4, 8, output_stride, output_stride)
        self.convs = nn.ModuleList(nn.Conv2d(3, 4 + i, 1, stride=stride) for i, stride in enumerate(strides))

    def forward(self, image):
        return Features(*(conv(image) for conv in self.convs))


@pytest.fixture(scope="session")
def stub_backbone():
    return Stub


class TapsGraph(nn.Module):
    """A semantic network alone, as the exporter takes graphs."""

    def __init__(self, semantic):
        super().__init__()
        self.semantic = semantic

    def forward(self, image):
        return self.semantic(image)

    def input_shapes(self):
        return {"image": (None, 3, None, None)}

    def output_shapes(self):
        names = ("logits", "low", "mid", "deep", "high")
        channels = [self.semantic.classes, *(getattr(self.semantic, f"{name}_channels") for name in names[1:])]
        return {name: (None, count, None, None) for name, count in zip(names, channels, strict=True)}


@pytest.fixture(scope="session")
def exported():
    """Exports a semantic network alone, with the settings of a bundle's graphs, and opens it in onnxruntime."""
    from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
    from errseg_rt.export.graphs import _export

    def export(semantic):
        graph = TapsGraph(semantic.eval())
        model = _export(graph, (torch.zeros(2, 3, 97, 129),), "taps")
        return OnnxRuntimeEngine(model.SerializeToString(), "taps", threads=1)

    return export
