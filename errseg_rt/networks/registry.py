"""Semantic networks by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from errseg_rt.errors import DataError
from errseg_rt.networks import adapters
from errseg_rt.networks.deeplabv3plus import deeplabv3plus
from errseg_rt.networks.efficientvit import EfficientViT
from errseg_rt.networks.fcrn import fcrn
from errseg_rt.networks.light_unet import LightUNet
from errseg_rt.networks.pspnet import pspnet
from errseg_rt.networks.squeezenas import SqueezeNAS
from errseg_rt.networks.taps import SemanticNetwork
from errseg_rt.system.fields import FieldError
from errseg_rt.system.lines import one_line

_WANTED = ("classes", *(f"{tap}_channels" for tap in ("low", "mid", "deep", "high")), "align_corners", "parameters")
_NAME = re.compile(r"[\w.-]+")
_IMPORTABLE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")

_BACKBONES = ("resnet50", "resnet101", "xception65")
_FCRN: dict[str, dict[str, Any]] = {
    "": {},
    "-os16": {"output_stride": 16, "kernel": 3, "dilation": 6},
    "-deep": {"hidden": 512, "dropout": 0.1},
}
"""Options of the FCRNs by the ends of their names: the best of Table 1, its coarser one, and the best's relative with a
hidden layer in its classifier and with dropout, whose sizes the paper does not tell."""
SEMANTIC_NETWORKS: dict[str, Callable[[int], SemanticNetwork]] = {
    "squeezenas": SqueezeNAS,
    "efficientvit-b0": EfficientViT,
    "light-unet": LightUNet,
    **{
        f"deeplabv3plus-{backbone}{suffix}": partial(deeplabv3plus, backbone=backbone, output_stride=stride)
        for backbone in _BACKBONES
        for suffix, stride in (("", 16), ("-os8", 8))
    },
    **{
        f"dpc-xception71{suffix}": partial(deeplabv3plus, backbone="xception71", output_stride=stride, context="dpc")
        for suffix, stride in (("", 16), ("-os8", 8))
    },
    **{
        f"pspnet-{backbone}{suffix}": partial(pspnet, backbone=backbone, output_stride=stride)
        for backbone in _BACKBONES
        for suffix, stride in (("", 8), ("-os16", 16))
    },
    **{
        f"fcrn-resnet{depth}{suffix}": partial(fcrn, depth=depth, **options)
        for depth in (50, 101, 152)
        for suffix, options in _FCRN.items()
    },
}
"""Those that come with the package, each built from its number of classes; `-os8` and `-os16` stand for another output
stride than the usual one."""


_OURS = frozenset(SEMANTIC_NETWORKS)
GIVEN = ("onnx", "module")
"""What the network of a cascade is called that is handed in: an ONNX file's, or a torch module's of the user."""


def register(name: str, factory: Callable[[int], SemanticNetwork]) -> None:
    """Give a semantic network of one's own a name, for recipes and bundles.

    Args:
        name: Of letters, digits, `-`, `_` and `.`, or `package.module:factory`, as recipes name it.
        factory: Makes the network, with random weights, of a number of classes.

    Raises:
        ValueError: The name is none, or that of a network of the package.
    """
    if not (_NAME.fullmatch(name) or is_importable(name)):
        raise ValueError(f"a network cannot be called {name!r}; wanted letters, digits, '-', '_' and '.'")
    if name in _OURS or name in GIVEN:
        raise ValueError(f"a network of the package is called {name!r}; choose another name")
    SEMANTIC_NETWORKS[name] = factory


def is_importable(name: str) -> bool:
    """Whether a name says where a network of the user's is made, as `package.module:factory`."""
    return bool(_IMPORTABLE.fullmatch(name)) and not adapters.is_name(name)


def import_network(name: str) -> None:
    """Import what makes a network, and register it by its name: only what the user names, as in a recipe or an option.

    Args:
        name: `package.module:factory`, where the factory makes the network of a number of classes.

    Raises:
        DataError: It cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
    except Exception as error:  # a module of the user's raises whatever it comes upon
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{name}: cannot be imported ({reason}); its folder must be one of PYTHONPATH") from error
    if not callable(factory):
        raise DataError(f"{name}: wanted a function of the number of classes, got {type(factory).__name__}")
    register(name, factory)


def known_names() -> list[str]:
    """What a network may be called, with the forms of names that other libraries' and users' networks have."""
    forms = (f"{library}:NETWORK" for library in adapters.LIBRARIES)
    return [*sorted((*SEMANTIC_NETWORKS, *GIVEN)), *forms, "package.module:factory"]


def is_known(name: str) -> bool:
    """Whether a network may be called so; it need not be installed here."""
    return name in SEMANTIC_NETWORKS or name in GIVEN or adapters.is_name(name) or is_importable(name)


def build_semantic(name: str, classes: int) -> SemanticNetwork:
    """A semantic network with random weights. Nothing is imported for it but this package and the adapters' libraries.

    Args:
        name: A key of `SEMANTIC_NETWORKS`, or an adapter's, as `torchvision:fcn_resnet50`.
        classes: Number of classes.

    Raises:
        FieldError: There is none of that name here.
        DataError: The adapter's library is not installed or has no such network, or what was registered fails.
    """
    if name in SEMANTIC_NETWORKS:
        return _checked(SEMANTIC_NETWORKS[name](classes), name, classes)
    if adapters.is_name(name):
        return adapters.build(name, classes)
    if is_importable(name):
        raise DataError(
            f"the network {name} is not registered here, and a file's word alone imports nothing: give export "
            f"--import {name}, or call errseg_rt.networks.import_network, where you trust it"
        )
    raise FieldError("semantic", f"the network {name!r} cannot be made by its name; hand it in")


def _checked(network: SemanticNetwork, name: str, classes: int) -> SemanticNetwork:
    missing = [each for each in _WANTED if not hasattr(network, each)]
    if missing:
        raise DataError(
            f"{name}: its factory gives a {type(network).__name__} without {', '.join(missing)}; wanted a semantic "
            "network, as SemanticBranch.from_module makes it of a module"
        )
    if network.classes != classes:
        raise DataError(f"{name}: its factory gives a network of {network.classes} classes, wanted {classes}")
    return network
