"""Dataclasses that hold what their types say: settings come from files and command lines, which know no types."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from numbers import Real
from typing import Any, Union, get_args, get_origin, get_type_hints

_KINDS: Mapping[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
}


class FieldError(ValueError):
    """A field holds what it cannot.

    Args:
        name: The field.
        fault: What was wanted, and what was found.
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"{name}: {fault}")
        self.name, self.fault = name, fault


def check_fields(config: Any) -> None:
    """Hold the fields of a dataclass to their types: `int`, `float`, `bool`, `str`, tuples and mappings of these, None.

    A whole number passes for a `float`; a `bool` is no number, and no number may be infinite or NaN.

    Raises:
        FieldError: A field has another type.
    """
    for name, hint in _hints(config.__class__).items():
        if not _fits(getattr(config, name), hint):
            require(config, name, False, _described(hint))


def require(config: Any, name: str, holds: bool, wanted: str) -> None:
    """Raises FieldError with what was `wanted` of a field unless the condition `holds`."""
    if not holds:
        raise FieldError(name, f"wanted {wanted}, got {_shown(getattr(config, name))}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint on a name that nothing has: the most alike of those that are known, or all of them."""
    known = sorted(known)
    alike = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {alike[0]}?" if alike else f"there are {', '.join(known)}"


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        wanted = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(part, of) for item in value.items() for part, of in zip(item, parts, strict=True)
        )
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if part is type(None) else _described(part) for part in parts)
    if origin is tuple:
        count = "a list of" if parts[-1] is ... else str(len(parts))
        return f"{count} {_several(parts[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{_several(parts[-1])} by name"
    return _KINDS[hint][0] if hint in _KINDS else f"a section of fields ({hint.__name__})"


def _several(hint: Any) -> str:
    return _KINDS[hint][1] if hint in _KINDS else f"lists of {_several(get_args(hint)[0])}"


def _shown(value: Any) -> str:
    """A value as TOML has it, more or less: lists are not told from tuples, and truth is in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)
