"""Where, when and with what figures were made."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from errseg_rt.system.machine import processor_name

_PACKAGES = ("errseg-rt", "numpy", "numba", "onnxruntime", "scikit-learn", "scipy", "torch")
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
"""Packages that hold the same module, `cv2`; any of them will do."""

ONNXRUNTIMES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-migraphx",
    "onnxruntime-qnn",
)  # fmt: skip
"""Packages that bring the module onnxruntime, each built for other hardware; one is installed."""


def machine_stamp(gpu: str | None) -> dict[str, Any]:
    """Date, machine and versions.

    Args:
        gpu: Name of the GPU; None where there is none.

    Returns:
        For JSON; the version of a package that is missing is None.
    """
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions_of(_PACKAGES),
    }


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Versions of packages by name, of those that bring onnxruntime under another name, and of those of OpenCV."""
    others = {name: version for name in ONNXRUNTIMES[1:] if (version := version_of(name))}
    return {name: version_of(name) for name in packages} | others | opencv_versions()


def version_of(package: str) -> str | None:
    """Version of an installed package; None where there is none of that name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def opencv_versions() -> dict[str, str | None]:
    """Versions of those OpenCV packages that are installed; where there is none, None for the one that is wanted."""
    found = {name: version_of(name) for name in OPENCV}
    return {name: version for name, version in found.items() if version} or {OPENCV[0]: None}
