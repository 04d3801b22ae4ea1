"""Compiling the launches of a GPU kernel without a GPU, and what the compiled code takes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments that it was called with."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


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


def launches(
    module: ModuleType, call: Callable[[], object], monkeypatch: Any, architecture: int | None = None
) -> list[Launch]:
    """The launches that a call of an operator makes, none of them carried out.

    Args:
        module: Defines the operator, and holds its kernels.
        call: Calls it with tensors on the CPU.
        monkeypatch: The fixture.
        architecture: What the operator takes the GPU for, say 90 for sm_90, where it asks.
    """
    found: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *arguments, **options: found.append(Launch(self.kernel, arguments, options))

    with monkeypatch.context() as patch:
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction):
                patch.setattr(module, name, Recorder(value))
        patch.setattr(module, "on_device_of", lambda tensor: nullcontext())
        if architecture is not None:
            patch.setattr(module, "capability", lambda tensor: divmod(architecture, 10))
        call()
    assert found
    return found


def usage(launch: Launch, architecture: int) -> Usage:
    """Compile a launch for an architecture, say 90 for sm_90, and ask the code what it takes."""
    with _driver(_Machine(architecture)):
        compiled = launch.kernel.run(*launch.arguments, grid=(1,), warmup=True, **launch.options)
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
