"""The options by which `errseg-rt train` takes a network of the user's, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errseg_rt.bundle.classes import CLASS_SETS, ClassSet
from errseg_rt.errors import DataError
from errseg_rt.taps.chosen import TAPS, parse_taps

if TYPE_CHECKING:
    from errseg_rt.taps.network_file import NetworkFile
    from errseg_rt.training.frozen import FrozenNetwork
    from errseg_rt.training.recipe import Recipe

NetworkOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL.onnx|BUNDLE",
        help="A network of yours as the semantic branch, frozen: a bundle that wrap made of it, or its ONNX file.",
    ),
]
TapsOption = Annotated[
    str | None,
    typer.Option(
        metavar="low=NAME,mid=NAME,deep=NAME,high=NAME[,logits=NAME]",
        help="Its tensors that the branches work on; default: those that errseg-rt taps proposes.",
    ),
]


def open_frozen(
    path: Path, taps: str | None, recipe: str, changes: Sequence[str], given: Mapping[str, Any]
) -> tuple[Recipe, FrozenNetwork]:
    """A recipe for a frozen network, and the network with its taps, which is said.

    Args:
        path: The network's file or bundle.
        taps: As the command line has them; None: those of the recipe, or what is proposed.
        recipe: The recipe's name or path.
        changes: Values that take the place of the recipe's own.
        given: Values that do so before them.

    Raises:
        DataError: The network, its taps or the recipe cannot be used.
    """
    from errseg_rt.training.frozen import FrozenNetwork
    from errseg_rt.training.recipe_files import load_recipe

    fixed = _merged({"cascade": {"semantic": "onnx"}, "semantic": {"iterations": 0}}, given)
    if taps is not None:
        fixed["taps"] = parse_taps(taps)
    network = _open(path, recipe, changes, fixed)
    if network.class_set is not None:
        fixed["input"] = asdict(network.input)
    if network.input.size and "input" not in fixed:
        fixed["input"] = {"size": list(network.input.size)}
    defaults: dict[str, Any] = {} if network.class_set is None else {"data": {"classes": _named(network.class_set)}}
    maps = network.maps()
    asked = load_recipe(recipe, changes, fixed, defaults)
    logits = asked.taps.get("logits")
    if logits is not None and logits not in maps:
        logits = None  # which `chosen` tells
    if len(asked.classes) != network.classes:
        raise DataError(
            f"{path}: the network has {network.classes} classes, not the {len(asked.classes)} of data.classes; name "
            "its own (where the labels' classes merge several of them, data.merge says which)"
        )
    defaults["cascade"] = {"grid_stride": network.grid_stride(maps, logits)}
    settings = load_recipe(recipe, changes, fixed, defaults)
    grid_stride = settings.cascade.grid_stride
    print(f"{path}: {network.classes} classes, a grid of stride {grid_stride}{_cost(grid_stride)}")
    names = dict(settings.taps)
    if names:
        chosen = network.chosen(maps, names, grid_stride)
    else:
        proposed = network.proposed(maps, grid_stride)
        chosen = network.chosen(maps, {tap: each.map.name for tap, each in proposed.items()}, grid_stride)
        print("taps as proposed, which --taps changes:")
        names = {tap: chosen[tap].tensor for tap in TAPS}
    for tap in TAPS:
        print(f"  {tap}: {chosen[tap]}")
    settings = load_recipe(recipe, changes, {**fixed, "taps": names}, defaults)
    return settings, FrozenNetwork.of(network, chosen, grid_stride)


def _open(path: Path, recipe: str, changes: Sequence[str], fixed: Mapping[str, Any]) -> NetworkFile:
    """The network; of a file, with what the recipe says of its input and classes."""
    try:
        from errseg_rt.export.network_file import open_network
        from errseg_rt.taps.network_file import is_bundle
    except ModuleNotFoundError as error:
        raise DataError(f"onnx is not installed ({error}): pip install 'errseg-rt[train]'") from error
    from errseg_rt.training.recipe_files import load_recipe

    if is_bundle(path) or path.is_dir():
        return open_network(path)
    settings = load_recipe(recipe, changes, fixed)
    return open_network(path, settings.input, len(settings.classes), settings.taps.get("logits"))


def _named(classes: ClassSet) -> str | dict[str, Any]:
    """A class set as a recipe has it: by its name, or itself."""
    known = next((name for name, each in CLASS_SETS.items() if each == classes), None)
    return known or {"names": list(classes.names), "colors": [list(color) for color in classes.colors]}


def _merged(table: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables of sections, which have none in common but for whole ones."""
    return {**table, **{name: {**table.get(name, {}), **values} for name, values in other.items()}}


def _cost(grid_stride: int) -> str:
    more = (4 // grid_stride) ** 2
    if more == 1:
        return ""
    return f", {more} times the pixels of one of stride 4, which --set cascade.grid_stride=4 gives"
