"""What a frame asks of the place where its way is walked: operations and memory; of a GPU, streams too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.instances.spec import InstanceSpec
from errseg_rt.kernels.launch import Launcher
from errseg_rt.kernels.refine.weights import RefineWeights

Operation = Callable[..., Any]
"""One of `errseg_rt.kernels`: its folder defines what it takes, gives and raises, the same on every place."""


class Marks(Protocol):
    """Marks of time along the way of a frame."""

    def lap(self, name: str) -> None:
        """End a step, which began where the one before it ended."""
        ...

    def elapsed(self) -> float:
        """Milliseconds of the steps that have ended; 0 where the host does not know."""
        ...

    def done(self) -> bool:
        """Whether the frame has come to its end."""
        ...

    def milliseconds(self) -> Mapping[str, float]:
        """Milliseconds by step, once the frame has come to its end, which is waited for."""
        ...


class Place(Protocol):
    """Where the way of a frame is walked: a CPU, or a GPU by some library.

    Arrays are the place's own: NumPy's on a CPU, torch's tensors or `DeviceArray`s on a GPU.
    """

    @property
    def is_immediate(self) -> bool:
        """Whether results are there when a call returns, so that the host can decide by them."""
        ...

    @property
    def name(self) -> str:
        """`"cpu"`, or that of the GPU, `"cuda:0"`."""
        ...

    def entered(self) -> AbstractContextManager[object]:
        """Make it the calling thread's."""
        ...

    def begin(self) -> None:
        """Begin a frame: its scratch memory may lie where that of the frame before lay."""
        ...

    def marks(self) -> Marks:
        """Marks of time for a frame that begins now."""
        ...

    @property
    def preprocess(self) -> Operation:
        """From a frame to the network's input."""
        ...

    @property
    def select(self) -> Operation:
        """The pixels to label again; bounds are `Bounds`, or on a GPU their words, an array of its."""
        ...

    @property
    def refine(self) -> Operation:
        """Detail logits of the selected pixels, by row, with what `weights` gave."""
        ...

    @property
    def fuse_labels(self) -> Operation:
        """One label per pixel of the frame."""
        ...

    @property
    def instances(self) -> Operation:
        """Which pixels belong to which object, with what `things` gave in the stead of a spec."""
        ...

    @property
    def calibrate(self) -> Operation:
        """Error probabilities, with what `knots` gave; of the final labels, where it is given detail logits."""
        ...

    @property
    def finite(self) -> Operation:
        """1 for each branch in which a value is not finite, else 0."""
        ...

    def weights(self, weights: RefineWeights, dtype: str) -> Any:
        """Stage 3, brought here once, for activations of a dtype."""
        ...

    def knots(self, logits: Sequence[float], probabilities: Sequence[float]) -> Any:
        """A calibration map, brought here once."""
        ...

    def things(self, spec: InstanceSpec | None, classes: int) -> Any:
        """How instances are found among so many classes, brought here once; None where there are none."""
        ...

    def taken(self, frame: Any) -> Any:
        """An array of the memory of another library's frame, which lies here.

        Raises:
            FrameError: It cannot be read, or lies elsewhere.
        """
        ...

    def upload(self, frame: npt.NDArray[np.uint8]) -> Any:
        """The frame as an array of this place."""
        ...

    def download(self, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin to copy arrays to memory of the host."""
        ...

    def host(self, array: Any) -> npt.NDArray[Any]:
        """What `download` gave, as NumPy has it, once it is there; bfloat16 as float32."""
        ...

    def wait(self) -> None:
        """Until all that was asked for is done."""
        ...


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


class Gpu(Place, Launcher, Protocol):
    """One GPU, whose work is enqueued in streams, and can be captured.

    What `empty` and `zeros` give is scratch memory of a frame: it is free for use again from the next `begin` on, or
    where it was captured, between two replays.
    """

    @property
    def index(self) -> int:
        """Its number, counted from 0."""
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
        """Memory of the host that is copied to and from without a detour; `host` looks into it."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Enqueue a copy between two arrays, of which one may be pinned."""
        ...

    def given_away(self, arrays: Mapping[str, Any], stream: Any) -> Mapping[str, Any]:
        """Copies, made in the current stream, that belong to a caller who works in another one.

        Raises:
            EngineError: Nobody could read them.
        """
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

    def workspace(self, size: int) -> Any:
        """Memory for what engines need while they run, at least so many bytes of `uint8`, one for all of them.

        It lies where it lay until somebody needs more; whoever captures work in it holds it.

        Raises:
            EngineError: There is not as much memory.
        """
        ...

    def holding(self) -> AbstractContextManager[list[object]]:
        """Gather what `hold` is given within a `with` block: whoever replays what was captured there keeps it."""
        ...

    def hold(self, thing: object) -> None:
        """Have something stay as long as work that is captured now is replayed."""
        ...

    def renew_scratch(self) -> None:
        """Have graphs captured from now on share no scratch memory with earlier ones, which take theirs along."""
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
