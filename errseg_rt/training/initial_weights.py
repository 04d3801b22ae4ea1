"""Weights that a semantic branch starts from, as others have saved them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.registry import build_semantic
from errseg_rt.training.torch_files import read_torch

_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")
"""Names under which training programs keep the weights among other things."""
_PREFIXES = ("module.", "model.", "semantic.", "network.", "net.", "_orig_mod.")
"""What stands before the names of a network that was wrapped; `semantic.` in a cascade's own files."""
_OPTIONAL = "num_batches_tracked"  # which old files lack, and no forward pass reads
_MOST_NAMED = 3
_MEND = "--init wants the weights of the semantic network, its state_dict() as torch.save or safetensors write it"


def load_semantic_weights(cascade: Cascade, path: Path, merge: tuple[tuple[int, ...], ...]) -> None:
    """Start the semantic branch from weights of the same network, its classifier rows averaged over merged classes.

    Args:
        cascade: Its semantic branch is filled.
        path: A state dict, by `torch.save` (of which no code is run) or safetensors; it may lie within other things, as
            `{"state_dict": ...}`, and its names may have a wrapper's prefix, as `module.`.
        merge: For each class of the cascade, the classes of the file that it merges; empty: they are the same.

    Raises:
        DataError: The file is missing or does not fit; it says which names and shapes do not.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; {_MEND}")
    wanted = cascade.semantic.state_dict()
    weights = _unwrapped(_read(path), wanted)
    of_classes = _of_classes(cascade) if merge else set()
    faults = _faults(weights, wanted, merge, of_classes)
    if faults:
        network = f"{cascade.config.semantic} of {cascade.config.classes} classes"
        raise DataError(f"{path}: does not fit the semantic network, {network}: {'; '.join(faults)}")
    cascade.semantic.load_state_dict(
        {name: _merged(weights[name], merge) if name in of_classes else weights[name] for name in weights}
    )


def _of_classes(cascade: Cascade) -> set[str]:
    """Names of the tensors that have a row for each class: those that grow with the classes."""
    config = cascade.config
    with torch.device("meta"):
        larger = build_semantic(config.semantic, config.classes + 1).state_dict()
    return {name for name, own in cascade.semantic.state_dict().items() if own.shape != larger[name].shape}


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] != b"{":  # after the header's length, JSON
        return read_torch(path, _MEND)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: damaged ({error}); {_MEND}") from error


def _unwrapped(found: Any, wanted: Mapping[str, Tensor]) -> dict[str, Any]:
    """The weights within what was read, by the network's own names as far as they have them."""
    if not isinstance(found, Mapping):
        return {}
    if not wanted.keys() & found.keys():
        for nest in _NESTS:
            if isinstance(found.get(nest), Mapping):
                return _unwrapped(found[nest], wanted)
        for prefix in _PREFIXES:
            inside = {str(name).removeprefix(prefix): found[name] for name in found if str(name).startswith(prefix)}
            unwrapped = _unwrapped(inside, wanted) if inside else {}
            if wanted.keys() & unwrapped.keys():
                return unwrapped
    return {str(name): value for name, value in found.items()}


def _faults(
    weights: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    merge: tuple[tuple[int, ...], ...],
    of_classes: Collection[str],
) -> list[str]:
    """What does not fit, kind by kind."""
    if not weights:
        return ["it holds no weights by name"]
    missing = [name for name in wanted if name not in weights and not name.endswith(_OPTIONAL)]
    unexpected = [name for name in weights if name not in wanted]
    both = [(name, weights[name], wanted[name]) for name in weights if name in wanted]
    kinds = [f"{name} is no tensor but {type(value).__name__}" for name, value, _ in both if not _is_tensor(value)]
    tensors = [each for each in both if _is_tensor(each[1])]
    shapes = [
        f"{name} is {list(found.shape)}, wanted {list(own.shape)}"
        for name, found, own in tensors
        if not _fits(found, own, merge if name in of_classes else ())
    ]
    broken = [name for name, found, _ in tensors if found.is_floating_point() and not found.isfinite().all()]
    faults = [
        *_listed("missing", missing),
        *_listed("unexpected", unexpected),
        *_listed("of another kind", kinds),
        *_listed("of another shape", shapes),
        *_listed("not finite", broken),
    ]
    if shapes and not (missing or unexpected):
        faults.append(
            "where its classes are others, initial.classes and initial.merge say which of them each class merges"
        )
    return faults


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return [f"{kind} {', '.join(names[:_MOST_NAMED])}{more}"] if names else []


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
