"""A fake of the few classes of TensorRT that are used, and of the driver: for control flow, not for its own results.

What it does is set by the attributes of `behaviour`.
"""

from __future__ import annotations

import base64
import ctypes
import json
import time
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

__version__ = "10.16.1.11"


class Behaviour:
    """How the fake behaves.

    Attributes:
        devices: GPUs that the driver finds.
        cuda: CUDA version of the driver.
        free: Bytes that are free on the GPU.
        refuse: Index of the node that the parser refuses.
        step: Is called at every step of a build, with its number.
        fails: Name of the call that returns nothing.
        log: What is logged when a call fails.
        built: How many plans were built.
        scratch: Bytes that a context needs for shapes of its inputs.
        computes: Whether ONNX Runtime runs the graphs, on memory of the host; else nothing is computed.
    """

    def __init__(self) -> None:
        self.name = b"NVIDIA Fake"
        self.devices, self.cuda, self.free = 1, 13000, 8_000_000_000
        self.refuse: int | None = None
        self.step: Callable[[int], None] = lambda number: None
        self.fails: str | None = None
        self.log = "it failed"
        self.built = 0
        self.computes = False
        self.scratch: Callable[[dict[str, tuple[int, ...]]], int] = lambda shapes: 1000
        self.seconds = 0.0
        self.config: dict[str, Any] = {}


behaviour = Behaviour()


class Driver:
    """The calls of libcuda that are used, on ctypes' references."""

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = behaviour.devices
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = behaviour.cuda
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < behaviour.devices else 101

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = behaviour.name + b" the second" * device.value
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 10_000_000_000
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value = behaviour.free
        return 0


def compile_launch(launch: Any, capability: tuple[int, int]) -> Any:
    """In the stead of Triton's compiler."""
    from errseg_rt.places.cubins import Cubin

    return Cubin(launch.code.encode(), launch.kernel.rpartition(".")[2], 0, 2)


class _Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = _Severity


class IProgressMonitor:
    pass


class NetworkDefinitionCreationFlag(int, Enum):
    STRONGLY_TYPED = 1


class BuilderFlag(Enum):
    TF32 = 1


class MemoryPoolType(Enum):
    WORKSPACE = 1


class TensorIOMode(Enum):
    INPUT, OUTPUT = 1, 2


class DataType(Enum):
    FLOAT, HALF, BF16 = "float32", "float16", "bfloat16"


class TensorFormat(int, Enum):
    LINEAR, HWC8 = 0, 2


class ExecutionContextAllocationStrategy(Enum):
    USER_MANAGED = 1


def _fail(logger: Any, call: str) -> bool:
    if behaviour.fails != call:
        return False
    logger.log(ILogger.ERROR, behaviour.log)
    return True


class Network:
    tensors: dict[str, dict[str, tuple[int, list[int]]]]
    model: bytes

    def __init__(self) -> None:
        self.formats: dict[str, int] = {}

    @property
    def num_inputs(self) -> int:
        return len(self.tensors["inputs"])

    @property
    def num_outputs(self) -> int:
        return len(self.tensors["outputs"])

    def get_input(self, index: int) -> Tensor:
        return Tensor(self, "inputs", index)

    def get_output(self, index: int) -> Tensor:
        return Tensor(self, "outputs", index)


class Tensor:
    """An input, whose sizes may be set where they are open, or an output; either may be told how it shall lie."""

    def __init__(self, network: Network, kind: str, index: int) -> None:
        self._network, self._tensors = network, network.tensors[kind]
        self.name = list(self._tensors)[index]

    @property
    def dtype(self) -> DataType:
        return _TYPES[self._tensors[self.name][0]]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensors[self.name][1])

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        assert self._tensors is self._network.tensors["inputs"]
        dtype, old = self._tensors[self.name]
        assert all(before in (-1, size) for before, size in zip(old, shape, strict=True))
        self._tensors[self.name] = dtype, list(shape)

    @property
    def allowed_formats(self) -> int:
        return self._network.formats.get(self.name, 1 << int(TensorFormat.LINEAR))

    @allowed_formats.setter
    def allowed_formats(self, formats: int) -> None:
        # Eight channels of two bytes lie together, of four bytes they do not.
        assert formats == 1 << int(TensorFormat.HWC8)
        assert self.dtype in (DataType.HALF, DataType.BF16)
        self._network.formats[self.name] = formats


class ParserError:
    def node(self) -> int:
        return behaviour.refuse or 0

    def desc(self) -> str:
        return "no importer registered"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: Network, logger: Any) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        import onnx

        graph = onnx.load_from_string(model).graph
        self._network.model = model
        self._network.tensors = {
            kind: {
                value.name: (
                    value.type.tensor_type.elem_type,
                    [side.dim_value or -1 for side in value.type.tensor_type.shape.dim],
                )
                for value in values
            }
            for kind, values in (("inputs", graph.input), ("outputs", graph.output))
        }
        return behaviour.refuse is None

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (min, opt, max)


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+"


class Config:
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profiles: list[Profile] = []
        self.cache: TimingCache | None = None

    def clear_flag(self, flag: BuilderFlag) -> None:
        behaviour.config["cleared"] = flag

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        behaviour.config["workspace"] = pool_size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        return TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.data.startswith(b"other GPU"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Builder:
    STEPS = 5

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        if _fail(logger, "Builder"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> Network:
        behaviour.config["flags"] = flags
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, self.STEPS)
        monitor.phase_start("Tactics", "Building", 2)
        monitor.step_complete("Tactics", 0)
        monitor.phase_finish("Tactics")
        for step in range(self.STEPS):
            behaviour.step(step)
            time.sleep(behaviour.seconds)
            if not monitor.step_complete("Building", step):
                monitor.phase_finish("Building")
                return None
        monitor.phase_finish("Building")
        if _fail(self._logger, "build_serialized_network"):
            return None
        behaviour.built += 1
        (profile,) = config.profiles
        graph = {"graph": base64.b64encode(network.model).decode()} if behaviour.computes else {}
        return json.dumps({**network.tensors, "formats": network.formats, "profile": profile.shapes, **graph}).encode()


_TYPES = {1: DataType.FLOAT, 10: DataType.HALF, 16: DataType.BF16}


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> CudaEngine | None:
        return None if _fail(self._logger, "deserialize_cuda_engine") else CudaEngine(json.loads(data), self._logger)


class CudaEngine:
    def __init__(self, plan: dict[str, Any], logger: Any) -> None:
        self.plan, self.logger = plan, logger
        self.tensors = {**plan["inputs"], **plan["outputs"]}
        self.num_io_tensors = len(self.tensors)
        self._session: Any = None

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.plan["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self.tensors[name][0]]

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.HWC8 if name in self.plan["formats"] else TensorFormat.LINEAR

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context:
        return Context(self)

    def compute(self, arrays: dict[str, Any]) -> None:
        """Run the graph on arrays by name, of inputs and of outputs."""
        import onnxruntime

        if self._session is None:
            model = base64.b64decode(self.plan["graph"])
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        outputs = self._session.run(
            list(self.plan["outputs"]), {name: arrays[name].copy() for name in self.plan["inputs"]}
        )
        for name, values in zip(self.plan["outputs"], outputs, strict=True):
            assert values.shape == arrays[name].shape
            arrays[name][...] = values


class Context:
    made: list[Context] = []  # noqa: RUF012
    alive: weakref.WeakSet[Context] = weakref.WeakSet()  # noqa: RUF012

    def __init__(self, engine: CudaEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.runs: list[tuple[int, dict[str, int]]] = []
        self.profile: tuple[int, int] | None = None
        Context.made.append(self)
        Context.alive.add(self)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile = (profile_index, stream_handle)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert all(built in (-1, size) for built, size in zip(self.engine.tensors[name][1], shape, strict=True))
        self.shapes[name] = shape
        return not _fail(self.engine.logger, "set_input_shape")

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.plan["inputs"] if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Outputs lie on the grid of `image`, or of `low`."""
        _, channels, *sides = self.engine.tensors[name][1]
        if sides == [1, 1]:
            return (1, channels, 1, 1)
        stride = 8 if name == "coarse" else 4
        if "image" in self.shapes:
            return (1, channels, *(-(-side // stride) for side in self.shapes["image"][2:]))
        return (1, channels, *self.shapes["low"][2:])

    def update_device_memory_size_for_shapes(self) -> int:
        return behaviour.scratch(self.shapes)

    def set_device_memory(self, memory: int, size: int) -> None:
        self.memory = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return not _fail(self.engine.logger, "set_tensor_address")

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.runs.append((stream_handle, dict(self.addresses)))
        if behaviour.computes:
            self.engine.compute({name: self._array(name) for name in self.engine.tensors})
        return not _fail(self.engine.logger, "execute_async_v3")

    def _array(self, name: str) -> Any:
        """What lies at the address of an input or output."""
        import numpy as np

        dtype, shape = np.dtype(self.engine.get_tensor_dtype(name).value), self.shapes.get(name)
        shape = shape or self.get_tensor_shape(name)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        values = np.frombuffer(memory, dtype)
        if self.engine.get_tensor_format(name) != TensorFormat.HWC8:
            return values.reshape(shape)
        batch, channels, *size = shape
        assert channels % 8 == 0  # else a pixel is filled up to a multiple of eight
        return values.reshape(batch, *size, channels).transpose(0, 3, 1, 2)
