"""Names of weights in other libraries and in their authors' files, turned into ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern, and what takes its place."""

_MIDDLE = 16  # blocks of Xception's middle flow


@dataclass(frozen=True)
class Scheme:
    """How some library names the weights of networks that are ours, too.

    Attributes:
        mark: A name that only its files have.
        rules: Rewrite a name, one after the other.
        dropped: Names of what our networks lack: classifiers, heads for training.
        is_tensorflow: Whether kernels have TensorFlow's layout.
    """

    mark: str
    rules: tuple[Rule, ...]
    dropped: str
    is_tensorflow: bool = False

    def translate(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """The weights by our names; a name that no rule knows stays as it is."""
        translated = {}
        for name, value in weights.items():
            if re.match(self.dropped, name):
                continue
            new = name
            for pattern, replacement in self.rules:
                new = re.sub(pattern, replacement, new)
            translated[new] = _laid_out(name, value) if self.is_tensorflow else value
        return translated


def _laid_out(name: str, value: Tensor) -> Tensor:
    """Kernels are height, width, inputs, outputs there; depthwise ones height, width, channels, 1."""
    if value.ndim == 4:
        value = value.permute((2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1))
    return value.contiguous()


def _timm_block(entry: int) -> Callable[[re.Match[str]], str]:
    """Our name of one of timm's blocks, which are counted through, behind `entry` blocks of the entry flow."""

    def name(match: re.Match[str]) -> str:
        index = int(match[1])
        if index < entry:
            return f"backbone.entry_flow.block{index + 1}."
        index -= entry
        return (
            f"backbone.middle_flow.{index}." if index < _MIDDLE else f"backbone.exit_flow.block{index - _MIDDLE + 1}."
        )

    return name


def _timm(entry: int) -> Scheme:
    return Scheme(
        # The last block, whose number tells the depth.
        mark=f"blocks.{entry + _MIDDLE + 1}.stack.conv1.conv_dw.weight",
        rules=(
            (r"^stem\.0\.", "backbone.entry_flow.conv1_1."),
            (r"^stem\.1\.", "backbone.entry_flow.conv1_2."),
            (r"^blocks\.(\d+)\.", _timm_block(entry)),
            (r"\.stack\.conv(\d)\.", r".separable_conv\1."),
            (r"\.(conv|bn)_dw\.", r".depthwise.\1."),
            (r"\.(conv|bn)_pw\.", r".pointwise.\1."),
        ),
        dropped=r"head\.",
    )


_LEAVES: tuple[Rule, ...] = (
    (r"/(depthwise_)?weights$", ".conv.weight"),
    (r"/BatchNorm/gamma$", ".bn.weight"),
    (r"/BatchNorm/beta$", ".bn.bias"),
    (r"/BatchNorm/moving_mean$", ".bn.running_mean"),
    (r"/BatchNorm/moving_variance$", ".bn.running_var"),
)
_DEEPLAB_RULES: tuple[Rule, ...] = (
    (r"^logits/semantic/weights$", "decoder.logits.weight"),
    (r"^logits/semantic/biases$", "decoder.logits.bias"),
    *_LEAVES,
    (r"^xception_\d+/middle_flow/block1/unit_(\d+)/", lambda m: f"backbone/middle_flow/{int(m[1]) - 1}/"),
    (r"^xception_\d+/", "backbone/"),
    (r"/(unit_1/)?xception_module/", "/"),
    (r"/unit_1/", "/"),
    (r"^(image_pooling|aspp\d|concat_projection)", r"aspp/\1"),
    (r"^meta_architecture/", "dpc/"),
    (r"_(depthwise|pointwise)(?=\.)", r".\1"),
    (r"/", "."),
)

SCHEMES = (
    _timm(5),  # Xception-71, which has all names of
    _timm(3),  # Xception-65
    *(
        Scheme(  # DeepLab's model zoo
            mark=f"xception_{depth}/entry_flow/conv1_1/weights",
            rules=_DEEPLAB_RULES,
            dropped=r"xception_\d+/logits/",
            is_tensorflow=True,
        )
        for depth in (65, 71)
    ),
    Scheme(  # PSPNet of its first author, github.com/hszhao/semseg
        mark="ppm.features.0.1.weight",
        rules=(
            (r"^layer0\.0\.", "backbone.conv1.0.conv."),
            (r"^layer0\.1\.", "backbone.conv1.0.bn."),
            (r"^layer0\.3\.", "backbone.conv1.1.conv."),
            (r"^layer0\.4\.", "backbone.conv1.1.bn."),
            (r"^layer0\.6\.", "backbone.conv1.2."),
            (r"^layer0\.7\.", "backbone.bn1."),
            (r"^layer", "backbone.layer"),
            (r"^ppm\.features\.(\d)\.1\.", r"pyramid.levels.\1.conv."),
            (r"^ppm\.features\.(\d)\.2\.", r"pyramid.levels.\1.bn."),
            (r"^cls\.0\.", "fuse.conv."),
            (r"^cls\.1\.", "fuse.bn."),
            (r"^cls\.4\.", "logits."),
        ),
        dropped=r"aux\.",
    ),
    Scheme(  # ResNets of torchvision, whose names are those of our backbones
        mark="layer4.2.bn3.weight",
        rules=((r"^", "backbone."),),
        dropped=r"fc\.",
    ),
)


def translated(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by our names, where they are of a network that we have and named as another library does; else empty.

    Args:
        weights: By name; a prefix before all names is ignored, as `module.`.
    """
    for scheme in SCHEMES:
        found = next((name for name in weights if name.endswith(scheme.mark)), None)
        if found is not None:
            prefix = found.removesuffix(scheme.mark)
            inside = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            return scheme.translate(inside)
    return {}
