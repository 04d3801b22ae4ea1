"""`errseg-rt doctor`: what is installed here, which engines work, and why others do not."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from errseg_rt.cli.faults import said
from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.errors import EngineError
from errseg_rt.options import ENGINES
from errseg_rt.places.driver import find_gpu
from errseg_rt.system.cores import Cores, find_cores
from errseg_rt.system.jetson import find_jetson
from errseg_rt.system.lines import one_line
from errseg_rt.system.progress import busy
from errseg_rt.system.stamp import opencv_versions, versions_of

_PACKAGES = (
    "errseg-rt", "numpy", "onnxruntime", "numba", "av", "pillow", "simplejpeg", "safetensors", "scikit-learn", "scipy",
    "matplotlib", "torch", "lightning", "onnx", "onnxscript", "triton", "tensorrt",
    "cuda-core", "pycuda", "fastapi", "uvicorn", "prometheus-client", "ray", "pyarrow",
)  # fmt: skip


def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, which engines work here, and why others do not."""
    kernels = _told(_kernels)  # before the engines mend what is damaged
    with busy("try the engines"):
        engines = {engine: _told(partial(_try, engine)) for engine in ENGINES}
    cores = find_cores()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": {"usable": cores.usable, **asdict(cores)},
        "gpu": _gpu(),
        "opencv": _told(_opencv),
        "kernels": kernels,
        "jetson": _jetson(),
        "packages": versions_of(_PACKAGES),
        "bundles": _told(_bundles),
        "engines": engines,
        "providers": _told(_providers),
    }
    if as_json:
        print_json(report)
        return
    machine = [[key, str(report[key])] for key in ("python", "platform", "gpu", "opencv")]
    machine.insert(2, ["cores", _cores(cores)])
    if report["jetson"]:
        machine.append(["jetson", report["jetson"]])
    machine.append(["kernels", _listed(kernels)])
    machine.append(["bundles", _listed(report["bundles"])])
    machine.append(["providers", _listed(report["providers"])])
    print_table("Machine", ["", "value"], machine)
    print_table("Packages", ["package", "version"], [[k, v or "-"] for k, v in report["packages"].items()])
    print_table("Engines", ["engine", "state"], [[k, v] for k, v in engines.items()])


def _told(question: Callable[[], Any]) -> Any:
    """The answer, or why there is none: whatever is wrong with a library, the others are to be told of."""
    try:
        return question()
    except Exception as error:
        return said(error) or f"{type(error).__name__}: {one_line(error)}"


def _try(engine: str) -> str:
    """`works`: the engine segments a small frame with the embedded bundle."""
    import numpy as np

    from errseg_rt.runtime import Runtime

    with Runtime(engine=engine) as runtime:
        runtime.segment(np.zeros((64, 64, 3), np.uint8))
    return "works"


def _opencv() -> str:
    """Which OpenCV is there, and of which package."""
    import cv2

    found = [f"{name} {version}" for name, version in opencv_versions().items() if version]
    origin = " and ".join(found) or "no package that pip knows"
    note = ", which overwrite each other's files: keep one of them" if len(found) > 1 else ""
    return f"{cv2.__version__} of {origin}{note}"


def _kernels() -> list[str]:
    """Folders where compiled kernels are looked for, and what is there."""
    from errseg_rt.kernels.cache import roots

    return [f"{root.path}: {root.state()}" for root in roots()]


def _bundles() -> list[str]:
    """Names of the embedded bundles."""
    from errseg_rt.bundle.bundle import zoo_names

    return zoo_names()


def _listed(answer: list[str] | str) -> str:
    return answer if isinstance(answer, str) else "\n".join(answer) or "none"


def _providers() -> list[str]:
    """ONNX Runtime's execution providers, of which each has yet to start where it is asked for."""
    import onnxruntime

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
