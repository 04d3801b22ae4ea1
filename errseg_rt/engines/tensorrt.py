"""TensorRT: the deployment path, on engines that `errseg-rt build-engine` has put into the bundle."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from errseg_rt.bfloat16 import from_bfloat16, to_bfloat16
from errseg_rt.built_engines import BuiltEngine
from errseg_rt.engines.device_engine import DeviceSpec
from errseg_rt.engines.device_memory import Block, Bytes, DeviceMemory
from errseg_rt.engines.engine import Array, TensorSpec
from errseg_rt.engines.tensorrt_plan import Binding, Plans
from errseg_rt.errors import EngineError
from errseg_rt.graph_branches import branch_of_output

if TYPE_CHECKING:
    import torch

_FLOAT = np.dtype(np.float32)


class TensorRTEngine:
    """One graph in TensorRT, for arrays of the host: float32 goes in and comes out, whatever the precision.

    Args:
        built: Built engines that fit this machine.
        graph: `"front"` or `"refine"`.
        memory: Gives device memory, by torch, cuda-core or pycuda.

    Raises:
        EngineError: TensorRT cannot be used here, or cannot load the graph.
    """

    def __init__(self, built: Sequence[BuiltEngine], graph: str, memory: DeviceMemory) -> None:
        self._memory, self._lock = memory, threading.Lock()
        self._precision, self._graph = built[0].key.precision, graph
        self._inputs: dict[int, dict[str, Block]] = {}
        memory.enter()
        try:
            self._plans: Plans[Block] = Plans(built, graph, memory.allocate)
            first = self._plans.first
        finally:
            memory.leave()
        self._specs = first.inputs, first.outputs

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return {name: TensorSpec(_FLOAT, spec.shape) for name, spec in self._specs[0].items()}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {name: TensorSpec(_FLOAT, spec.shape) for name, spec in self._specs[1].items()}

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name, for inputs by name.

        Raises:
            EngineError: Nothing was built for these inputs, TensorRT fails, or a value overflowed.
        """
        inputs, outputs = self._specs
        with self._lock:
            stream = self._memory.enter()
            try:
                binding = self._plans.binding({name: array.shape for name, array in feeds.items()}, stream)
                data = {name: _encode(array, inputs[name]) for name, array in feeds.items()}
                blocks = self._blocks(binding, data)
                for name, values in data.items():
                    self._memory.copy_in(blocks[name], values)
                binding.enqueue(blocks, stream)
                results = {name: np.empty(size, np.uint8) for name, size in binding.sizes.items()}
                for name, values in results.items():
                    self._memory.copy_out(values, binding.outputs[name])
                self._memory.wait()
            finally:
                self._memory.leave()
        arrays = {name: _decode(results[name], spec, binding.shapes[name]) for name, spec in outputs.items()}
        for name, array in arrays.items():
            self._check(name, array)
        return arrays

    def _blocks(self, binding: Binding[Block], data: Mapping[str, Bytes]) -> dict[str, Block]:
        """Memory for the inputs of a binding, allocated once."""
        if id(binding) not in self._inputs:  # bindings live as long as the engine, so that no other takes the number
            self._inputs[id(binding)] = {name: self._memory.allocate(values.size) for name, values in data.items()}
        return self._inputs[id(binding)]

    def _check(self, name: str, array: Array) -> None:
        """Raise EngineError where a value is not finite; in fp32 that is for the runtime to say, as of any engine."""
        if self._precision != "fp32" and not np.isfinite(array).all():
            better = "bf16" if self._precision == "fp16" else "fp32"
            raise EngineError(
                f"the {branch_of_output(name)} branch gave non-finite {name} in {self._precision}; build with "
                f"--precision {better}"
            )


class TensorRTDeviceEngine:
    """One graph in TensorRT, for CUDA tensors of torch; see `errseg_rt.engines.device_engine.DeviceEngine`.

    Args:
        built: Built engines that fit this machine.
        graph: `"front"` or `"refine"`.
        device: The GPU.

    Raises:
        EngineError: TensorRT cannot be used here, or cannot load the graph.
    """

    def __init__(self, built: Sequence[BuiltEngine], graph: str, *, device: torch.device) -> None:
        import torch

        self._torch, self._device, self._graph = torch, device, graph
        self._tensors: dict[int, dict[str, torch.Tensor]] = {}
        with torch.cuda.device(device):
            self._plans: Plans[_Tensor] = Plans(built, graph, self._allocate)
            first = self._plans.first
        self.inputs: Mapping[str, DeviceSpec] = first.inputs
        self.outputs: Mapping[str, DeviceSpec] = first.outputs

    def run_on_device(self, feeds: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Enqueue the graph on the current stream: outputs by name, for inputs by name.

        The outputs are views of buffers that belong to the inputs' shape: the next call of that shape overwrites them.

        Raises:
            EngineError: Nothing was built for these inputs, they are of another dtype or layout, or TensorRT fails.
        """
        for name, tensor in feeds.items():
            spec = self.inputs.get(name)
            if spec and (str(tensor.dtype) != f"torch.{spec.dtype}" or not tensor.is_contiguous()):
                raise EngineError(
                    f"tensorrt cannot run the {self._graph} graph: {name} must be contiguous {spec.dtype}, got "
                    f"{tensor.dtype} with strides {tensor.stride()}"
                )
        stream = int(self._torch.cuda.current_stream(self._device).cuda_stream)
        binding = self._plans.binding({name: tuple(tensor.shape) for name, tensor in feeds.items()}, stream)
        binding.enqueue({name: _Tensor(tensor) for name, tensor in feeds.items()}, stream)
        if id(binding) not in self._tensors:
            self._tensors[id(binding)] = {
                name: binding.outputs[name].tensor.view(getattr(self._torch, spec.dtype)).view(binding.shapes[name])
                for name, spec in self.outputs.items()
            }
        return self._tensors[id(binding)]

    def _allocate(self, size: int) -> _Tensor:
        try:
            return _Tensor(self._torch.empty(max(size, 1), dtype=self._torch.uint8, device=self._device))
        except self._torch.cuda.OutOfMemoryError as error:
            raise EngineError(
                f"the GPU has no {size / 1e6:,.0f} MB left for the {self._graph} graph; free memory there, or build "
                "for a smaller --shape"
            ) from error


class _Tensor:
    """A tensor as device memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def address(self) -> int:
        return int(self.tensor.data_ptr())


def _encode(array: Array, spec: DeviceSpec) -> Bytes:
    """An array as the bytes that an input takes."""
    values: Any = to_bfloat16(array) if spec.dtype == "bfloat16" else np.ascontiguousarray(array, spec.dtype)
    return values.reshape(-1).view(np.uint8)  # type: ignore[no-any-return]


def _decode(data: Bytes, spec: DeviceSpec, shape: tuple[int, ...]) -> Array:
    """The bytes of an output as float32."""
    if spec.dtype == "bfloat16":
        return from_bfloat16(data.view(np.uint16)).reshape(shape)
    return data.view(spec.dtype).astype(np.float32).reshape(shape)
