"""What a kernel for GPUs is launched with, whoever launches it: Triton, or a driver that is given compiled code.

An operation says which kernels it launches, on which memory, and in which order (`launches.py` in its folder). It knows
neither torch nor Triton: with them, `TorchLauncher` compiles a kernel when it is first launched; without them, the
runtime launches what was compiled ahead (`errseg_rt.places.cubins`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

WARP = 32
"""Threads of a warp."""


class Wide(NamedTuple):
    """An integer argument that may need 64 bits; all others fit in 32."""

    value: int


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: Folder and function of the kernel: `"select.flag"` is `flag` in `select/triton_kernels.py`.
        grid: Programs, by axis.
        arguments: What the kernel takes, in its order: arrays of the launcher, floats, integers and `Wide` ones. Arrays
            begin where memory was allocated, at multiples of 16 bytes.
        constants: What it is compiled with, by name; types of Triton by their names, say `"int32"`.
        warps: Of 32 threads, a program.
        stages: Steps of a loop that are loaded at a time.
    """

    kernel: str
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: Mapping[str, int | bool | str] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3

    @property
    def code(self) -> str:
        """What tells the code that this launch needs from all other code, in words."""
        arguments = ", ".join(argument_type(argument) for argument in self.arguments)
        constants = ", ".join(f"{name}={value}" for name, value in sorted(self.constants.items()))
        return f"{self.kernel}({arguments}; {constants}; warps={self.warps}, stages={self.stages})"


class Launcher(Protocol):
    """Gives memory of a GPU, and launches kernels on it in its current stream.

    An array has `shape`, `dtype`, `stride()`, `is_contiguous()` and `permute()`, as torch's tensors have them.
    """

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability of the GPU, say (9, 0); none, (0, 0), in Triton's interpreter."""
        ...

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """A new array, of any content; `dtype` as `dtype_of` has it."""
        ...

    def zeros(self, shape: Sequence[int], dtype: str) -> Any:
        """A new array of zeros."""
        ...

    def launch(self, launch: Launch) -> None:
        """Enqueue a launch."""
        ...


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of NumPy, torch or a `DeviceArray`, say `"float16"`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(array: Any) -> str:
    """The name of an array's dtype."""
    return dtype_name(array.dtype)


def cdiv(count: int, size: int) -> int:
    """How many tiles of a size hold a count."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """The least power of two that is not below a count of at least 1."""
    return 1 << (count - 1).bit_length()


_TYPES = {
    "float32": "fp32", "float16": "fp16", "bfloat16": "bf16",
    "int64": "i64", "int32": "i32", "uint8": "u8", "bool": "i1",
}  # fmt: skip


def argument_type(argument: Any) -> str:
    """The type of an argument as Triton names it, say `"*fp16"`."""
    if isinstance(argument, Wide):
        return "i64"
    if isinstance(argument, float):
        return "fp32"
    if isinstance(argument, int):
        return "i32"
    return f"*{_TYPES[dtype_of(argument)]}"
