"""One ONNX graph to one TensorRT plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from errseg_rt.bundle.built import Shapes
from errseg_rt.bundle.contract import lies_by_pixel
from errseg_rt.engines.tensorrt_library import checked, load_tensorrt, make_logger, megabytes
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.branches import branches_of_nodes
from errseg_rt.export.engines.tensorrt.monitor import Report, make_monitor
from errseg_rt.export.engines.tensorrt.operators import refused
from errseg_rt.places.driver import free_memory
from errseg_rt.system.atomic import write_atomically

_GIB = 1024**3
_WAIT = 0.1  # seconds between two looks at whether Ctrl-C was pressed


def build_plan(
    model: bytes,
    graph: str,
    shapes: Shapes,
    *,
    workspace: float | None = None,
    timing_cache: Path | None = None,
    report: Report = lambda phase, done, steps: None,
) -> bytes:
    """Build a plan for the GPU of this machine.

    Args:
        model: The ONNX model; its types are those in which the plan computes.
        graph: What the graph is called in messages.
        shapes: Smallest, best and largest shape of each input.
        workspace: Most scratch memory of a layer, in GiB; None: all that is free.
        timing_cache: File with the timings of earlier builds, which this one adds to; a missing one is made.
        report: Is told of the progress.

    Raises:
        EngineError: TensorRT cannot be used here, refuses the graph or fails to build it; the message says why.
        KeyboardInterrupt: Ctrl-C was pressed; the build has ended.
    """
    tensorrt = load_tensorrt()
    if workspace is not None and workspace * _GIB > (free := free_memory()):
        raise EngineError(
            f"a workspace of {workspace} GiB is more than the {megabytes(free)} that are free on the GPU; take a "
            "smaller workspace"
        )
    logger = make_logger(tensorrt)
    builder = checked("start its builder", logger, tensorrt.Builder, logger)
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = checked("make a network", logger, builder.create_network, flags)
    _parse(tensorrt, logger, network, model, graph)
    _fix_sizes(network, shapes)
    _lay_out(tensorrt, network)

    config = checked("make a configuration", logger, builder.create_builder_config)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # fp32 means fp32
    if workspace is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, int(workspace * _GIB))
    profile = checked("make a profile", logger, builder.create_optimization_profile)
    for name, (smallest, best, largest) in shapes.items():
        profile.set_shape(name, smallest, best, largest)
    if checked("take the profile", logger, config.add_optimization_profile, profile) < 0:
        raise EngineError(f"TensorRT cannot take the shapes {dict(shapes)} for the {graph} graph")
    if timing_cache is not None:
        _read_timings(tensorrt, logger, config, timing_cache)
    cancelled = threading.Event()
    monitor = make_monitor(tensorrt, report, cancelled)
    config.progress_monitor = monitor

    def build() -> bytes:
        return bytes(checked(f"build the {graph} graph", logger, builder.build_serialized_network, network, config))

    plan = _interruptible(build, cancelled)
    if timing_cache is not None:
        with write_atomically(timing_cache) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    return plan


def _parse(tensorrt: Any, logger: Any, network: Any, model: bytes, graph: str) -> None:
    """Read the model into the network; EngineError names the node that cannot be read, and its branch."""
    parser = checked("start its parser", logger, tensorrt.OnnxParser, network, logger)
    if parser.parse(model):
        return
    proto = onnx.load_from_string(model)
    branches = branches_of_nodes(proto.graph)
    known = refused(proto)
    if parser.num_errors:
        parser_error = parser.get_error(0)
        index, what = int(parser_error.node()), str(parser_error.desc())
    else:
        index, what = -1, known[0][1] if known else "it does not say why"
    if known and not 0 <= index < len(proto.graph.node):
        index = list(proto.graph.node).index(known[0][0])
    where = f"the {graph} graph"
    if 0 <= index < len(proto.graph.node):
        node = proto.graph.node[index]
        where += f", node {node.name} ({node.op_type}) of the {branches[index] or 'unused'} branch"
    raise EngineError(
        f"TensorRT {tensorrt.__version__} does not take {where}: {what}; use the engine torch or onnxruntime"
    )


def _fix_sizes(network: Any, shapes: Shapes) -> None:
    """Tell the network which sizes of its inputs are always the same, so that what follows from them is folded."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        smallest, _, largest = shapes[tensor.name]
        tensor.shape = tuple(low if low == high else -1 for low, high in zip(smallest, largest, strict=True))


def _lay_out(tensorrt: Any, network: Any) -> None:
    """Have channels lie one behind the other where refinement reads them so, and would move them itself."""
    dtypes = {tensorrt.DataType.HALF: "float16", tensorrt.DataType.BF16: "bfloat16"}
    for tensor in (
        *(network.get_input(index) for index in range(network.num_inputs)),
        *(network.get_output(index) for index in range(network.num_outputs)),
    ):
        if lies_by_pixel(tensor.name, dtypes.get(tensor.dtype, ""), tensor.shape[1]):
            tensor.allowed_formats = 1 << int(tensorrt.TensorFormat.HWC8)


def _read_timings(tensorrt: Any, logger: Any, config: Any, path: Path) -> None:
    """Give the builder the timings of earlier builds, or none where they are damaged or of another version or GPU."""
    data = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(data)
    if not cache or not config.set_timing_cache(cache, ignore_mismatch=False):
        empty = checked("make a timing cache", logger, config.create_timing_cache, b"")
        checked("take an empty timing cache", logger, config.set_timing_cache, empty, False)


def _interruptible(build: Callable[[], bytes], cancelled: threading.Event) -> bytes:
    """Build in a thread, so that Ctrl-C is heard while TensorRT computes; it stops at the builder's next step."""
    plans: list[bytes] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            plans.append(build())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="tensorrt-builder")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_WAIT)
    except BaseException:
        cancelled.set()
        thread.join()
        raise
    if errors:
        raise errors[0]
    return plans[0]
