"""In the stead of a GPU: the CPU's operations on arrays of the host, handled as those of a GPU are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from errseg_rt.kernels.select.operands import Bounds, Selection
from errseg_rt.places.cpu import Cpu
from errseg_rt.places.gpu import EventMarks, Launches
from tests.places.streams import Event, Stream


class Array(np.ndarray):
    """NumPy's, with what arrays of a GPU have beside."""

    __module__ = "numpy"  # by which the kernels know whose array it is

    def is_contiguous(self) -> bool:
        return self.flags.c_contiguous

    def permute(self, *axes: int) -> Array:
        return self.transpose(axes)

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.itemsize for step in self.strides)


class NumpyGpu(Cpu):
    """A `Gpu` whose work is done when it is enqueued, by the CPU's kernels, and replayed by being done again."""

    is_immediate = False

    def __init__(self, index: int = 0) -> None:
        super().__init__(threads=2)
        self.index, self.name = index, f"cuda:{index}"
        preprocess, refine = self.preprocess, self.refine
        self.preprocess = lambda *arguments, **options: preprocess(*arguments, **options).view(Array)
        # The CPU's kernel knows no float16, nor channels that lie one behind the other.
        self.refine = lambda weights, selection, *maps: refine(
            weights, selection, *(np.ascontiguousarray(each, np.float32) for each in maps)
        ).astype(maps[0].dtype)
        self.log: list[Any] = []
        self._here = Stream(self, "first")

    def marks(self) -> EventMarks:
        return EventMarks(self)

    def select(self, error_logit: npt.NDArray[Any], words: Array, **options: Any) -> Selection:
        budget, bits = words.tolist()
        level = float(np.int32(bits).view(np.float32))  # to within its rounding, the threshold that it was made of
        return super().select(error_logit, Bounds(float(expit(level)), None if budget < 0 else budget), **options)

    def lasting(self, shape: Sequence[int], dtype: str) -> Array:
        # Nobody may count on what memory holds.
        return np.full(shape, np.nan if "float" in dtype else 1, dtype).view(Array)

    pinned = empty = lasting
    _held, _workspace, workspace = None, None, Launches.workspace
    holding, hold, renew_scratch = Launches.holding, Launches.hold, Launches.renew_scratch

    def address(self, array: Array) -> int:
        return array.ctypes.data

    def copy(self, target: Array, source: npt.NDArray[Any]) -> None:
        target[...] = source

    def upload(self, frame: npt.NDArray[np.uint8]) -> Array:
        return frame.view(Array)

    def download(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array(array) for name, array in arrays.items()}

    def stream(self) -> Stream:
        return Stream(self, "another")

    def current(self) -> Stream:
        return self._here

    def handle(self) -> int:
        return 77

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self._here = self._here, stream
        yield
        self._here = before

    def event(self) -> Event:
        return Event(self)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work
