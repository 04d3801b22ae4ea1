"""Engines execute the graphs of a bundle; each is loaded only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from errseg_rt.bundle import WEIGHTS, Bundle
from errseg_rt.engines.device_engine import PRECISIONS, DeviceEngine, DeviceSpec
from errseg_rt.engines.engine import Array, Engine, TensorSpec
from errseg_rt.errors import EngineError

if TYPE_CHECKING:
    import torch

ENGINES = ("onnxruntime", "torch")
DEVICE_ENGINES = ("torch",)
"""Those that run on a GPU, on tensors that lie there."""

__all__ = [
    "DEVICE_ENGINES",
    "ENGINES",
    "PRECISIONS",
    "Array",
    "DeviceEngine",
    "DeviceSpec",
    "Engine",
    "TensorSpec",
    "open_device_engine",
    "open_engine",
]


def open_engine(
    engine: str,
    bundle: Bundle,
    graph: str,
    *,
    threads: int | None = None,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
) -> Engine:
    """An engine that executes one graph of a bundle.

    Args:
        engine: One of `ENGINES`.
        bundle: The bundle.
        graph: `"front"` or `"refine"`.
        threads: CPU threads of one run (onnxruntime; torch has one setting for the whole process, its own).
        providers: ONNX Runtime's execution providers.

    Raises:
        EngineError: There is no such engine, it is not installed, or it cannot load the graph.
    """
    if engine not in ENGINES:
        raise EngineError(f"no engine is called {engine!r}: choose from {', '.join(ENGINES)}")
    if providers is not None and engine != "onnxruntime":
        raise EngineError(f"providers= is for the onnxruntime engine, not for {engine}; leave it out")
    try:
        if engine == "onnxruntime":
            from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
        else:
            from errseg_rt.engines.torch import TorchEngine
    except (ImportError, OSError) as error:  # OSError: one of its libraries cannot be loaded
        extra = "" if engine == "onnxruntime" else f"[{engine}]"
        raise EngineError(f"engine {engine} is not installed ({error}): pip install 'errseg-rt{extra}'") from error
    if engine == "onnxruntime":
        return OnnxRuntimeEngine(bundle.read(f"graphs/{graph}.onnx"), graph, threads=threads, providers=providers)
    return TorchEngine(bundle.read(WEIGHTS), bundle.manifest.cascade, graph)


def open_device_engine(
    engine: str, bundle: Bundle, graph: str, *, device: torch.device, precision: str = "fp16", compiled: bool = False
) -> DeviceEngine:
    """An engine that executes one graph of a bundle on a GPU.

    Args:
        engine: One of `DEVICE_ENGINES`.
        bundle: The bundle.
        graph: `"front"` or `"refine"`.
        device: The GPU.
        precision: A key of `PRECISIONS`.
        compiled: Whether `torch.compile` fuses the graph; for the torch engine.

    Raises:
        EngineError: There is no such engine on a GPU, it is not installed, or it cannot load the graph.
        ValueError: There is no such precision.
    """
    if engine not in DEVICE_ENGINES:
        raise EngineError(f"the engine {engine!r} runs on no GPU here: choose from {', '.join(DEVICE_ENGINES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    try:
        from errseg_rt.engines.torch import TorchDeviceEngine
    except (ImportError, OSError) as error:
        raise EngineError(f"engine torch is not installed ({error}): pip install 'errseg-rt[torch]'") from error
    return TorchDeviceEngine(
        bundle.read(WEIGHTS), bundle.manifest.cascade, graph, device=device, precision=precision, compiled=compiled
    )
