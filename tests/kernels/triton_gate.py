"""Compiling the launches of a GPU kernel without a GPU, and what the compiled code takes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from unittest import mock

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget

from errseg_rt.kernels.launch import Launch, Launcher, Wide
from errseg_rt.kernels.triton_code import triton_constants, triton_kernel

# Enqueues an operation.
Call = Callable[[Launcher], object]


class Recorder:
    """A `Launcher` without a GPU, which carries out none of the launches that it is given.

    Args:
        architecture: What an operation takes the GPU for, say 90 for sm_90.

    Attributes:
        capability: Of that architecture.
        launches: As they came.
    """

    def __init__(self, architecture: int) -> None:
        self.capability = (architecture // 10, architecture % 10)
        self.launches: list[Launch] = []

    def empty(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype))

    def zeros(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype))

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch)


@dataclass(frozen=True)
class Usage:
    """What compiled code takes.

    Attributes:
        registers: Of a thread.
        stack: Bytes of a thread, for what the registers do not hold.
        local: Bytes of a thread, likewise.
        shared: Bytes of a program.
    """

    registers: int
    stack: int
    local: int
    shared: int


def check_fits(call: Call, architecture: int, registers: int, shared: int) -> None:
    """Hold every launch of an operation to what a program may take.

    Args:
        call: Enqueues the operation.
        architecture: Say 90 for sm_90.
        registers: Most of a thread; nothing may be spilled.
        shared: Most bytes of a program.
    """
    if architecture == 110 and triton.__version__.startswith("3.6."):
        pytest.skip(f"triton {triton.__version__} has no assembler for sm_110, Jetson Thor's")
    recorder = Recorder(architecture)
    call(recorder)
    assert recorder.launches
    for launch in recorder.launches:
        taken = usage(launch, architecture)
        assert (taken.stack, taken.local) == (0, 0), f"{launch.kernel} spills: {taken}"
        assert taken.registers <= registers, f"{launch.kernel}: {taken}"
        assert taken.shared <= shared, f"{launch.kernel}: {taken}"


def changed(call: Call, module: ModuleType, **constants: object) -> Call:
    """The same operation with other launch constants than those that are shipped."""

    def run(launcher: Launcher) -> object:
        with mock.patch.multiple(module, **constants):
            return call(launcher)

    return run


class _Machine:
    """A driver without a device."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # compiled kernels are kept by device

    def get_current_stream(self, device: int) -> int:
        return 0


def usage(launch: Launch, architecture: int) -> Usage:
    """Compile a launch for an architecture, say 90 for sm_90, and ask the code what it takes."""
    arguments = [each.value if isinstance(each, Wide) else each for each in launch.arguments]
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    with _driver(_Machine(architecture)):
        compiled = triton_kernel(launch.kernel).run(
            *arguments, grid=(1,), warmup=True, **triton_constants(launch), **options
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        command = [str(Path(triton.backends.__path__[0]) / "nvidia/bin/cuobjdump"), "-res-usage", str(path)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", printed)
    assert found, printed
    registers, stack, local = (int(number) for number in found.groups())
    return Usage(registers, stack, local, compiled.metadata.shared)


@contextmanager
def _driver(machine: _Machine) -> Iterator[None]:
    config = triton.runtime.driver
    before = config._active
    config.set_active(machine)
    try:
        yield
    finally:
        config._active = before
