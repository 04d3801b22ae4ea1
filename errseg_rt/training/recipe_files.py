"""Recipes in TOML files: those of the package and users' own, laid over each other, with single values changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from errseg_rt.bundle.class_files import classes_of_table, open_classes
from errseg_rt.bundle.classes import CLASS_SETS
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.datasets.label_map import NAMED_MAPS
from errseg_rt.datasets.merge import MERGES, read_merge
from errseg_rt.errors import DataError, ErrsegError
from errseg_rt.networks.cascade import CascadeConfig
from errseg_rt.system.fields import FieldError, nearest
from errseg_rt.system.toml_text import parse_toml
from errseg_rt.training.recipe import STAGES, Recipe
from errseg_rt.training.recipe_data import AugmentConfig, DataConfig, InitialConfig, ViewsConfig
from errseg_rt.training.recipe_learning import (
    BootstrapConfig,
    BoxLossConfig,
    CrossFitConfig,
    ErrorLossConfig,
    InstancesConfig,
    MethodConfig,
    StageConfig,
)

T = TypeVar("T")

_FILES = {
    ("data", "classes"): CLASS_SETS,
    ("data", "merge"): MERGES,
    ("data", "label_map"): NAMED_MAPS,
    ("initial", "classes"): CLASS_SETS,
    ("initial", "merge"): MERGES,
}
"""Values that may be a file's path, and the names that they may have instead."""
_TABLES = [path for path in _FILES if path[1] != "label_map"]  # where a table is one value, not a section


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in (files(__package__) / "recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(
    name: str,
    changes: Sequence[str] = (),
    given: Mapping[str, Any] = MappingProxyType({}),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Recipe:
    """Read a recipe by its name in the package or by its path.

    A recipe with a `base` is another recipe with some values changed. Paths in a recipe's file start from its folder,
    those in changes from the working folder.

    Args:
        name: `camvid`, or the path of a TOML file.
        changes: Values that take the place of the recipe's own, as TOML: `seed=2`, `detail.iterations=100`.
        given: Values that do so before them, as a table.
        defaults: Values where the recipe has none.

    Raises:
        DataError: There is no such recipe, it has a field missing, unknown, or of an impossible value, or a change is
            no TOML.
    """
    table = _merge(_merge(dict(defaults), _read(name)), given)
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
    if path.suffix == ".toml":
        table = _anchored(table, path.parent)
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise DataError(f"recipe {name}: base: wanted a recipe's name or path, got {base!r}")
    return _merge(_read(str(path.parent / base) if base.endswith(".toml") else base, (*above, name)), table)


def _anchored(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A table whose files are looked for in the folder that it was found in."""
    anchored = dict(table)
    for (section, name), known in _FILES.items():
        fields_of = anchored.get(section)
        value = fields_of.get(name) if isinstance(fields_of, dict) else None
        if isinstance(fields_of, dict) and isinstance(value, str) and value not in ("", *known) and not value.isdigit():
            anchored[section] = {**fields_of, name: str(folder / Path(value).expanduser())}
    return anchored


def _merge(table: dict[str, Any], changes: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table with some values changed; sections are merged, all else takes the place of what was there."""
    merged = dict(table)
    for name, value in changes.items():
        old, here = table.get(name), (*path, name)
        is_section = isinstance(value, dict) and here not in _TABLES
        merged[name] = _merge(old if isinstance(old, dict) else {}, value, here) if is_section else value
    return merged


def _with_files(table: dict[str, Any], section: str) -> dict[str, Any]:
    """A section with what its files hold in the place of their paths."""
    filled, name = dict(table), f"{section}.classes"
    classes, merge = filled.get("classes"), filled.get("merge")
    try:
        if isinstance(classes, dict) or (isinstance(classes, str) and classes and classes not in CLASS_SETS):
            found = open_classes(classes) if isinstance(classes, str) else classes_of_table(classes, name)
            filled["classes"] = found.classes
            if section == "data":
                filled = {"void": list(found.void_ids), "void_names": list(found.void_names), **filled}
        name = f"{section}.merge"
        if isinstance(merge, str) and merge:
            filled["merge"] = read_merge(merge)
    except ErrsegError as error:
        raise FieldError(name, str(error).removeprefix(f"{name}: ")) from error
    if isinstance(filled.get("merge"), Mapping):
        filled["merge"] = {key: (of,) if isinstance(of, str) else of for key, of in filled["merge"].items()}
    return filled


def parse_recipe(name: str, table: Mapping[str, Any]) -> Recipe:
    """A recipe from its TOML table.

    Raises:
        FieldError: A field is unknown, missing, or has an impossible value; it is a ValueError.
    """
    table = {"input": {}, "data": {}, "cascade": {}, **table}
    for section in ("data", "initial"):
        if isinstance(table.get(section), dict):
            table[section] = _with_files(table[section], section)
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
        "box_loss": BoxLossConfig,
        "instances": InstancesConfig,
        "initial": InitialConfig,
        **dict.fromkeys(STAGES, StageConfig),
    }
    if isinstance(table["cascade"], dict):
        table["cascade"] = {"classes": len(data.class_set), **table["cascade"]}
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
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
