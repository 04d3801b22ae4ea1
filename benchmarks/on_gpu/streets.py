"""Rendered streets, each built once in a process: that takes seconds at full size."""

from __future__ import annotations

from functools import lru_cache

from errseg_rt.scenes import SceneFrame, StreetScene

Size = tuple[int, int]


@lru_cache(2)
def _scene(size: Size) -> StreetScene:
    return StreetScene(7, *size)


@lru_cache(8)
def street(size: Size, view: int = 0) -> SceneFrame:
    """A view of the street."""
    return _scene(size).frame(20 * view)
