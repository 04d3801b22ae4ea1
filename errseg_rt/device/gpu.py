"""Streams, events, pinned memory and captured work of one GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from errseg_rt.errors import EngineError


class Gpu:
    """What frames in flight ask of a GPU, in one place, so that tests can put another in its stead.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # All captured graphs share their scratch memory, since they are replayed one after the other.
        self._pool = torch.cuda.graph_pool_handle()
        self._capturing = self.stream()  # of this GPU; torch's own is of the one that was current at its first capture

    def stream(self) -> torch.cuda.Stream:
        """A new stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def current(self) -> torch.cuda.Stream:
        """The caller's stream."""
        return torch.cuda.current_stream(self.device)

    def on(self, stream: torch.cuda.Stream) -> AbstractContextManager[object]:
        """Make a stream the current one."""
        return torch.cuda.stream(stream)

    def event(self) -> torch.cuda.Event:
        """A new event, which also keeps the time."""
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Memory of the host that is copied to and from without a detour; torch keeps what is freed for later."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture some work, after running it once for what happens only then.

        Args:
            work: Enqueues on the current stream, always the same launches on the same memory.

        Returns:
            What enqueues it all at once on the current stream.
        """
        work()
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the GPU meanwhile.
        with torch.cuda.graph(graph, self._pool, self._capturing, capture_error_mode="thread_local"):
            work()
        return graph.replay


def find_gpu(name: str) -> torch.device:
    """The GPU that a name such as `"cuda"` or `"cuda:1"` means.

    Raises:
        EngineError: It is not that of a GPU, or there is none of this number.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type != "cuda":
        raise EngineError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch {torch.__version__} finds no NVIDIA GPU here; use device='cpu', or install a driver and a build of "
            "torch for CUDA"
        )
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise EngineError(f"there is no {name} here, only {count} GPU{'s' if count > 1 else ''}, counted from 0")
    return torch.device("cuda", index)
