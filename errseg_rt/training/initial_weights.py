"""Weights that a semantic branch starts from, as others have saved them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.registry import build_semantic
from errseg_rt.networks.weights import misfits, read_weights, unwrapped

_MEND = (
    "--init wants the weights of the semantic network, its state_dict() as torch.save(network.state_dict(), path) or "
    "safetensors write it, or the prefix of a TensorFlow checkpoint, as model.ckpt"
)
_BACKBONE = "backbone."  # before the names of its weights, in the networks that have one
_MERGE = "where its classes are others, initial.classes and initial.merge say which of them each class merges"


def load_semantic_weights(
    cascade: Cascade, path: Path, merge: tuple[tuple[int, ...], ...], *, learns: bool = False
) -> None:
    """Start the semantic branch from weights of the same network, its classifier rows averaged over merged classes.

    Args:
        cascade: Its semantic branch is filled.
        path: A state dict, by `torch.save` (of which no code is run) or safetensors; it may lie within other things, as
            `{"state_dict": ...}`, and its names may have a wrapper's prefix, as `module.`, or be those of timm,
            torchvision or the network's authors. Or the prefix of a checkpoint of TensorFlow.
        merge: For each class of the cascade, the classes of the file that it merges; empty: they are the same.
        learns: Whether the semantic branch learns from there: then weights of its backbone alone will do, as they are
            published for ImageNet.

    Raises:
        DataError: The file is missing or does not fit; it says which names and shapes do not.
    """
    wanted = cascade.semantic.state_dict()
    weights = unwrapped(read_weights(path, _MEND), wanted)
    others = {name: own for name, own in wanted.items() if not name.startswith(_BACKBONE)}
    if learns and weights.keys() & (wanted.keys() - others.keys()) and not weights.keys() & others.keys():
        weights = {**others, **weights}
    of_classes = _of_classes(cascade) if merge else set()
    rows = {name: merge if name in of_classes else () for name in weights}
    if faults := misfits(weights, wanted, lambda name, found, own: _fits(found, own, rows[name])):
        if len(faults) == 1 and faults[0].startswith("of another shape"):
            faults.append(_MERGE)
        network = f"{cascade.config.semantic} of {cascade.config.classes} classes"
        raise DataError(f"{path}: does not fit the semantic network, {network}: {'; '.join(faults)}")
    cascade.semantic.load_state_dict({name: _merged(weights[name], rows[name]) for name in weights})


def _of_classes(cascade: Cascade) -> set[str]:
    """Names of the tensors that have a row for each class: those that grow with the classes."""
    config = cascade.config
    with torch.device("meta"):
        larger = build_semantic(config.semantic, config.classes + 1).state_dict()
    return {name for name, own in cascade.semantic.state_dict().items() if own.shape != larger[name].shape}


def _fits(found: Tensor, own: Tensor, merge: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a tensor has the network's shape, or will have it once its classes are merged."""
    if not _has_rows(found, merge):
        return found.shape == own.shape
    return found.shape[1:] == own.shape[1:] and len(own) == len(merge)


def _has_rows(found: Tensor, merge: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a tensor has the rows that are merged; else its classes may be the cascade's own."""
    return bool(merge) and bool(found.ndim) and max(max(rows) for rows in merge) < len(found)


def _merged(found: Tensor, merge: tuple[tuple[int, ...], ...]) -> Tensor:
    if not _has_rows(found, merge):
        return found
    return torch.stack([found[list(rows)].mean(dim=0) for rows in merge])
