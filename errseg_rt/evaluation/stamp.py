"""Where, when and with what figures were made."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.system.machine import processor_name

_PACKAGES = ("errseg-rt", "numpy", "numba", "onnxruntime", "opencv-python", "scikit-learn", "scipy", "torch")


def machine_stamp() -> dict[str, Any]:
    """Date, machine and versions; None for a package that is missing."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def bundle_stamp(bundle: Bundle) -> dict[str, str]:
    """Name of a bundle, and the SHA-256 of its manifest, which holds those of all its files."""
    digest = hashlib.sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest()
    return {"name": bundle.manifest.name, "sha256": digest}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
