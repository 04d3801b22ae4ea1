"""errseg-rt: segmentation cascades that know where they are wrong.

`Runtime` turns a frame into a `Segmentation`: labels, and how far to trust them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    from errseg_rt.bundle.bundle import Bundle
    from errseg_rt.bundle.classes import ClassSet
    from errseg_rt.errors import BundleError, DataError, EngineError, ErrsegError, FrameError, SourceError
    from errseg_rt.frames.branches import Branches
    from errseg_rt.frames.frame import DeviceFrame
    from errseg_rt.frames.instances import Instances
    from errseg_rt.frames.segmentation import Segmentation
    from errseg_rt.kernels.geometry import Geometry
    from errseg_rt.options import Limits, Options
    from errseg_rt.pipeline.in_flight import FrameInFlight
    from errseg_rt.pipeline.outcome import Outcome
    from errseg_rt.runtime import Runtime
    from errseg_rt.video.stream import Shot, Stream

# Without this, importing onnxruntime writes an id into the home folder and calls its makers; a user's own word holds.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# In a source archive, and in a checkout whose symbolic links are text files, two sub-packages lie beside the package.
_HERE = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_HERE, "kernels")):
    __path__.append(os.path.dirname(_HERE))

_HOMES = {
    "bundle.bundle": ("Bundle",),
    "bundle.classes": ("ClassSet",),
    "errors": ("BundleError", "DataError", "EngineError", "ErrsegError", "FrameError", "SourceError"),
    "frames.branches": ("Branches",),
    "frames.frame": ("DeviceFrame",),
    "frames.instances": ("Instances",),
    "frames.segmentation": ("Segmentation",),
    "kernels.geometry": ("Geometry",),
    "options": ("Limits", "Options"),
    "pipeline.in_flight": ("FrameInFlight",),
    "pipeline.outcome": ("Outcome",),
    "runtime": ("Runtime",),
    "video.stream": ("Shot", "Stream"),
}

__all__ = [
    "Branches",
    "Bundle",
    "BundleError",
    "ClassSet",
    "DataError",
    "DeviceFrame",
    "EngineError",
    "ErrsegError",
    "FrameError",
    "FrameInFlight",
    "Geometry",
    "Instances",
    "Limits",
    "Options",
    "Outcome",
    "Runtime",
    "Segmentation",
    "Shot",
    "SourceError",
    "Stream",
]

_get = lazy(__name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names})


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used: importing the package stays cheap."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("errseg-rt")
    return _get(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
