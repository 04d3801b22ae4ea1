"""Weights as others have saved them: within a training's checkpoint, behind a wrapper's prefix, or as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from errseg_rt.errors import DataError
from errseg_rt.networks.tensorflow import checkpoint_files, read_checkpoint
from errseg_rt.networks.torch_files import read_torch
from errseg_rt.networks.weight_names import translated

MEND = "save the weights alone, by torch.save(network.state_dict(), path) or as safetensors"
_FIRST_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")
"""Where weights lie in a checkpoint, in the order in which they are taken; others, as `ema`, come after them."""
_DEEPEST = 4
_OPTIONAL = "num_batches_tracked"  # which old files lack, and no forward pass reads
_MOST_NAMED = 3
_LFS = b"version https://git-lfs"


def load_weights(network: nn.Module, source: Mapping[str, Any] | str | Path) -> None:
    """Fill a network.

    Args:
        network: It is changed only where all fits.
        source: Its weights by name, or a file of them that torch.save (of which no code is run) or safetensors wrote,
            or the prefix of a checkpoint of TensorFlow. They may lie within other things, as in
            `{"state_dict": ...}`, behind a prefix, as `module.`, or have the names of another library.

    Raises:
        DataError: The file is missing or damaged, or they do not fit; it says which names and shapes do not.
    """
    is_file = isinstance(source, str | Path)
    found = read_weights(Path(source), MEND) if isinstance(source, str | Path) else source
    wanted = network.state_dict()
    weights = unwrapped(found, wanted)
    if faults := misfits(weights, wanted):
        raise DataError(f"{source if is_file else 'state_dict'}: does not fit the network: {'; '.join(faults)}")
    network.load_state_dict(weights)


def read_weights(path: Path, mend: str) -> Any:
    """What a file of torch.save or of safetensors holds, or a checkpoint of TensorFlow, meant by its prefix.

    Raises:
        DataError: It is missing, damaged, or holds more than tensors and plain values; `mend` says what to do then.
    """
    if files := checkpoint_files(path):
        for file in files:
            _refuse_pointer(file)
        return read_checkpoint(path)
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; {mend}")
    if _refuse_pointer(path)[8:9] != b"{":  # after the header's length, JSON
        return read_torch(path, mend)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: damaged ({error}); {mend}") from error


def _refuse_pointer(path: Path) -> bytes:
    """The first bytes of a file; DataError where Git has left a pointer in its place."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        raise DataError(f"{path}: a pointer of Git LFS in the place of the file; fetch it by git lfs pull")
    return start


def unwrapped(found: Any, wanted: Mapping[str, Tensor]) -> dict[str, Any]:
    """The weights within what was read, by the network's own names as far as they have them.

    Of all mappings within, all prefixes in them, and all libraries whose names are known, those count that give most
    names of the network. Auxiliary heads that it lacks, which only its first training read, are left out.
    """
    best, most = {str(name): value for name, value in found.items()} if isinstance(found, Mapping) else {}, 0
    for nest in _nests(found):
        for renamed in (_stripped(nest, wanted), translated(nest), _added(nest, wanted)):
            count = len(wanted.keys() & renamed.keys())
            if count > most:
                best, most = renamed, count
    return {name: value for name, value in best.items() if name in wanted or not _is_auxiliary(name)}


def misfits(
    weights: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    fits: Callable[[str, Tensor, Tensor], bool] = lambda name, found, own: found.shape == own.shape,
) -> list[str]:
    """What keeps weights from filling a network, kind by kind; empty: they do.

    Args:
        weights: By name.
        wanted: The network's own.
        fits: Whether the tensor of a name can take the place of the network's own.
    """
    if not weights:
        return ["it holds no weights by name"]
    missing = [name for name in wanted if name not in weights and not name.endswith(_OPTIONAL)]
    unexpected = [name for name in weights if name not in wanted]
    both = [(name, weights[name], wanted[name]) for name in weights if name in wanted]
    kinds = [f"{name} is no tensor but {type(found).__name__}" for name, found, _ in both if not _is_tensor(found)]
    tensors = [each for each in both if _is_tensor(each[1])]
    shapes = [
        f"{name} is {list(found.shape)}, wanted {list(own.shape)}"
        for name, found, own in tensors
        if not fits(name, found, own)
    ]
    broken = [name for name, found, _ in tensors if found.is_floating_point() and not found.isfinite().all()]
    faults = [
        *_listed("missing", missing),
        *_listed("unexpected", unexpected),
        *_listed("of another kind", kinds),
        *_listed("of another shape", shapes),
        *_listed("not finite", broken),
    ]
    if missing and unexpected and not both:
        faults.append(
            f"its names begin with {_beginnings(unexpected)}, those of the network with {_beginnings(missing)}"
        )
    return faults


def _nests(found: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Mappings within what was read, outer ones and those of well-known names first."""
    if not isinstance(found, Mapping) or depth > _DEEPEST:
        return
    nest = {str(name): value for name, value in found.items()}
    yield nest
    known = [name for name in _FIRST_NESTS if name in nest]
    for name in (*known, *(name for name in nest if name not in known)):
        yield from _nests(nest[name], depth + 1)


def _stripped(nest: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What stands behind the prefix that most names of the network have here; the prefix may be empty."""
    prefixes = Counter(prefix for name in nest for prefix, rest in _splits(name) if rest in wanted)
    if not prefixes:
        return {}
    prefix = max(prefixes, key=lambda each: (prefixes[each], -len(each)))
    return {name.removeprefix(prefix): nest[name] for name in nest if name.startswith(prefix)}


def _added(nest: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """All of it behind the prefix that the network's names have and those here lack, where it has most of them."""
    prefixes = Counter(prefix for name in wanted for prefix, rest in _splits(name) if prefix and rest in nest)
    if not prefixes or 2 * max(prefixes.values()) < len(wanted):
        return {}
    prefix = max(prefixes, key=lambda each: (prefixes[each], -len(each)))
    return {prefix + name: value for name, value in nest.items()}


def _is_auxiliary(name: str) -> bool:
    return any(part.startswith("aux") for part in name.split("."))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A dotted name cut behind each of its dots, and before the first part."""
    yield "", name
    for index, letter in enumerate(name, start=1):
        if letter == ".":
            yield name[:index], name[index:]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return [f"{kind} {', '.join(names[:_MOST_NAMED])}{more}"] if names else []


def _beginnings(names: Iterable[str]) -> str:
    firsts = dict.fromkeys(name.partition(".")[0] + "." * ("." in name) for name in names)
    return ", ".join(list(firsts)[:_MOST_NAMED]) + " and others" * (len(firsts) > _MOST_NAMED)
