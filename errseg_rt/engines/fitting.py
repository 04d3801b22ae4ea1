"""Which built engines of a bundle fit this machine; `errseg_rt.export.engines.builds` builds them."""

from __future__ import annotations

from collections.abc import Sequence

from errseg_rt.bundle.built import ANY_SHAPE, BuiltEngine, EngineKey, graphs_digest
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import EngineError
from errseg_rt.places.cubins import KERNELS, Cubins
from errseg_rt.system.machine import instruction_sets, processor_name

BUILT_PRECISIONS = {"onnxruntime": ("int8",), "tensorrt": ("fp32", "fp16", "bf16", "int8")}
"""What can be built for an engine. The fp32 graphs of a bundle run in onnxruntime as they are."""


def key_here(bundle: Bundle, engine: str, precision: str, shape: str = ANY_SHAPE, index: int = 0) -> EngineKey:
    """The key of an engine that is built here and now; for TensorRT, on the GPU of that index.

    Raises:
        EngineError: The engine has no such precision, or cannot be used here.
    """
    allowed = BUILT_PRECISIONS.get(engine, ())
    if precision not in allowed:
        hint = "; fp32 needs no building" if engine == "onnxruntime" and precision == "fp32" else ""
        raise EngineError(f"{engine} is not built in {precision}: choose from {', '.join(allowed) or 'nothing'}{hint}")
    digest = graphs_digest(bundle.manifest.files)
    if engine == "onnxruntime":
        import onnxruntime  # whichever of its packages brings it

        version, device, capability = str(onnxruntime.__version__), processor_name(), instruction_sets()
    else:
        from errseg_rt.engines.tensorrt_library import load_tensorrt
        from errseg_rt.places.driver import find_gpu

        gpu = find_gpu(index)
        version, device = str(load_tensorrt().__version__), gpu.name
        capability = ".".join(map(str, gpu.capability))
    return EngineKey(engine, version, device, capability, precision, shape, digest)


def built_engines(bundle: Bundle, engine: str, precision: str, index: int = 0) -> list[BuiltEngine]:
    """Built engines that can be used here, those for one fixed shape first.

    Args:
        bundle: The bundle.
        engine: `"onnxruntime"` or `"tensorrt"`.
        precision: What they compute in.
        index: Which GPU, for TensorRT.

    Raises:
        EngineError: There is none, or it is stale; the message says why, and how to build it.
    """
    return bundle.engines.fitting(key_here(bundle, engine, precision, index=index))


def kernels_of(built: Sequence[BuiltEngine]) -> Cubins:
    """The kernels of all engines that fit, for a GPU without torch.

    Raises:
        EngineError: They were built without any.
    """
    files = [each.read(KERNELS) for each in built if KERNELS in each.files]
    if not files:
        raise EngineError(
            f"{built[0].folder}: built without kernels, which are launched where there is no torch for CUDA; build it "
            "again where triton is installed, or install torch here"
        )
    return Cubins.merged([Cubins.from_bytes(data) for data in files])
