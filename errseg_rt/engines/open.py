"""Opening an engine for one graph of a bundle; each is loaded only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from errseg_rt.bundle.bundle import WEIGHTS, Bundle
from errseg_rt.engines.engine import Engine
from errseg_rt.engines.fitting import built_engines
from errseg_rt.errors import EngineError
from errseg_rt.options import Options
from errseg_rt.places.place import Gpu, Place
from errseg_rt.system.shortage import remedy

if TYPE_CHECKING:
    from errseg_rt.places.torch_gpu import TorchGpu


def open_engine(bundle: Bundle, graph: str, options: Options, place: Place) -> Engine:
    """An engine that executes one graph of a bundle.

    Args:
        bundle: The bundle.
        graph: `"front"` or `"refine"`.
        options: Which engine, in what precision, and how.
        place: Whose arrays it works on; that of the options.

    Raises:
        EngineError: It is not installed, it has not been built for this machine, or it cannot load the graph.
    """
    try:
        opener = {"onnxruntime": _onnxruntime, "tensorrt": _tensorrt, "torch": _torch}[options.engine]
        return opener(bundle, graph, options, place)
    except (ImportError, OSError) as error:  # OSError: one of its libraries cannot be loaded
        # Without an extra ours is there already, and pip would leave what is broken as it is.
        needs = "--force-reinstall onnxruntime" if options.engine == "onnxruntime" else f"'errseg-rt[{options.engine}]'"
        advice = remedy(error) or f"pip install {needs}"
        raise EngineError(f"engine {options.engine} is not installed ({error}): {advice}") from error


def _onnxruntime(bundle: Bundle, graph: str, options: Options, place: Place) -> Engine:
    from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine

    model = bundle.read(f"graphs/{graph}.onnx")
    if options.arithmetic != "fp32":
        (built, *_) = built_engines(bundle, options.engine, options.arithmetic)
        # A graph that has no lower precision is the bundle's own.
        model = built.read(f"{graph}.onnx") if f"{graph}.onnx" in built.files else model
    return OnnxRuntimeEngine(model, graph, threads=options.cores, providers=options.providers)


def _tensorrt(bundle: Bundle, graph: str, options: Options, place: Place) -> Engine:
    from errseg_rt.engines.tensorrt import TensorRTEngine

    built = built_engines(bundle, options.engine, options.arithmetic, options.index)
    return TensorRTEngine(built, graph, gpu=cast(Gpu, place))


def _torch(bundle: Bundle, graph: str, options: Options, place: Place) -> Engine:
    from errseg_rt.engines.torch import TorchEngine, TorchGpuEngine
    from errseg_rt.networks.registry import GIVEN

    if bundle.manifest.cascade.get("semantic") in GIVEN:
        raise EngineError(
            f"{bundle.folder}: its network came from a file or module of the user's, which torch cannot make anew; run "
            "it on onnxruntime or tensorrt"
        )
    weights, cascade = bundle.read(WEIGHTS), bundle.manifest.cascade
    if place.is_immediate:
        return TorchEngine(weights, cascade, graph)
    device = cast("TorchGpu", place).device
    return TorchGpuEngine(
        weights, cascade, graph, device=device, precision=options.arithmetic, compiled=options.compiled
    )
