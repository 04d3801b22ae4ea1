"""Recipes in TOML files: those of the package and users' own, laid over each other, with single values changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from errseg_rt.bundle.classes import CLASS_SETS
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import CascadeConfig
from errseg_rt.system.fields import FieldError, nearest
from errseg_rt.system.toml_text import parse_toml
from errseg_rt.training.recipe import (
    STAGES,
    AugmentConfig,
    BootstrapConfig,
    CrossFitConfig,
    DataConfig,
    ErrorLossConfig,
    MethodConfig,
    Recipe,
    StageConfig,
    ViewsConfig,
)

T = TypeVar("T")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in (files(__package__) / "recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name: str, changes: Sequence[str] = (), given: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """Read a recipe by its name in the package or by its path.

    A recipe with a `base` is another recipe with some values changed; its path starts from the recipe's folder.

    Args:
        name: `camvid`, or the path of a TOML file.
        changes: Values that take the place of the recipe's own, as TOML: `seed=2`, `detail.iterations=100`.
        given: Values that do so before them, as a table.

    Raises:
        DataError: There is no such recipe, it has a field missing, unknown, or of an impossible value, or a change is
            no TOML.
    """
    table = _merge(_read(name), given)
    for change in changes:
        table = _merge(table, _parsed(change))
    try:
        return parse_recipe(Path(name).stem, table)
    except ValueError as error:
        raise DataError(f"recipe {name}: {error}") from error


def _parsed(change: str) -> dict[str, Any]:
    try:
        table = parse_toml(change)
    except ValueError as error:
        raise DataError(
            f"--set {change}: not TOML ({error}); wanted field=value, where a text stands in quotes, as "
            "\"data.classes='camvid'\", and what is true or false is so in lower case"
        ) from error
    if not table:
        raise DataError(f"--set {change!r}: wanted field=value, as detail.iterations=100")
    return table


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The table of a recipe, the base of those `above`, laid over that of its own base."""
    if name in above:
        raise DataError(f"a recipe cannot be its own base: {' <- '.join((*above, name))}")
    path, asked = Path(name), f"{above[-1]}: base: " if above else ""
    if path.suffix == ".toml":
        if not path.is_file():
            raise DataError(f"{asked}recipe {path}: no such file; recipes of the package: {', '.join(recipe_names())}")
        source: Any = path
    elif name in recipe_names():
        source = files(__package__) / "recipes" / f"{name}.toml"
    else:
        names = ", ".join(recipe_names())
        raise DataError(f"{asked}no recipe is called {name!r}: choose from {names}, or give a .toml file")
    try:
        table = parse_toml(source.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"recipe {name}: not TOML ({error})") from error
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise DataError(f"recipe {name}: base: wanted a recipe's name or path, got {base!r}")
    return _merge(_read(str(path.parent / base) if base.endswith(".toml") else base, (*above, name)), table)


def _merge(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with some values changed; sections are merged, all else takes the place of what was there."""
    merged = dict(table)
    for name, value in changes.items():
        old = table.get(name)
        merged[name] = _merge(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def parse_recipe(name: str, table: Mapping[str, Any]) -> Recipe:
    """A recipe from its TOML table.

    Raises:
        FieldError: A field is unknown, missing, or has an impossible value; it is a ValueError.
    """
    table = {"input": {}, "data": {}, "cascade": {}, **table}
    data = _build(DataConfig, table["data"], "data")
    sections: dict[str, Any] = {
        "cascade": CascadeConfig,
        "input": InputSpec,
        "augment": AugmentConfig,
        "views": ViewsConfig,
        "cross_fit": CrossFitConfig,
        "method": MethodConfig,
        "error_loss": ErrorLossConfig,
        "bootstrap": BootstrapConfig,
        **dict.fromkeys(STAGES, StageConfig),
    }
    if isinstance(table["cascade"], dict):
        table["cascade"] = {"classes": len(CLASS_SETS[data.classes]), **table["cascade"]}
    built = {key: _build(kind, table[key], key) for key, kind in sections.items() if table.get(key) is not None}
    return _build(Recipe, {**table, "name": name, "data": data, **built})


def _build(kind: type[T], table: Any, section: str = "") -> T:
    """A dataclass from its table; what is wrong is named with the section that it is in."""
    dotted = f"{section}." if section else ""
    if not isinstance(table, Mapping):
        raise FieldError(section, f"wanted a section of fields, got {table!r}")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            raise FieldError(f"{dotted}{name}", f"no such field; {nearest(name, known)}")
    for name, each in known.items():
        if name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise FieldError(f"{dotted}{name}", "missing; it has no default")
    try:
        return kind(**{name: _frozen(value) for name, value in table.items()})
    except FieldError as error:
        raise FieldError(f"{dotted}{error.name}", error.fault) from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
