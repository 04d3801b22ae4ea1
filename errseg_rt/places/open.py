"""Which library drives the GPU: torch where it is installed for CUDA, else cuda-core, else pycuda."""

from __future__ import annotations

from collections.abc import Callable

from errseg_rt.errors import EngineError
from errseg_rt.places.cubins import Cubins
from errseg_rt.places.place import Gpu


def open_gpu(index: int, *, needs_torch: bool, kernels: Callable[[], Cubins]) -> Gpu:
    """A GPU, by the first library that is there.

    Args:
        index: Its number, counted from 0.
        needs_torch: Whether no other library will do.
        kernels: Gives kernels that were compiled ahead; called where there is no torch.

    Raises:
        EngineError: There is no such GPU, no library for it, or what `kernels` raises.
    """
    try:
        from errseg_rt.places.torch_gpu import TorchGpu, find_device

        return TorchGpu(find_device(index))
    except (ImportError, OSError) as error:
        if needs_torch:
            raise EngineError(
                f"a GPU needs torch and triton ({error}): pip install 'errseg-rt[torch]' triton"
            ) from error
        reasons = [f"torch: {error}"]
    except EngineError as error:  # a torch for the CPU
        if needs_torch:
            raise
        reasons = [f"torch: {error}"]
    cubins = kernels()
    try:
        from errseg_rt.places.cuda_core_gpu import CudaCoreGpu

        return CudaCoreGpu(index, cubins)
    except (EngineError, ImportError, OSError, RuntimeError) as error:
        reasons.append(f"cuda-core: {error}")
    try:
        from errseg_rt.places.pycuda_gpu import PyCudaGpu

        return PyCudaGpu(index, cubins)
    except (ImportError, OSError, RuntimeError) as error:
        reasons.append(f"pycuda: {error}")
    raise EngineError(
        f"no library drives the GPU ({'; '.join(reasons)}): pip install 'cuda-core[cu13]', or torch with CUDA"
    )
