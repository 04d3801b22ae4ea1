"""Engines execute the graphs of a bundle; each is loaded only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from errseg_rt.bundle.bundle import WEIGHTS, Bundle
from errseg_rt.engines.device_engine import PRECISIONS, DeviceEngine, DeviceSpec
from errseg_rt.engines.engine import Array, Engine, TensorSpec
from errseg_rt.engines.fitting import built_engines
from errseg_rt.errors import EngineError

if TYPE_CHECKING:
    from errseg_rt.places.place import Gpu

ENGINES = ("onnxruntime", "tensorrt", "torch")
DEVICE_ENGINES = ("tensorrt", "torch")
"""Those that run on a GPU, on arrays that lie there."""
HOST_ENGINES = ("onnxruntime", "torch")
"""Those that run on the CPU."""

__all__ = [
    "DEVICE_ENGINES",
    "ENGINES",
    "HOST_ENGINES",
    "PRECISIONS",
    "Array",
    "DeviceEngine",
    "DeviceSpec",
    "Engine",
    "TensorSpec",
    "check_device_engine",
    "open_device_engine",
    "open_engine",
]


def open_engine(
    engine: str,
    bundle: Bundle,
    graph: str,
    *,
    precision: str | None = None,
    build: str | None = None,
    threads: int | None = None,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
) -> Engine:
    """An engine that executes one graph of a bundle on the CPU.

    Args:
        engine: One of `HOST_ENGINES`.
        bundle: The bundle.
        graph: `"front"` or `"refine"`.
        precision: What it computes in; None: fp32. Any but fp32 is built ahead, by `errseg-rt build-engine`.
        build: `"auto"` builds what is missing or stale; None: that is an error.
        threads: CPU threads of one run (onnxruntime; torch has one setting for the whole process, its own).
        providers: ONNX Runtime's execution providers.

    Raises:
        EngineError: There is no such engine or precision, it is not installed, it has not been built for this machine,
            or it cannot load the graph.
    """
    if engine not in ENGINES:
        raise EngineError(f"no engine is called {engine!r}: choose from {', '.join(ENGINES)}")
    if engine not in HOST_ENGINES:
        raise EngineError(
            f"{engine} runs on a GPU, not on the CPU; leave device out, or choose from {', '.join(HOST_ENGINES)}"
        )
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
        model = bundle.read(f"graphs/{graph}.onnx")
        if precision not in (None, "fp32"):
            (built, *_) = built_engines(bundle, engine, precision, build)
            # A graph that has no lower precision is the bundle's own.
            model = built.read(f"{graph}.onnx") if f"{graph}.onnx" in built.files else model
        return OnnxRuntimeEngine(model, graph, threads=threads, providers=providers)
    if precision not in (None, "fp32"):
        raise EngineError(f"the torch engine computes in fp32 on the CPU, not in {precision}; leave precision out")
    return TorchEngine(bundle.read(WEIGHTS), bundle.manifest.cascade, graph)


def check_device_engine(engine: str) -> None:
    """Raise EngineError for an engine that runs on no GPU."""
    if engine not in DEVICE_ENGINES:
        raise EngineError(f"the engine {engine!r} runs on no GPU here: choose from {', '.join(DEVICE_ENGINES)}")


def open_device_engine(
    engine: str,
    bundle: Bundle,
    graph: str,
    *,
    gpu: Gpu,
    precision: str = "fp16",
    build: str | None = None,
    compiled: bool = False,
) -> DeviceEngine:
    """An engine that executes one graph of a bundle on a GPU.

    Args:
        engine: One of `DEVICE_ENGINES`.
        bundle: The bundle.
        graph: `"front"` or `"refine"`.
        gpu: The GPU.
        precision: A key of `PRECISIONS`; for TensorRT also `"int8"`, which is fp16 outside.
        build: `"auto"` builds what is missing or stale, for TensorRT; None: that is an error.
        compiled: Whether `torch.compile` fuses the graph; for the torch engine.

    Raises:
        EngineError: There is no such engine on a GPU, it is not installed, or it cannot load the graph.
        ValueError: There is no such precision.
    """
    check_device_engine(engine)
    if engine == "tensorrt":
        from errseg_rt.engines.tensorrt import TensorRTEngine

        return TensorRTEngine(built_engines(bundle, engine, precision, build, gpu.index), graph, gpu=gpu)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    try:
        from errseg_rt.engines.torch import TorchDeviceEngine
    except (ImportError, OSError) as error:
        raise EngineError(f"engine torch is not installed ({error}): pip install 'errseg-rt[torch]'") from error
    device, cascade = gpu.device, bundle.manifest.cascade  # type: ignore[attr-defined]  # a TorchGpu
    return TorchDeviceEngine(
        bundle.read(WEIGHTS), cascade, graph, device=device, precision=precision, compiled=compiled
    )
