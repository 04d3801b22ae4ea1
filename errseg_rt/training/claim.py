"""What a folder holds a training of: its recipe and inputs are noted there, and it goes on with no others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from errseg_rt.bundle.input_spec import Size
from errseg_rt.errors import DataError
from errseg_rt.system.atomic import write_atomically
from errseg_rt.system.fields import check_fields
from errseg_rt.system.json_text import parse_json
from errseg_rt.training.recipe import Recipe

RECIPE, INPUTS = "recipe.json", "inputs.json"
_LABEL_MAP = "data.label_map"
_MOST_NAMED = 5  # differences that a message lists


@dataclass(frozen=True)
class Inputs:
    """What a training starts from, by content.

    Attributes:
        frames: Digest of the names of the frames that are learned from.
        init: Digest of the initial weights; None: there are none.
        rendered: Sizes of the rendered frames that are learned from; by default what they were before this was noted.
        train: Digests of picture and labels of every training frame, by name; None: not noted.
        val: The same of the frames that are scored on.
        label_map: Digest of what the recipe's label map says; None: it has none.
        also: The same as `train` of the further frames that are learned from; None: there are none.
        network: Digest of the file of a frozen network; None: the network is the recipe's.
    """

    frames: str
    init: str | None
    rendered: tuple[tuple[int, int], ...] = ((360, 480),)
    train: Mapping[str, str] | None = None
    val: Mapping[str, str] | None = None
    label_map: str | None = None
    also: Mapping[str, str] | None = None
    network: str | None = None

    def __post_init__(self) -> None:
        """Raises FieldError for what is no digest and no size."""
        check_fields(self)


def check_recipe(out: Path, recipe: Recipe) -> None:
    """Raises DataError where a folder holds a training by another recipe, or a damaged note of one."""
    if (out / RECIPE).exists():
        _refuse(out, recipe_differences(out, recipe))


def claim(out: Path, recipe: Recipe, inputs: Inputs, *, is_finished: bool) -> None:
    """Note recipe and inputs in a folder; refuse one that holds a training of other inputs.

    Args:
        out: The folder, of a training by this recipe or of none.
        recipe: The recipe.
        inputs: What it starts from.
        is_finished: Whether the training is; its scores are then those on the noted frames of val.

    Raises:
        DataError: The inputs of the folder's training are others, which is told by what differs, or damaged.
    """
    if (out / RECIPE).exists():
        _refuse(out, input_differences(out, inputs))
        noted = _noted_inputs(out)
        rescored = _differing_frames("val", noted.val, inputs.val) if is_finished and noted else []
        if rescored:
            raise DataError(
                f"{out}: finished, and scored on other frames ({listed(rescored)}); remove "
                f"{out / 'cascade.safetensors'}, and the trained branches are scored again"
            )
    elif is_finished:
        raise DataError(f"{out}: holds a finished training, but not what it is of ({RECIPE}); give another --out")
    # The recipe last: where it lies, both do.
    for name, note in ((INPUTS, inputs), (RECIPE, recipe)):
        with write_atomically(out / name) as temporary:
            temporary.write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")


def _refuse(out: Path, differing: Sequence[str]) -> None:
    if differing:
        raise DataError(
            f"{out}: holds another training ({listed(differing)}); give another --out, or remove the folder"
        )


def recipe_differences(folder: Path, recipe: Recipe, parts: Sequence[str] = ()) -> list[str]:
    """In which fields the recipe of a folder's training differs.

    A field that an older version did not know has its default there, which is what that version did. Label maps are
    told by content, see `input_differences`.

    Args:
        folder: Where the training lies.
        recipe: The recipe that it is held against.
        parts: Fields and sections that count, as `seed`, `data`, `cascade.classes`; none: all.

    Raises:
        DataError: The folder holds no recipe, or a damaged one.
    """
    differing = _differing(_note(folder / RECIPE), recipe)
    return [f"{path}: {how}" for path, how in differing if path != _LABEL_MAP and (not parts or _is_part(path, parts))]


def input_differences(folder: Path, inputs: Inputs) -> list[str]:
    """In what the inputs of a folder's training differ, but for the frames that it is only scored on.

    Raises:
        DataError: What the folder has noted of them is damaged.
    """
    noted = _noted_inputs(folder)
    if noted is None:
        return []
    found = [] if noted.init == inputs.init else ["--init: other weights"]
    if noted.network != inputs.network:
        found.append("--network: another file")
    if noted.label_map != inputs.label_map:
        found.append("label map: ids mean something else")
    found += _differing_frames("also", noted.also or {}, inputs.also or {})
    if noted.train is not None:
        return found + _differing_frames("train", noted.train, inputs.train)
    if noted.frames != inputs.frames:
        found.append("train: other frames")
    elif inputs.rendered and noted.rendered != inputs.rendered:
        found.append(f"rendered frames: {_sizes(noted.rendered)} there, {_sizes(inputs.rendered)} here, as the data")
    return found


def listed(parts: Sequence[str]) -> str:
    """The first of some parts, and how many more there are."""
    more = [f"{len(parts) - _MOST_NAMED} more"] if len(parts) > _MOST_NAMED else []
    return "; ".join([*parts[:_MOST_NAMED], *more])


def _noted_inputs(folder: Path) -> Inputs | None:
    """None where nothing is noted, as older versions did."""
    path = folder / INPUTS
    if not path.exists():
        return None
    table = _note(path)
    try:
        rendered = tuple((height, width) for height, width in table.pop("rendered", Inputs.rendered))
        return Inputs(**{**table, "rendered": rendered})
    except (TypeError, ValueError) as error:
        raise DataError(_damaged(path, str(error))) from error


def _note(path: Path) -> dict[str, Any]:
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(_damaged(path, str(error))) from error
    if not isinstance(table, dict):
        raise DataError(_damaged(path, f"it holds a {type(table).__name__}"))
    return table


def _damaged(path: Path, why: str) -> str:
    return f"{path}: damaged ({why}); put it back, or remove {path.parent} to train anew"


def _differing(theirs: Mapping[str, Any], ours: Any, section: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of every field that differs; `theirs` is as JSON has it."""
    known = {each.name: each for each in fields(ours)}
    for name, each in known.items():
        path, value = section + name, getattr(ours, name)
        other = theirs[name] if name in theirs else _plain(_default(each))
        if is_dataclass(value) and isinstance(other, Mapping):
            yield from _differing(other, value, f"{path}.")
        elif other != _plain(value):
            yield path, f"{_shown(other)} there, {_shown(_plain(value))} here"
    for name in theirs:
        if name not in known:
            yield section + name, f"{_shown(theirs[name])} there, and not known to this version"


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _plain(value: Any) -> Any:
    """As JSON gives it back; a field that has no default, and was not there, is nothing."""
    if value is MISSING:
        return None
    return json.loads(json.dumps(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value))


def _shown(value: Any) -> str:
    return "nothing" if value is None else "a section" if isinstance(value, dict) else json.dumps(value)


def _is_part(path: str, parts: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{part}.") for part in parts)


def _differing_frames(what: str, theirs: Mapping[str, str] | None, ours: Mapping[str, str] | None) -> list[str]:
    """What happened to the frames of a split, kind by kind, with the first frame of each."""
    if theirs is None or ours is None:
        return []
    both = {name: (theirs[name].partition(" "), ours[name].partition(" ")) for name in ours if name in theirs}
    kinds = {
        "gone": [name for name in theirs if name not in ours],
        "new": [name for name in ours if name not in theirs],
        "with other pictures": [name for name, (before, now) in both.items() if before[0] != now[0]],
        "with other labels": [name for name, (before, now) in both.items() if before[2] != now[2]],
    }
    more = {kind: f" and {len(names) - 1} more" if len(names) > 1 else "" for kind, names in kinds.items()}
    return [f"{what}: {names[0]}{more[kind]} {kind}" for kind, names in kinds.items() if names]


def _sizes(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes[:_MOST_NAMED])
