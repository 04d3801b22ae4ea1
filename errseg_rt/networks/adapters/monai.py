"""The U-Net of MONAI, in two dimensions."""

from __future__ import annotations

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.adapters import library
from errseg_rt.networks.semantic_branch import SemanticBranch

_STEP = "model.1.submodule"  # each level of the U lies within the one above it
_TWO, _THREE = f"{_STEP}.1.submodule", f"{_STEP}.1.submodule.1.submodule"
_TAPS = {
    "low": f"{_TWO}.2",
    "mid": f"{_THREE}.2",
    "deep": f"{_THREE}.0",
    "high": f"{_THREE}.1.submodule",
    "logits": "output",
}


def build(name: str, classes: int) -> SemanticBranch:
    """The network of MONAI's own examples: five levels of 16 to 256 channels, two residual units each.

    One of another shape is made a semantic branch by `SemanticBranch.from_module`.
    """
    if name != "UNet":
        raise DataError(f"there is no {name} here")
    nets = library("monai.networks.nets", "monai")
    network = nets.UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=classes,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    return SemanticBranch.from_module(network, _TAPS, classes, InputSpec(multiple=16))
