"""What a frame asks of a GPU: memory, streams, events, launches and captured work, by whichever library is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.launch import Launcher


class Event(Protocol):
    """A mark in a stream, which also keeps the time."""

    def record(self, stream: Any) -> None:
        """Mark the end of what a stream holds."""
        ...

    def query(self) -> bool:
        """Whether the stream has come there."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...

    def elapsed_time(self, other: Any) -> float:
        """Milliseconds from here to a later event."""
        ...


class Stream(Protocol):
    """Work that is done one after the other."""

    def wait_event(self, event: Any) -> None:
        """Have what comes later wait for an event."""
        ...


class Gpu(Launcher, Protocol):
    """One GPU. Arrays are torch's tensors, or `DeviceArray`s where there is no torch.

    What `empty` and `zeros` give is scratch memory of a frame: it is free for use again from the next `begin` on, or
    where it was captured, between two replays.
    """

    @property
    def index(self) -> int:
        """Its number, counted from 0."""
        ...

    @property
    def has_tensors(self) -> bool:
        """Whether arrays are torch's tensors."""
        ...

    def entered(self) -> AbstractContextManager[object]:
        """Make the GPU the calling thread's."""
        ...

    def begin(self) -> None:
        """Begin a frame: its scratch memory may lie where that of the frame before lay."""
        ...

    def lasting(self, shape: Sequence[int], dtype: str) -> Any:
        """An array that stays as long as it is held.

        Raises:
            EngineError: There is not as much memory.
        """
        ...

    def bring(self, values: npt.NDArray[np.float32], dtype: str) -> Any:
        """A lasting array with these values, in a float dtype."""
        ...

    def address(self, array: Any) -> int:
        """Where an array begins."""
        ...

    def pinned(self, shape: Sequence[int], dtype: str) -> Any:
        """Memory of the host that is copied to and from without a detour."""
        ...

    def taken(self, frame: Any) -> Any:
        """An array of the memory of another library's frame, which lies on this GPU.

        Raises:
            FrameError: It cannot be read, or lies elsewhere.
        """
        ...

    def numpy(self, pinned: Any) -> npt.NDArray[Any]:
        """The same memory as a NumPy array."""
        ...

    def floats(self, pinned: Any) -> npt.NDArray[np.float32]:
        """Pinned memory of any float dtype as float32."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Enqueue a copy between two arrays, of which one may be pinned."""
        ...

    def stream(self) -> Any:
        """A new stream."""
        ...

    def current(self) -> Any:
        """The stream in which work is enqueued."""
        ...

    def handle(self) -> int:
        """That of the driver for this stream."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[object]:
        """Make a stream the current one."""
        ...

    def event(self) -> Any:
        """A new event."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture some work, after running it once for what happens only then.

        Args:
            work: Enqueues in the current stream, always the same launches on the same memory.

        Returns:
            What enqueues it all at once in the current stream.

        Raises:
            EngineError: There is not as much memory.
        """
        ...
