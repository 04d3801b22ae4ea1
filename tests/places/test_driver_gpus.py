"""A GPU by cuda-core and by pycuda: what is handed to the libraries; results need a GPU."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from errseg_rt.engines.fitting import kernels_of
from errseg_rt.errors import EngineError
from errseg_rt.kernels.launch import Launch, Wide
from errseg_rt.options import Options
from errseg_rt.places import open as opening
from errseg_rt.places.arrays import DeviceArray
from errseg_rt.places.cubins import KERNELS, Cubin, Cubins

ROOT = Path(__file__).parents[2]
LAUNCH = Launch("select.flag", (7, 2), (DeviceArray(512, (3,), "float16", None), 0.5, 3, Wide(2**40)), {}, warps=8)
CUBINS = Cubins({LAUNCH.code: Cubin(b"code", "flag", 70_000, 2)})


class Calls(list):
    """Notes calls; what they return is set by name."""

    def __init__(self, **results: object) -> None:
        super().__init__()
        self.results = results

    def __getattr__(self, name: str):
        def call(*arguments: object, **keywords: object) -> object:
            self.append((name, *arguments, *keywords.values()))
            result = self.results.get(name)
            if isinstance(result, Exception):
                raise result
            return result(*arguments) if callable(result) else result

        return call


class CudaStream(Calls):
    def __init__(self) -> None:
        super().__init__(create_graph_builder=Calls(complete=Calls()))
        self.handle = 55


@pytest.fixture
def cuda_core(monkeypatch):
    """The real module, with fakes in the place of what needs a driver."""
    pytest.importorskip("cuda.core")
    module = importlib.import_module("errseg_rt.places.cuda_core_gpu")
    device = Calls(
        create_stream=lambda: CudaStream(), allocate=lambda size: SimpleNamespace(handle=4096, size=size),
        create_event=lambda options: Calls(),
    )  # fmt: skip
    device.compute_capability, device.device_id = SimpleNamespace(major=9, minor=0), 1
    names = ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuMemsetD8Async", "cuKernelSetAttribute")
    driver, launched = Calls(**dict.fromkeys(names, (0,))), []
    kernel = SimpleNamespace(handle=66)
    monkeypatch.setattr(module, "Device", lambda index: device)
    monkeypatch.setattr(module, "driver", driver)
    monkeypatch.setattr(module, "ObjectCode", SimpleNamespace(from_cubin=lambda code: Calls(get_kernel=kernel)))
    monkeypatch.setattr(module, "launch", lambda *arguments: launched.append(arguments))
    return SimpleNamespace(
        module=module, device=device, driver=driver, launched=launched, kernel=kernel, gpu=module.CudaCoreGpu(1, CUBINS)
    )


def test_cuda_core_memory(cuda_core) -> None:
    gpu, driver = cuda_core.gpu, cuda_core.driver
    assert gpu.capability == (9, 0)
    array = gpu.lasting((2, 3), "float32")
    assert (array.address, array.owner.size) == (4096, 24)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    gpu.copy(array, values)
    gpu.copy(values, array)
    gpu.copy(array, DeviceArray(99, (2, 3), "float32", None))
    gpu.zeros((5,), "int32")
    at = values.ctypes.data
    assert driver == [
        ("cuMemcpyHtoDAsync", 4096, at, 24, 55), ("cuMemcpyDtoHAsync", at, 4096, 24, 55),
        ("cuMemcpyDtoDAsync", 4096, 99, 24, 55), ("cuMemsetD8Async", 4096, 0, 20, 55),
    ]  # fmt: skip
    # Every thread that enters makes the device current.
    before = cuda_core.device.count(("set_current",))
    with gpu.entered():
        assert cuda_core.device.count(("set_current",)) == before + 1


def test_cuda_core_launches(cuda_core) -> None:
    cuda_core.gpu.launch(LAUNCH)
    cuda_core.gpu.launch(LAUNCH)
    # Loaded once, and given its shared memory.
    shared = cuda_core.module._SHARED
    assert cuda_core.driver == [("cuKernelSetAttribute", shared, 70_000, 66, 1)]
    (stream, config, kernel, *arguments), _ = cuda_core.launched
    assert (stream, kernel) == (cuda_core.gpu.current().stream, cuda_core.kernel)
    assert (config.grid, config.block, config.shmem_size) == ((7, 2, 1), (256, 1, 1), 70_000)
    given = [(type(each).__name__, each.item()) for each in arguments]
    assert given == [
        ("uint64", 512), ("float32", 0.5), ("int32", 3), ("int64", 2**40), ("uint64", 0), ("uint64", 0)
    ]  # fmt: skip


def test_cuda_core_captures(cuda_core) -> None:
    gpu, done = cuda_core.gpu, []
    other = gpu.stream()
    with gpu.on(other):
        replay = gpu.capture(lambda: done.append(len(other.stream)))
        replay()
    assert gpu.current() is not other
    builder = other.stream.results["create_graph_builder"]
    assert [name for name, *_ in builder] == ["begin_building", "end_building", "complete", "close"]
    assert len(done) == 2
    assert builder.results["complete"] == [("launch", other.stream)]


def test_cuda_core_streams_and_events(cuda_core) -> None:
    gpu = cuda_core.gpu
    stream, event = gpu.stream(), gpu.event()
    event.record(stream)
    stream.wait_event(event)
    event.synchronize()
    assert stream.stream == [("record", event.event), ("wait", event.event)]
    assert event.event == [("sync",)]
    first, second = cuda_core.module.CudaCoreEvent(3.0), cuda_core.module.CudaCoreEvent(5.5)
    assert first.elapsed_time(second) == 2.5


def test_cuda_core_failures_are_errors(cuda_core) -> None:
    cuda_core.driver.results["cuMemcpyHtoDAsync"] = (700,)
    with pytest.raises(EngineError, match="the GPU failed to copy"):
        cuda_core.gpu.copy(DeviceArray(1, (1,), "uint8", None), np.zeros(1, np.uint8))
    cuda_core.device.results["allocate"] = RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(EngineError, match=r"the GPU has no 7 MB left .*OUT_OF_MEMORY"):
        cuda_core.gpu.lasting((7_000_000,), "uint8")


def test_cuda_core_has_what_is_used() -> None:
    """Names and arguments, in the version that is installed."""
    core = pytest.importorskip("cuda.core")
    from cuda.bindings import driver
    from cuda.core.graph import Graph, GraphBuilder

    used = {
        core.Device: ["set_current", "compute_capability", "create_stream", "create_event", "allocate", "device_id"],
        core.Stream: ["handle", "record", "wait", "sync", "create_graph_builder"],
        core.Event: ["is_done", "sync", "__sub__"],
        core.Buffer: ["handle"],
        core.ObjectCode: ["from_cubin", "get_kernel"],
        core.Kernel: ["handle"],
        core.LegacyPinnedMemoryResource: ["allocate"],
        GraphBuilder: ["begin_building", "end_building", "complete", "close"],
        Graph: ["launch"],
    }
    for kind, names in used.items():
        assert not [name for name in names if not hasattr(kind, name)], kind
    config = core.LaunchConfig(grid=(1, 2, 3), block=64, shmem_size=70_000)
    assert (config.grid, config.block, config.shmem_size) == ((1, 2, 3), (64, 1, 1), 70_000)
    assert core.EventOptions(timing_enabled=True).timing_enabled
    wanted = {
        "cuMemcpyHtoDAsync": 4, "cuMemcpyDtoHAsync": 4, "cuMemcpyDtoDAsync": 4, "cuMemsetD8Async": 4,
        "cuKernelSetAttribute": 4,
    }  # fmt: skip
    assert {name: len(inspect.signature(getattr(driver, name)).parameters) for name in wanted} == wanted


@pytest.fixture
def pycuda(monkeypatch):
    turns: list[str] = []
    copies = Calls()
    context = SimpleNamespace(push=lambda: turns.append("push"), pop=lambda: turns.append("pop"))
    kernel = Calls()
    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        init=lambda: None,
        Device=lambda index: SimpleNamespace(retain_primary_context=lambda: context, compute_capability=lambda: (8, 7)),
        Stream=lambda: SimpleNamespace(handle=66, synchronize=lambda: None),
        Event=Calls,
        mem_alloc=lambda size: 512 * size,
        MemoryError=MemoryError,
        pagelocked_empty=np.zeros,
        module_from_buffer=lambda code: SimpleNamespace(get_function=lambda name: kernel),
        function_attribute=SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES="shared"),
        **{
            name: getattr(copies, name)
            for name in ("memcpy_htod_async", "memcpy_dtoh_async", "memcpy_dtod_async", "memset_d8_async")
        },
    )
    package = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.delitem(sys.modules, "errseg_rt.places.pycuda_gpu", raising=False)
    module = importlib.import_module("errseg_rt.places.pycuda_gpu")
    yield SimpleNamespace(gpu=module.PyCudaGpu(0, CUBINS), turns=turns, copies=copies, kernel=kernel)
    monkeypatch.delitem(sys.modules, "errseg_rt.places.pycuda_gpu", raising=False)


def test_pycuda(pycuda) -> None:
    gpu = pycuda.gpu
    assert pycuda.turns == ["push", "pop"]
    assert gpu.capability == (8, 7)
    with gpu.entered():
        assert pycuda.turns == ["push", "pop", "push"]
        assert gpu.handle() == 66
        array, pinned = gpu.lasting((2,), "uint8"), gpu.pinned((2,), "uint8")
        gpu.copy(array, pinned)
        gpu.copy(pinned, array)
        gpu.copy(array, array)
        gpu.zeros((3,), "int32")
        gpu.launch(LAUNCH)
    stream = gpu.current().stream
    assert [call[0] for call in pycuda.copies] == [
        "memcpy_htod_async", "memcpy_dtoh_async", "memcpy_dtod_async", "memset_d8_async"
    ]  # fmt: skip
    assert pycuda.copies[2:] == [
        ("memcpy_dtod_async", 1024, 1024, 2, stream), ("memset_d8_async", 12 * 512, 0, 12, stream)
    ]  # fmt: skip
    assert pycuda.kernel == [
        ("set_attribute", "shared", 70_000), ("prepare", "PfiqPP"),
        ("prepared_async_call", (7, 2, 1), (256, 1, 1), stream, 512, 0.5, 3, 2**40, 0, 0, 70_000),
    ]  # fmt: skip
    done = []
    gpu.capture(lambda: done.append(1))()
    assert done == [1, 1]
    assert pycuda.turns == ["push", "pop"] * 2


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_names_of_gpus(device, index) -> None:
    options = Options("torch", device=device)
    assert (options.index, options.kind, options.place) == (index, "gpu", device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:99999999999", "mps", "CUDA"])
def test_names_that_are_none(device) -> None:
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N, got"):
        Options("torch", device=device)


def built(**files: bytes) -> list[SimpleNamespace]:
    return [SimpleNamespace(folder="street/engines/x", files=files, read=files.__getitem__)]


def test_libraries_are_tried_in_turn(monkeypatch, pycuda) -> None:
    """Without torch for CUDA it is cuda-core; without that, pycuda; without any, the message names them all."""
    found = built(**{KERNELS: CUBINS.to_bytes()})

    def open_gpu(needs_torch: bool = False) -> object:
        return opening.open_gpu(0, needs_torch=needs_torch, kernels=lambda: kernels_of(found))

    monkeypatch.setitem(sys.modules, "errseg_rt.places.torch_gpu", None)
    monkeypatch.setitem(sys.modules, "errseg_rt.places.cuda_core_gpu", None)
    assert type(open_gpu()).__name__ == "PyCudaGpu"
    monkeypatch.setitem(sys.modules, "errseg_rt.places.pycuda_gpu", None)
    with pytest.raises(EngineError, match=r"torch: .*cuda-core: .*pycuda: .*: pip install 'cuda-core\[cu13\]'"):
        open_gpu()
    with pytest.raises(EngineError, match="a GPU needs torch and triton"):
        open_gpu(needs_torch=True)
    found[:] = built(**{"front.plan": b""})
    with pytest.raises(EngineError, match=r"built without kernels, .* build it again where triton is installed"):
        open_gpu()


def test_a_gpu_that_cuda_core_does_not_find_is_left_to_pycuda(monkeypatch, cuda_core, pycuda) -> None:
    class CUDAError(Exception):
        """As cuda-core has it: not a RuntimeError."""

    def fails(index: int) -> object:
        raise CUDAError("CUDA_ERROR_NO_DEVICE")

    monkeypatch.setattr(cuda_core.module, "Device", fails)
    monkeypatch.setitem(sys.modules, "errseg_rt.places.torch_gpu", None)
    gpu = opening.open_gpu(0, needs_torch=False, kernels=lambda: CUBINS)
    assert type(gpu).__name__ == "PyCudaGpu"
    with pytest.raises(EngineError, match=r"cuda-core finds no GPU 3 \(CUDA_ERROR_NO_DEVICE\); see nvidia-smi"):
        cuda_core.module.CudaCoreGpu(3, CUBINS)


def test_what_fails_in_a_capture_is_what_is_told(cuda_core) -> None:
    gpu, runs = cuda_core.gpu, []

    def work() -> None:
        runs.append(1)
        if len(runs) == 2:
            raise EngineError("the GPU has no 7 MB left")

    other = gpu.stream()
    other.stream.results["create_graph_builder"] = Calls(end_building=RuntimeError("the capture is invalid"))
    with gpu.on(other), pytest.raises(EngineError, match="the GPU has no 7 MB left"):
        gpu.capture(work)


def test_a_container_needs_little() -> None:
    command = [sys.executable, "-m", "tests.places.bare_container"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "segmented\n", done.stdout + done.stderr
