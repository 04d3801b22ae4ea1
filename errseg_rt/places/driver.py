"""What the NVIDIA driver says of this machine.

It is asked before a library is loaded that ends the process where there is no GPU, as TensorRT does.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from errseg_rt.errors import EngineError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability, `(9, 0)`.
        memory: Bytes.
        cuda: The newest CUDA version that the driver supports, `(13, 0)`.
        count: How many devices there are.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    cuda: tuple[int, int]
    count: int


def find_gpu(index: int = 0) -> Gpu:
    """A GPU of this machine.

    Raises:
        EngineError: There is no driver, or it finds no device.
    """
    driver = _driver()
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise EngineError("there is an NVIDIA driver, but no device; nvidia-smi says what is wrong with it")
    name, memory, capability = ctypes.create_string_buffer(256), ctypes.c_size_t(), (ctypes.c_int(), ctypes.c_int())
    failed = driver.cuDriverGetVersion(ctypes.byref(version)) or driver.cuDeviceGet(ctypes.byref(device), index)
    failed = failed or driver.cuDeviceGetName(name, len(name), device)
    failed = failed or driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    for value, attribute in zip(capability, (_MAJOR, _MINOR), strict=True):
        failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if failed:
        raise EngineError(f"the NVIDIA driver tells nothing of device {index} (error {failed}); see nvidia-smi")
    return Gpu(
        name.value.decode(errors="replace"),
        (capability[0].value, capability[1].value),
        memory.value,
        (version.value // 1000, version.value % 1000 // 10),
        count.value,
    )


def gpu_name() -> str | None:
    """Name of the first GPU; None where the driver finds none, or there is no driver."""
    try:
        return find_gpu().name
    except EngineError:
        return None


def free_memory(index: int = 0) -> int:
    """Bytes of a GPU that nobody has taken.

    Raises:
        EngineError: The driver does not say.
    """
    driver, device, context = _driver(), ctypes.c_int(), ctypes.c_void_p()
    failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index)
    failed = failed or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if failed:
        raise EngineError(f"the NVIDIA driver makes no context on device {index} (error {failed}); see nvidia-smi")
    free, total, previous = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
    try:
        failed = driver.cuCtxPushCurrent_v2(context)
        if not failed:
            failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            driver.cuCtxPopCurrent_v2(ctypes.byref(previous))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    if failed:
        raise EngineError(f"the NVIDIA driver does not say how much memory is free (error {failed}); see nvidia-smi")
    return free.value


def _driver() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError(
        "there is no NVIDIA driver on this machine; install one, or choose an engine and a device that need none"
    )
