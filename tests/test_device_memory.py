"""Device memory by three libraries: fakes of cuda-core and pycuda see the calls; results need a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from errseg_rt.engines.device_memory import CudaCoreMemory, PyCudaMemory, TorchMemory, open_memory
from errseg_rt.errors import EngineError


def module(name: str, **content: object) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


class Calls(list):
    """Notes calls; what they return is set by name."""

    def __init__(self, **results: object) -> None:
        super().__init__()
        self._results = results

    def __getattr__(self, name: str):
        def call(*arguments: object, **keywords: object) -> object:
            self.append((name, *arguments, *keywords.values()))
            result = self._results.get(name)
            if isinstance(result, Exception):
                raise result
            return result

        return call


@pytest.fixture
def cuda_core(monkeypatch):
    stream = SimpleNamespace(handle=55, sync=lambda: calls.append(("sync",)))
    device = Calls(create_stream=stream, allocate=SimpleNamespace(handle=256))
    driver = Calls(cuMemcpyHtoDAsync=(0,), cuMemcpyDtoHAsync=(0,))
    calls: list[object] = []
    bindings = module("cuda.bindings", driver=driver)
    monkeypatch.setitem(sys.modules, "cuda", module("cuda", bindings=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.core", module("cuda.core", Device=lambda index: device))
    return SimpleNamespace(device=device, driver=driver, stream=stream)


def test_cuda_core(cuda_core) -> None:
    memory = CudaCoreMemory()
    assert memory.enter() == 55
    block = memory.allocate(0)
    assert block.address == 256
    assert ("allocate", 1, cuda_core.stream) in cuda_core.device
    data = np.arange(4, dtype=np.uint8)
    memory.copy_in(block, data)
    memory.copy_out(data, block)
    assert cuda_core.driver == [
        ("cuMemcpyHtoDAsync", 256, data.ctypes.data, 4, 55),
        ("cuMemcpyDtoHAsync", data.ctypes.data, 256, 4, 55),
    ]
    memory.wait()
    memory.leave()
    # Every thread that enters makes the device current.
    assert cuda_core.device.count(("set_current",)) == 2


def test_cuda_core_failures_are_errors(cuda_core) -> None:
    memory = CudaCoreMemory()
    cuda_core.driver._results["cuMemcpyHtoDAsync"] = (700,)
    with pytest.raises(EngineError, match="the GPU failed to copy"):
        memory.copy_in(SimpleNamespace(address=256), np.zeros(1, np.uint8))
    cuda_core.device._results["allocate"] = RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(EngineError, match=r"the GPU has no 7 MB left .*OUT_OF_MEMORY"):
        memory.allocate(7_000_000)


def test_pycuda(monkeypatch) -> None:
    turns: list[str] = []
    context = SimpleNamespace(push=lambda: turns.append("push"), pop=lambda: turns.append("pop"))
    stream = SimpleNamespace(handle=66, synchronize=lambda: None)
    driver = module(
        "pycuda.driver",
        init=lambda: None,
        Device=lambda index: SimpleNamespace(retain_primary_context=lambda: context),
        Stream=lambda: stream,
        mem_alloc=lambda size: 512 * size,
        MemoryError=MemoryError,
        memcpy_htod_async=lambda *arguments: copies.append(arguments),
        memcpy_dtoh_async=lambda *arguments: copies.append(arguments),
    )
    copies: list[object] = []
    monkeypatch.setitem(sys.modules, "pycuda", module("pycuda", driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    memory = PyCudaMemory()
    assert turns == ["push", "pop"]
    assert memory.enter() == 66
    block, data = memory.allocate(2), np.zeros(2, np.uint8)
    assert block.address == 1024
    memory.copy_in(block, data)
    memory.copy_out(data, block)
    memory.wait()
    memory.leave()
    assert copies == [(1024, data, stream), (data, 1024, stream)]
    assert turns == ["push", "pop"] * 2


def test_without_any_library_the_message_says_what_to_install(monkeypatch) -> None:
    for name in ("torch", "cuda", "cuda.bindings", "cuda.core", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"no library manages the GPU's memory .*pip install cuda-core"):
        open_memory()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [TorchMemory, CudaCoreMemory, PyCudaMemory])
def test_bytes_come_back(kind) -> None:
    try:
        memory = kind()
    except ImportError as error:
        pytest.skip(f"needs its library: {error}")
    data = np.random.default_rng(0).integers(0, 256, 999, np.uint8)
    back = np.zeros_like(data)
    memory.enter()
    block = memory.allocate(data.size)
    memory.copy_in(block, data)
    memory.copy_out(back, block)
    memory.wait()
    memory.leave()
    assert block.address % 256 == 0
    np.testing.assert_array_equal(back, data)
