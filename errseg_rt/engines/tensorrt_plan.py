"""A graph in TensorRT: the plan that fits the inputs' shapes, and an execution context for each of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from errseg_rt.bundle.built import BuiltEngine
from errseg_rt.bundle.contract import CONTRACT
from errseg_rt.engines.engine import TensorSpec, empty_as
from errseg_rt.engines.tensorrt_library import checked, load_tensorrt, make_logger, megabytes
from errseg_rt.errors import EngineError
from errseg_rt.places.driver import free_memory

if TYPE_CHECKING:
    from errseg_rt.places.place import Gpu

Shape = tuple[int, ...]
_LEAST_SCRATCH = 512  # bytes
_LATEST = 4  # bindings of a graph that are kept though nothing holds them


class Binding:
    """An execution context for fixed input shapes. Its scratch is the GPU's workspace, its outputs are the frame's.

    It is kept for as long as somebody holds it: what a CUDA graph replays needs the context that it was captured from.
    """

    def __init__(self, plan: Plan, shapes: Mapping[str, Shape], stream: int) -> None:
        tensorrt, logger, graph = plan.tensorrt, plan.logger, plan.graph
        strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = checked(f"run the {graph} graph", logger, plan.engine.create_execution_context, strategy)
        # The first context takes the first profile by itself; later ones have to be told.
        checked(f"set the profile of the {graph} graph", logger, context.set_optimization_profile_async, 0, stream)
        for name, shape in shapes.items():
            checked(f"take {name} {list(shape)} in the {graph} graph", logger, context.set_input_shape, name, shape)
        unknown = context.infer_shapes()
        if unknown:
            raise EngineError(f"the {graph} graph leaves the shape of {', '.join(unknown)} open; build it again")
        # A shape may need none, and TensorRT wants an address all the same.
        self._scratch = max(_LEAST_SCRATCH, int(context.update_device_memory_size_for_shapes()))
        self._outputs = {name: tuple(context.get_tensor_shape(name)) for name in plan.outputs}
        self._plan, self._context = plan, context

    def enqueue(self, inputs: Mapping[str, Any], gpu: Gpu) -> dict[str, Any]:
        """Run in the current stream: outputs by name, scratch memory of the frame.

        Raises:
            EngineError: TensorRT refuses, or there is too little memory.
        """
        plan, context = self._plan, self._context
        workspace = gpu.workspace(self._scratch)
        context.set_device_memory(gpu.address(workspace), self._scratch)
        outputs = {name: empty_as(gpu, plan.outputs[name], shape) for name, shape in self._outputs.items()}
        for name, array in {**inputs, **outputs}.items():
            checked(f"bind {name}", plan.logger, context.set_tensor_address, name, gpu.address(array))
        checked(f"run the {plan.graph} graph", plan.logger, context.execute_async_v3, gpu.handle())
        gpu.hold((self, workspace))
        return outputs


class Plan:
    """One deserialised plan.

    Args:
        built: Holds it.
        graph: `"front"` or `"refine"`.
        index: The GPU.

    Attributes:
        engine: TensorRT's `ICudaEngine`.
        inputs: Its inputs by name, of open size.
        outputs: Its outputs by name, likewise.
    """

    def __init__(self, built: BuiltEngine, graph: str, index: int) -> None:
        data = built.read(f"{graph}.plan")
        self.tensorrt = tensorrt = load_tensorrt()
        self.graph, self.logger = graph, make_logger(tensorrt)
        if len(data) > (free := free_memory(index)):
            raise EngineError(
                f"the {graph} graph needs more than {megabytes(len(data))} on the GPU, where {megabytes(free)} are "
                "free; free memory there"
            )
        # The runtime is held: an engine must not outlive it.
        self._runtime = checked("start its runtime", self.logger, tensorrt.Runtime, self.logger)
        what = f"load the {graph} graph from {built.folder}"
        self.engine = checked(what, self.logger, self._runtime.deserialize_cuda_engine, data)
        dtypes = {
            tensorrt.DataType.FLOAT: "float32", tensorrt.DataType.HALF: "float16", tensorrt.DataType.BF16: "bfloat16"
        }  # fmt: skip
        self.inputs: dict[str, TensorSpec] = {}
        self.outputs: dict[str, TensorSpec] = {}
        for position in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(position)
            is_input = self.engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            _, channels, *sides = self.engine.get_tensor_shape(name)
            if CONTRACT[name].lies != "frame":
                sides = [None, None]  # even where this plan has but one size: others have others
            by_pixel = self.engine.get_tensor_format(name) == tensorrt.TensorFormat.HWC8
            spec = TensorSpec(dtypes[self.engine.get_tensor_dtype(name)], (1, channels, *sides), by_pixel)
            (self.inputs if is_input else self.outputs)[name] = spec


class Plans:
    """All plans of one graph in one precision, and their bindings; not for two threads at once.

    Args:
        built: Built engines that fit this machine, those for one fixed shape first.
        graph: `"front"` or `"refine"`.
        gpu: The GPU.

    Raises:
        EngineError: TensorRT cannot be used here, or cannot load a plan.
    """

    def __init__(self, built: Sequence[BuiltEngine], graph: str, gpu: Gpu) -> None:
        self._built, self.graph, self._gpu = list(built), graph, gpu
        self._plans: dict[str, Plan] = {}
        # Those that a captured graph holds, and the latest, so that shapes that take turns make none anew.
        self._bindings: WeakValueDictionary[tuple[Shape, ...], Binding] = WeakValueDictionary()
        self._latest: deque[Binding] = deque(maxlen=_LATEST)

    @property
    def first(self) -> Plan:
        """A plan, for the names and types that all of them share."""
        return self._plan(self._built[0])

    def binding(self, shapes: Mapping[str, Shape]) -> Binding:
        """The binding for the shapes of the inputs, made where it is not there.

        Raises:
            EngineError: Nothing was built for these shapes, or they cannot be bound.
        """
        inputs = self.first.inputs
        if shapes.keys() != inputs.keys():
            raise EngineError(
                f"tensorrt cannot run the {self.graph} graph on {dict(shapes)}: it takes {', '.join(inputs)}"
            )
        key = tuple(shapes[name] for name in inputs)
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = Binding(self._plan(self._covering(shapes)), shapes, self._gpu.handle())
        if binding in self._latest:
            self._latest.remove(binding)
        self._latest.append(binding)
        return binding

    def _covering(self, shapes: Mapping[str, Shape]) -> BuiltEngine:
        for built in self._built:
            if built.covers(self.graph, shapes):
                return built
        there = ", ".join(built.key.shape for built in self._built)
        raise EngineError(
            f"tensorrt cannot run the {self.graph} graph on {dict(shapes)}: engines were built for inputs of {there}; "
            "build another with errseg-rt build-engine --shape HxW"
        )

    def _plan(self, built: BuiltEngine) -> Plan:
        if built.key.folder not in self._plans:
            self._plans[built.key.folder] = Plan(built, self.graph, self._gpu.index)
        return self._plans[built.key.folder]
