"""`errseg-rt doctor`: what is installed here, which engines work, and why others do not."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from errseg_rt.bundle.bundle import zoo_names
from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.errors import EngineError, ErrsegError
from errseg_rt.options import ENGINES
from errseg_rt.places.driver import find_gpu
from errseg_rt.system.cores import Cores, find_cores
from errseg_rt.system.jetson import find_jetson
from errseg_rt.system.stamp import versions_of

_PACKAGES = (
    "errseg-rt", "numpy", "opencv-python", "onnxruntime", "numba", "av", "safetensors", "scikit-learn", "scipy",
    "matplotlib", "torch", "lightning", "onnx", "onnxscript", "triton", "tensorrt",
    "cuda-core", "pycuda",
)  # fmt: skip


def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, which engines work here, and why others do not."""
    engines = {engine: _try(engine) for engine in ENGINES}
    cores = find_cores()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": {"usable": cores.usable, **asdict(cores)},
        "gpu": _gpu(),
        "jetson": _jetson(),
        "packages": versions_of(_PACKAGES),
        "bundles": zoo_names(),
        "engines": engines,
        "providers": _providers(),
    }
    if as_json:
        print_json(report)
        return
    machine = [[key, str(report[key])] for key in ("python", "platform", "gpu")]
    machine.insert(2, ["cores", _cores(cores)])
    if report["jetson"]:
        machine.append(["jetson", report["jetson"]])
    machine.append(["bundles", ", ".join(report["bundles"]) or "none"])
    machine.append(["providers", ", ".join(report["providers"]) or "none"])
    print_table("Machine", ["", "value"], machine)
    print_table("Packages", ["package", "version"], [[k, v or "-"] for k, v in report["packages"].items()])
    print_table("Engines", ["engine", "state"], [[k, v] for k, v in engines.items()])


def _try(engine: str) -> str:
    """`works`, or why the engine does not: it segments a small frame with the embedded bundle."""
    try:
        from errseg_rt.runtime import Runtime

        with Runtime(engine=engine) as runtime:
            runtime.segment(np.zeros((64, 64, 3), np.uint8))
    except (ErrsegError, ImportError, OSError) as error:
        return " ".join(str(error).split())
    return "works"


def _providers() -> list[str]:
    """ONNX Runtime's execution providers, of which each has yet to start where it is asked for."""
    try:
        import onnxruntime
    except (ImportError, OSError):
        return []
    return list(onnxruntime.get_available_providers())


def _cores(cores: Cores) -> str:
    """The cores in words."""
    quota = "no quota" if cores.quota is None else f"a quota of {cores.quota:g}"
    return f"{cores.usable} usable: {cores.machine} of the machine, {cores.affinity} in the affinity mask, {quota}"


def _jetson() -> str | None:
    """Which Jetson this is, and what it wants; None for any other machine."""
    found = find_jetson()
    return f"{found}: {found.advice()}" if found else None


def _gpu() -> str:
    """What the NVIDIA driver says; asked of the driver alone, which no library can upset."""
    try:
        gpu = find_gpu()
    except EngineError as error:
        return str(error)
    capability, cuda = (".".join(map(str, version)) for version in (gpu.capability, gpu.cuda))
    return f"{gpu.name} (compute capability {capability}, {gpu.memory / 1e9:.0f} GB; driver for CUDA {cuda}); " + (
        f"{gpu.count} device(s)"
    )
