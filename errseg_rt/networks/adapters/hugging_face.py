"""SegFormer, UPerNet and Mask2Former of transformers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.adapters import described, library
from errseg_rt.networks.semantic_branch import SemanticBranch

_PIXELS = "network.model.pixel_level_module"
_TAPS = {
    "SegformerForSemanticSegmentation": ("segformer[hidden_states]", "segformer[hidden_states][3]", "decode_head"),
    "UperNetForSemanticSegmentation": ("backbone[feature_maps]", "decode_head.bottleneck", "decode_head"),
    "Mask2FormerForUniversalSegmentation": (
        f"{_PIXELS}.encoder[feature_maps]",
        f"{_PIXELS}.decoder[multi_scale_features][1]",
        "output",
    ),
}
"""Of the classes that are known: the list of maps at strides 4, 8 and 16, `high`, and the logits."""
_SEGFORMER = {  # Xie et al., NeurIPS 2021, table 6: channels, depths, and channels of the decoder
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3), 768),
}
_CONVNEXT = {  # Liu et al., CVPR 2022, section 3.1: channels and depths
    "tiny": ((96, 192, 384, 768), (3, 3, 9, 3)),
    "small": ((96, 192, 384, 768), (3, 3, 27, 3)),
    "base": ((128, 256, 512, 1024), (3, 3, 27, 3)),
    "large": ((192, 384, 768, 1536), (3, 3, 27, 3)),
}


def build(name: str, classes: int) -> SemanticBranch:
    """A network by its name on the hub: of a known shape, or of a configuration that lies in the user's cache."""
    transformers = library("transformers", "transformers")
    config = _known(transformers, name, classes) or _cached(transformers, name, classes)
    return branch_of(_class_of(transformers, config)(config), classes)


def pretrained(name: str, classes: int) -> SemanticBranch:
    """A network with the weights that the hub or the user's cache has of it.

    Raises:
        DataError: transformers is not installed or has no such network, or it has another number of classes.
    """
    transformers = library("transformers", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        network = _class_of(transformers, config).from_pretrained(name, config=config)
    except (OSError, ValueError) as error:
        raise DataError(f"hf:{name}: {described(error)}") from error
    return branch_of(network, classes)


def branch_of(network: nn.Module, classes: int) -> SemanticBranch:
    """The semantic branch of a network of transformers that is there already.

    Raises:
        DataError: It is of a class whose taps are not known, or has another number of classes.
    """
    kind = type(network).__name__
    if kind not in _TAPS:
        known = ", ".join(_TAPS)
        raise DataError(f"the taps of {kind} are not known, but of {known}; name them, by SemanticBranch.from_module")
    if kind.startswith("Mask2Former"):
        network = _MaskedClasses(network)
    maps, high, logits = _TAPS[kind]
    taps = {**{tap: f"{maps}[{i}]" for i, tap in enumerate(("low", "mid", "deep"))}, "high": high, "logits": logits}
    return SemanticBranch.from_module(network, taps, classes, InputSpec(multiple=32), resize=True)


def _known(transformers: Any, name: str, classes: int) -> Any:
    """The configuration of a shape that its authors published, None: it is none of those."""
    if found := re.search(r"segformer-(b[0-5])\b", name):
        channels, depths, decoder = _SEGFORMER[found[1]]
        return transformers.SegformerConfig(
            hidden_sizes=list(channels), depths=list(depths), decoder_hidden_size=decoder, num_labels=classes
        )
    if found := re.search(rf"upernet-convnext-({'|'.join(_CONVNEXT)})\b", name):
        channels, depths = _CONVNEXT[found[1]]
        backbone = transformers.ConvNextConfig(
            hidden_sizes=list(channels), depths=list(depths), out_features=[f"stage{i}" for i in range(1, 5)]
        )
        return transformers.UperNetConfig(backbone_config=backbone, use_auxiliary_head=False, num_labels=classes)
    return None


def _cached(transformers: Any, name: str, classes: int) -> Any:
    try:  # A bundle may name a network: nothing is fetched for it, and no code of a hub is run.
        return transformers.AutoConfig.from_pretrained(name, num_labels=classes, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"not of a known shape, and its configuration is not in the cache ({described(error)}); fetch it by "
            f"hf download {name}"
        ) from error


def _class_of(transformers: Any, config: Any) -> Any:
    for kind in _TAPS:
        try:
            known = getattr(transformers, kind)
        except Exception as error:  # its modules are imported now, with what they want of other libraries
            raise DataError(f"transformers does not load {kind} here ({described(error)})") from error
        if isinstance(config, known.config_class):
            return known
    raise DataError(f"its networks are of {type(config).__name__}, but those of {', '.join(_TAPS)} are known")


class _MaskedClasses(nn.Module):
    """Class logits of a network that gives masks and their classes (Cheng et al., CVPR 2022, section 3).

    Its score of a class at a pixel sums the queries' probabilities of the class times those of the pixel; logits are
    the scores' logarithms, whose softmax is each score's share.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        output = self.network(image)
        of_class = output.class_queries_logits.softmax(dim=-1)[..., :-1]  # the last one is "no object"
        scores = torch.einsum("bqc,bqhw->bchw", of_class, output.masks_queries_logits.sigmoid())
        return scores.clamp_min(1e-6).log()
