"""A GPU by torch, with kernels that Triton compiles when they are first launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from errseg_rt.errors import EngineError, FrameError
from errseg_rt.kernels.torch_launcher import TorchLauncher
from errseg_rt.places.gpu import Launches


class TorchGpu(Launches, TorchLauncher):
    """A `Gpu` whose arrays are tensors, in torch's streams.

    Args:
        device: The GPU.
    """

    @property
    def name(self) -> str:
        """As `Place` says."""
        return str(self.device)

    @property
    def index(self) -> int:
        """As `Gpu` says."""
        return self.device.index or 0

    def entered(self) -> AbstractContextManager[object]:
        """As `Gpu` says."""
        return torch.cuda.device(self.device)

    def begin(self) -> None:
        """Nothing is to be done: torch's allocator knows what is free."""

    def empty(self, shape: Sequence[int], dtype: str) -> Tensor:
        """As `Launcher` says; EngineError where there is not as much memory."""
        try:
            return super().empty(shape, dtype)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(self.device, error) from error

    def zeros(self, shape: Sequence[int], dtype: str) -> Tensor:
        """As `Launcher` says; EngineError where there is not as much memory."""
        return self.empty(shape, dtype).zero_()

    lasting = empty

    def bring(self, values: npt.NDArray[np.float32], dtype: str) -> Tensor:
        """As `Gpu` says."""
        return torch.from_numpy(values).to(self.device, getattr(torch, dtype))

    def address(self, array: Tensor) -> int:
        """As `Gpu` says."""
        return array.data_ptr()

    def pinned(self, shape: Sequence[int], dtype: str) -> Tensor:
        """As `Gpu` says; torch keeps what is freed for later."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), pin_memory=self.device.type == "cuda")

    def taken(self, frame: Any) -> Tensor:
        """As `Place` says."""
        return tensor_of(frame, self.device)

    def host(self, array: Tensor) -> npt.NDArray[Any]:
        """As `Place` says."""
        pages: npt.NDArray[Any] = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
        return pages

    def given_away(self, arrays: Mapping[str, Tensor], stream: torch.cuda.Stream) -> Mapping[str, Tensor]:
        """As `Gpu` says."""
        copies = {name: tensor.clone() for name, tensor in arrays.items()}
        for tensor in copies.values():
            if tensor.is_cuda:  # made on one stream, used on another
                tensor.record_stream(stream)
        return copies

    def copy(self, target: Tensor, source: Tensor) -> None:
        """As `Gpu` says."""
        target.copy_(source, non_blocking=True)

    def stream(self) -> torch.cuda.Stream:
        """As `Gpu` says."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def current(self) -> torch.cuda.Stream:
        """The caller's, or that of `on`."""
        return torch.cuda.current_stream(self.device)

    def handle(self) -> int:
        """As `Gpu` says."""
        return int(self.current().cuda_stream)

    def on(self, stream: torch.cuda.Stream) -> AbstractContextManager[object]:
        """As `Gpu` says."""
        return torch.cuda.stream(stream)

    def event(self) -> torch.cuda.Event:
        """As `Gpu` says."""
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    @cached_property
    def _capturing(self) -> tuple[Any, torch.cuda.Stream]:
        """Scratch memory of captured graphs, which are replayed one after the other, and a stream for capturing.

        Torch's own stream for that is of the GPU that was current at its first capture.
        """
        return torch.cuda.graph_pool_handle(), self.stream()

    def renew_scratch(self) -> None:
        """As `Gpu` says: a pool of torch's keeps all that it ever had until the last graph in it goes."""
        self.__dict__.pop("_capturing", None)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Gpu` says."""
        failed: list[Exception] = []
        try:
            work()
            graph = torch.cuda.CUDAGraph()
            pool, stream = self._capturing
            # Other threads may go on using the GPU meanwhile.
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                try:
                    work()
                except Exception as error:
                    failed.append(error)
                    raise
        except Exception as error:
            told = failed[0] if failed else error  # a capture that failed cannot be ended either
            if isinstance(told, torch.OutOfMemoryError):
                raise _out_of_memory(self.device, told) from told
            raise told from told.__cause__
        return graph.replay


def find_device(index: int) -> torch.device:
    """A GPU by its number.

    Raises:
        EngineError: There is none of this number, or torch sees none at all.
    """
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch {torch.__version__} finds no NVIDIA GPU here; take the device cpu, or install a driver and a build "
            "of torch for CUDA"
        )
    count = torch.cuda.device_count()
    if index >= count:
        raise EngineError(f"there is no cuda:{index} here, only {count} GPU{'s' if count > 1 else ''}, counted from 0")
    return torch.device("cuda", index)


def tensor_of(frame: Any, device: torch.device) -> Tensor:
    """A frame as a tensor of its own memory.

    Args:
        frame: Whatever exports DLPack.
        device: Where it must lie.

    Raises:
        FrameError: It exports none, or lies elsewhere.
    """
    if not hasattr(frame, "__dlpack__"):
        raise FrameError(f"a frame is a NumPy array or a CUDA tensor uint8 [H, W, 3], got {type(frame).__name__}")
    try:
        tensor = frame if isinstance(frame, Tensor) else from_dlpack(frame)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise FrameError(f"torch cannot read this {type(frame).__name__} ({error}); give a NumPy array") from error
    if tensor.device != device:
        raise FrameError(
            f"the frame lies on {tensor.device}, the runtime on {device}; bring it there, or give a NumPy array, which "
            "is copied"
        )
    return tensor


def _out_of_memory(device: torch.device, error: Exception) -> EngineError:
    return EngineError(
        f"{device} has too little memory ({error}); take the precision fp16, smaller frames, or another GPU"
    )
