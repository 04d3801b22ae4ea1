"""DeepLabv3, FCN and LR-ASPP of torchvision."""

from __future__ import annotations

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.adapters import described, library
from errseg_rt.networks.semantic_branch import SemanticBranch

# Of the dilated ResNets, stages 3 and 4 have stride 8 too.
_RESNET = {"low": "backbone.layer1", "mid": "backbone.layer2", "deep": "backbone.layer3"}
_MOBILENET = {"low": "backbone.3", "mid": "backbone.6", "deep": "backbone.15"}
_HIGH = {"deeplabv3": "classifier.0", "fcn": "classifier.2", "lraspp": "classifier.cbr"}


def build(name: str, classes: int) -> SemanticBranch:
    """A network of `torchvision.models.segmentation`, without its auxiliary head, which only its training reads."""
    models = library("torchvision.models", "torchvision")
    head = name.partition("_")[0]
    if head not in _HIGH:
        raise DataError(f"there are {', '.join(sorted(models.list_models(module=models.segmentation)))}")
    try:
        network = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    except ValueError as error:
        raise DataError(described(error)) from error
    backbone = _RESNET if "resnet" in name else _MOBILENET
    taps = {**backbone, "high": _HIGH[head], "logits": "classifier"}
    return SemanticBranch.from_module(network, taps, classes, InputSpec(multiple=16), resize=True)
