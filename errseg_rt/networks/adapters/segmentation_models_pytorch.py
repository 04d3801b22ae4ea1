"""Architectures of segmentation-models-pytorch on its encoders, those of timm among them (`tu-NAME`)."""

from __future__ import annotations

import torch

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.adapters import described, library
from errseg_rt.networks.semantic_branch import SemanticBranch

# An encoder gives a list, whose entry i has stride 2^i but where it is dilated.
_ENCODER = {"low": "encoder[2]", "mid": "encoder[3]", "deep": "encoder[4]", "high": "encoder[5]"}
_TAPS = {
    "deeplabv3": {"high": "decoder.aspp"},
    "deeplabv3plus": {"high": "decoder.aspp"},
    "pspnet": {"deep": "encoder[3]", "high": "decoder.conv"},
    "upernet": {"high": "decoder.fpn_conv_blocks.0"},
    "unet": {"low": "decoder.blocks.2", "mid": "decoder.blocks.1", "high": "decoder.blocks.0"},
}
"""What the taps of some architectures are but the encoder's maps."""
_ALIGNED = ("deeplabv3", "deeplabv3plus", "pspnet", "upernet", "segformer", "fpn", "pan")
"""Architectures that enlarge their logits with aligned corners."""


def build(name: str, classes: int) -> SemanticBranch:
    """An architecture on an encoder, as `Unet/resnet34`."""
    library("torchvision", "torchvision")
    smp = library("segmentation_models_pytorch", "segmentation-models-pytorch")
    architecture, _, encoder = name.partition("/")
    if not encoder:
        raise DataError("names no encoder")
    try:
        with torch.device("cpu"):  # some encoders read values while they are built, which "meta" has not
            network = smp.create_model(architecture, encoder, encoder_weights=None, classes=classes)
    except Exception as error:  # of several kinds, of smp's own and of timm's
        raise DataError(described(error)) from error
    network.to(torch.get_default_device())
    network.requires_divisible_input_shape = False  # the input's padding sees to it; a traced graph cannot ask
    kind = architecture.lower()
    taps = {**_ENCODER, **_TAPS.get(kind, {}), "logits": "segmentation_head.0"}
    return SemanticBranch.from_module(
        network, taps, classes, InputSpec(multiple=32), align_corners=kind in _ALIGNED, resize=True
    )
