"""Semantic networks by name."""

from __future__ import annotations

from collections.abc import Callable

from errseg_rt.networks.deeplabv3plus import deeplabv3plus_resnet50, deeplabv3plus_xception65
from errseg_rt.networks.efficientvit import EfficientViT
from errseg_rt.networks.pspnet import pspnet_resnet50, pspnet_resnet101
from errseg_rt.networks.squeezenas import SqueezeNAS
from errseg_rt.networks.taps import SemanticNetwork
from errseg_rt.system.fields import FieldError

SEMANTIC_NETWORKS: dict[str, Callable[[int], SemanticNetwork]] = {
    "squeezenas": SqueezeNAS,
    "efficientvit-b0": EfficientViT,
    "deeplabv3plus-xception65": deeplabv3plus_xception65,
    "deeplabv3plus-resnet50": deeplabv3plus_resnet50,
    "pspnet-resnet50": pspnet_resnet50,
    "pspnet-resnet101": pspnet_resnet101,
}
"""Those that come with the package, each built from its number of classes."""


GIVEN = ("onnx", "module")
"""What the network of a cascade is called that is handed in: an ONNX file's, or a torch module's of the user."""


def known_names() -> list[str]:
    """What a network may be called."""
    return sorted((*SEMANTIC_NETWORKS, *GIVEN))


def build_semantic(name: str, classes: int) -> SemanticNetwork:
    """A semantic network with random weights.

    Args:
        name: A key of `SEMANTIC_NETWORKS`.
        classes: Number of classes.

    Raises:
        FieldError: There is none of that name.
    """
    if name not in SEMANTIC_NETWORKS:
        raise FieldError("semantic", f"the network {name!r} cannot be made by its name; hand it in")
    return SEMANTIC_NETWORKS[name](classes)
