"""A GPU without torch whose memory is the host's: all that `DriverGpu` does, and no library."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager

import numpy as np

from errseg_rt.places.arrays import DeviceArray
from errseg_rt.places.cubins import Cubins
from errseg_rt.places.driver_gpu import DriverGpu
from tests.places.streams import Event, Stream

STREAM = 77


class HostGpu(DriverGpu):
    """Launches are noted down, and carried out by `run` where that is given.

    Attributes:
        allocated: Bytes of each block.
        calls: Name, grid, threads, shared memory and arguments of each launch.
    """

    def __init__(self, cubins=None, *, run=None, capability=(9, 0)):
        super().__init__(0, capability, Cubins({}) if cubins is None else cubins)
        self.log, self.allocated, self.calls, self.depth = [], [], [], 0
        self._run = run
        self._here = Stream(self, "first")

    @contextmanager
    def entered(self):
        self.depth += 1
        yield
        self.depth -= 1

    def stream(self):
        return Stream(self, "another")

    def handle(self):
        return STREAM

    def event(self):
        return Event(self)

    def capture(self, work):
        work()
        held = self._scratch.blocks

        def replay():
            assert held is not None
            work()

        return replay

    def launch(self, launch):
        if self._cubins:
            super().launch(launch)
        if self._run is not None:
            self._run(launch)

    def _allocate(self, size):
        assert self.depth > 0, "the context is not current"
        self.allocated.append(size)
        block = np.full(size, 0xFF, np.uint8)  # NaN, in every float
        return block.ctypes.data, block

    def _allocate_pinned(self, size):
        return np.full(size, 0xFF, np.uint8)

    def _copy_in(self, address, data):
        ctypes.memmove(address, data.ctypes.data, data.size)

    def _copy_out(self, data, address):
        ctypes.memmove(data.ctypes.data, address, data.size)

    def _copy_within(self, target, source, size):
        ctypes.memmove(target, source, size)

    def _set_zero(self, address, size):
        ctypes.memset(address, 0, size)

    def _wait(self):
        pass

    def _load(self, cubin):
        return cubin

    def _call(self, function, grid, threads, shared, arguments):
        self.calls.append((function.name, grid, threads, shared, arguments))


def on_host(array: DeviceArray) -> np.ndarray:
    """The memory of an array, as NumPy's."""
    raw = np.frombuffer((ctypes.c_uint8 * max(array.size, 1)).from_address(array.address), np.uint8)[: array.size]
    return raw.view({"bfloat16": "uint16"}.get(array.dtype, array.dtype)).reshape(array.shape)


def interpret(launch):
    """Carry out a launch in Triton's interpreter."""
    import torch

    from errseg_rt.kernels.triton_code import triton_constants, triton_kernel

    arguments = [
        torch.from_numpy(on_host(each)) if isinstance(each, DeviceArray) else getattr(each, "value", each)
        for each in launch.arguments
    ]
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    triton_kernel(launch.kernel)[launch.grid](*arguments, **triton_constants(launch), **options)
