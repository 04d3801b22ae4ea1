"""Kernels compiled ahead by Triton for one kind of GPU, so that a runtime there needs neither Triton nor torch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.contract import CONTRACT, Size, lies_by_pixel
from errseg_rt.engines.engine import TensorSpec, empty_as
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.launch import WARP, Launch, argument_type
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.pipeline.refinement import detail_mode
from errseg_rt.places.arrays import DeviceArray
from errseg_rt.places.cubins import Cubin, Cubins
from errseg_rt.places.gpu import Launches
from errseg_rt.places.place import Gpu

_FLOATS = ("*fp32", "*fp16", "*bf16")
_BETWEEN = 8  # sizes of a range that are looked at, besides its ends


class Signature(NamedTuple):
    """Inputs and outputs of a graph, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def signature_of(model: bytes) -> Signature:
    """That of an ONNX model, as TensorRT will have it."""
    import onnx
    from onnx import TensorProto

    dtypes: dict[int, str] = {
        TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"
    }  # fmt: skip
    graph = onnx.load_from_string(model).graph

    def specs(values: Sequence[onnx.ValueInfoProto]) -> dict[str, TensorSpec]:
        types = {value.name: value.type.tensor_type for value in values}
        found = {}
        for name, type_ in types.items():
            shape = tuple(side.dim_value or None for side in type_.shape.dim)
            dtype = dtypes[type_.elem_type]
            found[name] = TensorSpec(dtype, shape, lies_by_pixel(name, dtype, shape[1]))
        return found

    return Signature(specs(graph.input), specs(graph.output))


def compile_kernels(
    bundle: Bundle,
    front: Signature,
    refine: Signature | None,
    frames: Profile,
    capability: tuple[int, int],
    report: Callable[[int, int], None] = lambda done, count: None,
) -> Cubins:
    """Compile what frames of some sizes launch, whatever they are asked for.

    Args:
        bundle: The bundle.
        front: Of its front graph, in the precision that it will run in.
        refine: Of its refine graph, likewise, where there is one.
        frames: Sizes of frames.
        capability: Compute capability of the GPU.
        report: Is told how many kernels are compiled, of how many.

    Raises:
        EngineError: A kernel cannot be compiled for it.
    """
    found = launches(bundle, front, refine, frames, capability)
    cubins = {}
    for done, (code, launch) in enumerate(found.items()):
        report(done, len(found))
        cubins[code] = compile_launch(launch, capability)
    report(len(found), len(found))
    return Cubins(cubins)


def launches(
    bundle: Bundle, front: Signature, refine: Signature | None, frames: Profile, capability: tuple[int, int]
) -> dict[str, Launch]:
    """Launches that differ in the code they need, by `Launch.code`; found by a place that does nothing."""
    recorder = Recorder(capability)
    place = cast(Gpu, recorder)
    dense = _Shapes(recorder, front, bundle.manifest.grid_stride)
    stage3 = _Shapes(recorder, refine, bundle.manifest.grid_stride) if refine else None
    usual = detail_mode(bundle, None)
    for detail in ["sparse", "dense"] if usual == "sparse" else [usual]:
        pipeline = Pipeline(bundle, dense, stage3, place, detail=detail)
        for size in _sizes(frames):
            frame, bounds = DeviceArray(0, (*size, 3), "uint8", None), DeviceArray(0, (2,), "int64", None)
            for ask in (Ask("bgr", False, True), Ask("rgb", True, True)):
                pipeline.run(frame, ask, bounds, place.marks())
    return recorder.found


def compile_launch(launch: Launch, capability: tuple[int, int]) -> Cubin:
    """Compile the code that a launch needs.

    Raises:
        EngineError: It cannot be compiled, or needs memory that only Triton gives.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from errseg_rt.kernels.triton_code import triton_constants, triton_kernel

    kernel = triton_kernel(launch.kernel)
    defaults = {each.name: each.default for each in kernel.params if each.has_default}
    constants = defaults | triton_constants(launch)
    types = [argument_type(argument) for argument in launch.arguments]
    names = [name for name in kernel.arg_names if name not in constants]
    if len(names) != len(types):
        raise ValueError(f"{launch.kernel} takes {', '.join(names)}, got {len(types)} arguments")
    given = dict(zip(names, types, strict=True))
    signature = {name: given.get(name, "constexpr") for name in kernel.arg_names}
    # Floats are read and written many at a time where memory is known to begin at a multiple of 16 bytes.
    aligned = {
        (index,): [["tt.divisibility", 16]] for index, name in enumerate(signature) if signature[name] in _FLOATS
    }
    source = ASTSource(kernel, signature, constants, aligned)
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], WARP)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    try:
        with redirect_stdout(io.StringIO()):  # where ptxas fails, Triton prints all that it was given
            compiled = triton.compile(source, target=target, options=options)
    except Exception as error:  # of its many stages each has its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(
            f"triton {triton.__version__} cannot compile {launch.kernel} for compute capability "
            f"{capability[0]}.{capability[1]}: {next((line for line in lines if 'fatal' in line), lines[0])}; "
            "another version may"
        ) from error
    if getattr(compiled.metadata, "global_scratch_size", 0):
        raise EngineError(f"triton {triton.__version__} wants scratch memory for {launch.kernel}; use another version")
    name = compiled.metadata.name
    pointers = _parameters(compiled.asm["ptx"], name) - len(types)
    return Cubin(compiled.asm["cubin"], name, compiled.metadata.shared, pointers)


def _parameters(ptx: str, name: str) -> int:
    """How many parameters a function takes."""
    entry = re.search(rf"\.entry {re.escape(name)}\((.*?)\)", ptx, re.DOTALL)
    if entry is None:
        raise EngineError(f"triton compiled no {name}")
    return entry[1].count(".param")


def _sizes(frames: Profile) -> Iterator[Size]:
    """Sizes of a range, its ends and its best among them."""
    sizes = {frames.smallest, frames.best, frames.largest}
    for step in range(1, _BETWEEN + 1):
        share = step / (_BETWEEN + 1)
        height, width = (
            round(low + share * (high - low)) for low, high in zip(frames.smallest, frames.largest, strict=True)
        )
        sizes.add((height, width))
    yield from sorted(sizes)


class Recorder(Launches):
    """A GPU as a place, without memory: it notes down what is launched.

    Attributes:
        found: Launches by `Launch.code`.
    """

    name = "cuda:0"

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability
        self.found: dict[str, Launch] = {}

    def begin(self) -> None:
        """Nothing is to be done."""

    def empty(self, shape: Sequence[int], dtype: str) -> DeviceArray:
        """An array that lies nowhere."""
        return DeviceArray(0, shape, dtype, None)

    zeros = empty

    def bring(self, values: npt.NDArray[np.float32], dtype: str) -> DeviceArray:
        """An array that lies nowhere."""
        return DeviceArray(0, values.shape, dtype, None)

    def launch(self, launch: Launch) -> None:
        """Note it down."""
        self.found.setdefault(launch.code, launch)


class _Shapes:
    """A graph that gives arrays of the right shapes, and computes nothing."""

    def __init__(self, recorder: Recorder, signature: Signature, grid_stride: int) -> None:
        self._recorder, self._grid_stride = recorder, grid_stride
        self.inputs, self.outputs = signature

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arrays for inputs of a size."""
        name, array = next(iter(feeds.items()))
        stride = 1 if name == "image" else self._grid_stride  # an input of the grid's size makes maps of that size
        size = (array.shape[2] * stride, array.shape[3] * stride)
        return {
            name: empty_as(self._recorder, spec, CONTRACT[name].shape(spec.shape[1] or 1, size, self._grid_stride))
            for name, spec in self.outputs.items()
        }
