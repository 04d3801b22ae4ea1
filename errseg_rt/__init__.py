"""errseg-rt: segmentation cascades that know where they are wrong.

`Runtime` turns a frame into a `Segmentation`: labels, and how far to trust them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errseg_rt.bundle.bundle import Bundle
    from errseg_rt.errors import BundleError, DataError, EngineError, ErrsegError, FrameError
    from errseg_rt.frames.segmentation import Segmentation
    from errseg_rt.runtime import Runtime

__all__ = [
    "Bundle",
    "BundleError",
    "DataError",
    "EngineError",
    "ErrsegError",
    "FrameError",
    "Runtime",
    "Segmentation",
]

_HOMES = {"Bundle": "bundle.bundle", "Runtime": "runtime", "Segmentation": "frames.segmentation"}


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used: importing the package stays cheap."""
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("errseg-rt")
    if name not in __all__:
        raise AttributeError(f"module 'errseg_rt' has no attribute {name!r}")
    return getattr(import_module(f"errseg_rt.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
