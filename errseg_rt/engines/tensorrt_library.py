"""Loading TensorRT, and what it says of its failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Any

from errseg_rt.errors import EngineError
from errseg_rt.places.driver import Gpu, find_gpu
from errseg_rt.system.jetson import find_jetson

_OLDEST = 10  # 8.6 has no strongly typed networks
_MEGABYTE = 1_000_000
_RECENT = 20  # errors that are kept


def load_tensorrt() -> Any:
    """The module `tensorrt`, once a GPU has been found that it can use.

    Raises:
        EngineError: There is no GPU, the driver is too old for the TensorRT that is installed, or none is installed, or
            one that is too old.
    """
    gpu = find_gpu()
    _check_driver(gpu)
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: one of its libraries cannot be loaded
        jetson = find_jetson()
        remedy = jetson.advice() if jetson else "pip install 'errseg-rt[tensorrt]'"
        raise EngineError(f"engine tensorrt is not installed ({error}): {remedy}") from error
    version = str(tensorrt.__version__)
    if int(version.partition(".")[0]) < _OLDEST:
        raise EngineError(f"TensorRT {version} is too old: install 10 or 11, whose networks are strongly typed")
    return tensorrt


@cache
def make_logger(tensorrt: Any) -> Any:
    """The process's logger: it prints nothing and keeps what went wrong lately in `errors`.

    TensorRT takes one logger a process, the first that it is given, and asks that it outlive all else.
    """

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: deque[tuple[int, str]] = deque(maxlen=_RECENT)  # with their numbers
            self.count = 0

        def log(self, severity: Any, msg: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self.count += 1
                self.errors.append((self.count, msg))

    return Logger()


def checked(what: str, logger: Any, make: Callable[..., Any], *arguments: Any) -> Any:
    """What a call of TensorRT returns, which must neither be None nor False nor an exception.

    Raises:
        EngineError: It failed; the message ends with what TensorRT logged meanwhile.
    """
    before = logger.count
    try:
        result = make(*arguments)
    except Exception as error:  # pybind11 raises TypeError where a factory returns nothing
        raise EngineError(f"TensorRT cannot {what}: {_reason(logger, before) or error}") from error
    if result is None or result is False:
        raise EngineError(f"TensorRT cannot {what}: {_reason(logger, before) or 'it does not say why'}")
    return result


def megabytes(size: int) -> str:
    """A number of bytes for a person to read."""
    return f"{size / _MEGABYTE:,.0f} MB"


def _reason(logger: Any, before: int) -> str:
    """What TensorRT logged last, behind so many errors, with a hint where it is about memory."""
    if logger.count == before:
        return ""
    last = str(logger.errors[-1][1])
    if "out of memory" in last.lower() or "outofmemory" in last.lower():
        return f"{last}; free memory on the GPU, or take a smaller shape or workspace"
    return last


def _check_driver(gpu: Gpu) -> None:
    """Raise EngineError where TensorRT was made for a newer CUDA than the driver knows."""
    for package in metadata.distributions():
        name = (package.metadata["Name"] or "").replace("_", "-").lower()
        if name.startswith("tensorrt-cu") and name.removesuffix("-bindings").removeprefix("tensorrt-cu").isdecimal():
            wanted = int(name.removesuffix("-bindings").removeprefix("tensorrt-cu"))
            if gpu.cuda[0] < wanted:
                raise EngineError(
                    f"the NVIDIA driver knows CUDA {gpu.cuda[0]}.{gpu.cuda[1]}, and {name} needs {wanted}; update the "
                    f"driver, or install tensorrt-cu{gpu.cuda[0]}"
                )
