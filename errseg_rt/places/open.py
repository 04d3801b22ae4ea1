"""Which library drives the GPU: torch where it is installed for CUDA, else cuda-core, else pycuda."""

from __future__ import annotations

import re

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.fitting import built_engines
from errseg_rt.errors import EngineError
from errseg_rt.places.cubins import KERNELS, Cubins
from errseg_rt.places.place import Gpu


def open_gpu(bundle: Bundle, engine: str, device: str, precision: str, build: str | None) -> Gpu:
    """A GPU, by the first library that is there.

    Args:
        bundle: The bundle, whose built engines hold the kernels that are launched without torch.
        engine: `"torch"` needs torch; with `"tensorrt"` any of the libraries will do.
        device: `"cuda"` or `"cuda:N"`.
        precision: As `open_device_engine` has it.
        build: Likewise.

    Raises:
        EngineError: There is no such GPU, or no library for it.
    """
    index = index_of(device)
    try:
        from errseg_rt.places.torch_gpu import TorchGpu, find_device

        return TorchGpu(find_device(device))
    except (ImportError, OSError) as error:
        if engine == "torch":
            raise EngineError(
                f"a GPU needs torch and triton ({error}): pip install 'errseg-rt[torch]' triton"
            ) from error
        reasons = [f"torch: {error}"]
    except EngineError as error:  # a torch for the CPU
        if engine == "torch":
            raise
        reasons = [f"torch: {error}"]
    cubins = _cubins(bundle, engine, precision, build, index)
    try:
        from errseg_rt.places.cuda_core_gpu import CudaCoreGpu

        return CudaCoreGpu(index, cubins)
    except (ImportError, OSError, RuntimeError) as error:
        reasons.append(f"cuda-core: {error}")
    try:
        from errseg_rt.places.pycuda_gpu import PyCudaGpu

        return PyCudaGpu(index, cubins)
    except (ImportError, OSError, RuntimeError) as error:
        reasons.append(f"pycuda: {error}")
    raise EngineError(
        f"no library drives the GPU ({'; '.join(reasons)}): pip install 'cuda-core[cu13]', or torch with CUDA"
    )


def index_of(device: str) -> int:
    """The number in `"cuda:N"`, 0 for `"cuda"`.

    Raises:
        EngineError: It is neither.
    """
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if not found:
        raise EngineError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return int(found[1] or 0)


def _cubins(bundle: Bundle, engine: str, precision: str, build: str | None, index: int) -> Cubins:
    """The kernels of all engines that fit."""
    built = built_engines(bundle, engine, precision, build, index)
    files = [each.read(KERNELS) for each in built if KERNELS in each.files]
    if not files:
        raise EngineError(
            f"{built[0].folder}: built without kernels, which are launched where there is no torch for CUDA; build it "
            "again where triton is installed, or install torch here"
        )
    return Cubins.merged([Cubins.from_bytes(data) for data in files])
