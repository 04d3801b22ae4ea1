"""A trained network's file to an ONNX file, as its user would write it.

    python -m benchmarks.user_networks.export wnet model_checkpoint.pth wnet.onnx
    python -m benchmarks.user_networks.export twinlitenet best.pth twinlitenet.onnx
    python -m benchmarks.user_networks.export efficientvit-b0 cityscapes_b0.pt efficientvit.onnx --dynamic

The files take one size only, unless `--dynamic` asks for more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from benchmarks.user_networks import twinlitenet, wnet
from errseg_rt.networks.registry import build_semantic
from errseg_rt.networks.taps import SemanticNetwork

SIZES = {"wnet": (512, 512), "twinlitenet": (360, 640), "efficientvit-b0": (512, 1024)}
OUTPUTS = {"wnet": ["vessels"], "twinlitenet": ["drivable", "lanes"], "efficientvit-b0": ["logits"]}


class Probability(nn.Module):
    """A network with its sigmoid."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` to probabilities `[N, 1, H, W]`."""
        return torch.sigmoid(self.network(image))


class Logits(nn.Module):
    """A network of this package as its authors' code has it: its logits alone."""

    def __init__(self, network: SemanticNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` to logits `[N, K, h, w]`."""
        return self.network(image).logits


def load(name: str, path: str | Path) -> nn.Module:
    """The network of that name, with the weights of `path`, ready to infer."""
    if name != "efficientvit-b0":
        return wnet.load(str(path)) if name == "wnet" else twinlitenet.load(str(path))
    network = build_semantic(name, 19)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    return Logits(network).eval()


def export(name: str, weights: str | Path, path: str | Path, sigmoid: bool = False, dynamic: bool = False) -> None:
    """Write the network as an ONNX file, with its one size, or with sizes that may differ from frame to frame."""
    network = load(name, weights)
    if sigmoid:
        network = Probability(network).eval()
    sizes = {2: "height", 3: "width"}
    axes = {"image": sizes, **dict.fromkeys(OUTPUTS[name], sizes)} if dynamic else None
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, *SIZES[name]),),
        str(path),
        input_names=["image"],
        output_names=OUTPUTS[name],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    """Read the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(SIZES))
    parser.add_argument("weights", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--sigmoid", action="store_true", help="with the sigmoid in the file")
    parser.add_argument("--dynamic", action="store_true", help="with sizes that may differ from frame to frame")
    args = parser.parse_args()
    export(args.network, args.weights, args.onnx, args.sigmoid, args.dynamic)


if __name__ == "__main__":
    main()
