"""ONNX Runtime's execution providers: which package brings one, and whether a session has kept it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

import onnxruntime

from errseg_rt.errors import EngineError
from errseg_rt.system.stamp import ONNXRUNTIMES, version_of

CPU = "CPUExecutionProvider"
Providers = Sequence[str | tuple[str, dict[str, Any]]]

_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "CoreMLExecutionProvider": "onnxruntime",
}
"""The package that brings a provider."""
_SYSTEMS = {"DmlExecutionProvider": "Windows", "CoreMLExecutionProvider": "Darwin"}
_WANTS = {
    "CUDAExecutionProvider": "it wants CUDA and cuDNN of its version: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "it wants TensorRT, CUDA and cuDNN of its version, where the loader finds them",
    "OpenVINOExecutionProvider": "the device or another of its options is none that OpenVINO has here",
}
_BY_CUDA = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}


def names_of(providers: Providers) -> list[str]:
    """The providers' names, without their options."""
    return [each if isinstance(each, str) else each[0] for each in providers]


def check_there(names: Iterable[str]) -> None:
    """Raise EngineError where a provider is not in the onnxruntime that is installed."""
    available = onnxruntime.get_available_providers()
    missing = [name for name in names if name not in available]
    if not missing:
        return
    first = missing[0]
    package, system = _PACKAGES.get(first), _SYSTEMS.get(first, platform.system())
    there = next((each for each in ONNXRUNTIMES if version_of(each)), "onnxruntime")
    if system != platform.system():
        remedy = f"{first} is for {'macOS' if system == 'Darwin' else system}"
    elif package and package != there:
        remedy = f"pip uninstall -y {there}, which lies in the same folder, then pip install {package}"
    else:
        remedy = "choose among these, or install the onnxruntime package that brings it"
    raise EngineError(f"onnxruntime has no {', '.join(missing)} here (it has {', '.join(available)}); {remedy}")


def load_libraries(names: Iterable[str]) -> None:
    """Load CUDA's libraries where pip has put them, which the loader does not search."""
    if _BY_CUDA.intersection(names) and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what it does not find; the session says whether that matters
            onnxruntime.preload_dlls()


def check_kept(graph: str, names: Iterable[str], kept: Sequence[str]) -> None:
    """Raise EngineError where a session went on without a provider, as it does when that cannot start.

    Args:
        graph: What the graph is called in messages.
        names: The providers that were asked for.
        kept: Those that the session has.
    """
    lost = [name for name in names if name not in kept]
    if lost:
        why = _WANTS.get(lost[0], "onnxruntime's documentation of it says what it wants")
        raise EngineError(
            f"{', '.join(lost)} cannot start here, and the {graph} graph would run on {', '.join(kept)}; {why}"
        )
