"""The TensorRT engine: what it binds, holds and checks, on a fake that computes nothing."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.open import open_engine
from errseg_rt.engines.tensorrt import TensorRTEngine
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.builds import BuildOptions, build_engine
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.options import Options
from errseg_rt.places.arrays import DeviceArray
from tests.places.host_gpu import STREAM, HostGpu


@pytest.fixture
def opened(fake, graph_bundle: Path):
    """Opens the front or the refine engine, built for two shapes."""

    def open_it(graph: str = "front", precision: str = "fp16") -> tuple[TensorRTEngine, HostGpu]:
        bundle, gpu = Bundle.open(graph_bundle), HostGpu()
        for shape in ("65x97", "65x97..129x193"):
            build_engine(bundle, BuildOptions("tensorrt", precision, Profile.parse(shape)))
        return open_engine(bundle, graph, Options("tensorrt", precision=precision), gpu), gpu

    fake.Context.made.clear()
    return open_it


def image(bundle: Path, *size: int) -> DeviceArray:
    values = np.ones((1, 3, *Bundle.open(bundle).manifest.input.input_size(size)), np.float32)
    return DeviceArray(values.ctypes.data, values.shape, "float32", values)


def run(opened, **feeds: DeviceArray) -> dict[str, DeviceArray]:
    engine, gpu = opened
    with gpu.entered():
        return dict(engine.run(feeds))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_names_shapes_and_types(opened, precision: str, dtype: str) -> None:
    engine, _ = opened(precision=precision)
    assert {name: (spec.dtype, spec.shape) for name, spec in engine.inputs.items()} == {
        "image": ("float32", (1, 3, None, None))
    }
    assert {name: spec.dtype for name, spec in engine.outputs.items()} == {
        "logits": dtype, "error_logit": "float32", "low": dtype, "coarse": dtype, "gate": dtype
    }  # fmt: skip
    assert engine.outputs["gate"].shape == (1, 5, 1, 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_memory_is_allocated_once_per_shape(opened, fake, graph_bundle: Path, precision: str) -> None:
    engine, gpu = opened(precision=precision)
    small, large = image(graph_bundle, 65, 97), image(graph_bundle, 129, 193)
    outputs = run((engine, gpu), image=small)
    height, width = (-(-side // 4) for side in small.shape[2:])
    assert outputs["logits"].shape == (1, 11, height, width)
    once = list(gpu.allocated)
    assert sorted(once) == sorted([1000, *(array.size for array in outputs.values())])
    assert run((engine, gpu), image=small) == outputs
    assert gpu.allocated == once
    run((engine, gpu), image=large)
    twice = list(gpu.allocated)
    assert len(twice) == 2 * len(once)
    for each in (small, large, small):
        run((engine, gpu), image=each)
    assert gpu.allocated == twice
    assert len(fake.Context.made) == 2


def test_everything_is_bound_by_name_on_the_streams_context(opened, fake, graph_bundle: Path) -> None:
    given = image(graph_bundle, 65, 97)
    outputs = run(opened(), image=given)
    (context,) = fake.Context.made
    ((stream, addresses),) = context.runs
    assert stream == STREAM
    assert context.profile == (0, STREAM)
    assert addresses == {name: array.address for name, array in {"image": given, **outputs}.items()}
    assert len({*addresses.values(), context.memory[0]}) == 7


def test_the_fixed_shape_goes_before_the_range(opened, fake, graph_bundle: Path) -> None:
    front = opened()
    for size in ((65, 97), (129, 193)):
        run(front, image=image(graph_bundle, *size))
    fixed, ranged = (context.engine.plan["profile"]["image"] for context in fake.Context.made)
    assert fixed[0] == fixed[2]
    assert ranged[0] != ranged[2]


def test_a_shape_that_nothing_was_built_for(opened, graph_bundle: Path) -> None:
    front = opened()
    with pytest.raises(EngineError, match=r"were built for inputs of .*, .*\.\..*; build another with .* --shape HxW"):
        run(front, image=image(graph_bundle, 257, 385))
    with pytest.raises(EngineError, match=r"cannot run the front graph on .*: it takes image"):
        run(front, picture=image(graph_bundle, 65, 97))


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_every_call_is_checked(opened, fake, graph_bundle: Path, call: str) -> None:
    front = opened()
    fake.behaviour.fails, fake.behaviour.log = call, "it is Friday"
    with pytest.raises(EngineError, match=r"TensorRT cannot .*: it is Friday"):
        run(front, image=image(graph_bundle, 65, 97))


def test_one_logger_a_process_and_each_failure_has_its_own_reason(opened, fake) -> None:
    """TensorRT keeps the first that it is given: what a later plan says goes there, too."""
    loggers = []
    kept = fake.Runtime.__init__

    def first_alone(self, logger) -> None:
        loggers.append(logger)
        kept(self, loggers[0])

    fake.Runtime.__init__ = first_alone
    opened()
    fake.behaviour.fails, fake.behaviour.log = "deserialize_cuda_engine", "The engine plan file is corrupt."
    with pytest.raises(EngineError, match=r"TensorRT cannot load the refine graph from .*: The engine plan file"):
        opened("refine")
    assert len(loggers) > 1
    assert len({id(logger) for logger in loggers}) == 1


def test_a_shape_that_needs_no_scratch_is_given_an_address_all_the_same(opened, fake, graph_bundle: Path) -> None:
    fake.Context.update_device_memory_size_for_shapes = lambda self: 0
    front = opened()
    run(front, image=image(graph_bundle, 65, 97))
    (context,) = fake.Context.made
    assert context.memory[0] != 0
    assert context.memory[1] > 0


def test_a_plan_that_cannot_be_loaded(opened, fake) -> None:
    fake.behaviour.fails, fake.behaviour.log = "deserialize_cuda_engine", "The engine plan file is corrupt."
    with pytest.raises(EngineError, match=r"TensorRT cannot load the front graph from .*: The engine plan file"):
        opened()


def test_too_little_memory_for_the_plan(opened, fake) -> None:
    opened()
    fake.behaviour.free = 3
    with pytest.raises(EngineError, match="the front graph needs more than 0 MB on the GPU, where 0 MB are free"):
        opened()


def test_the_refine_graph_takes_the_front_graphs_outputs(opened, graph_bundle: Path) -> None:
    front = run(opened(), image=image(graph_bundle, 65, 97))
    stage3 = opened("refine")
    outputs = run(stage3, **{name: front[name] for name in stage3[0].inputs})
    assert outputs["detail_logits"].shape == front["logits"].shape


def test_inputs_are_held_and_outputs_stay(opened, fake, graph_bundle: Path) -> None:
    front = opened()
    given, other = image(graph_bundle, 65, 97), image(graph_bundle, 65, 97)
    first = run(front, image=given)
    again = run(front, image=other)
    assert {name: each.address for name, each in first.items()} == {name: each.address for name, each in again.items()}
    (context,) = fake.Context.made
    assert [addresses["image"] for _, addresses in context.runs] == [given.address, other.address]
    alive = weakref.ref(other)
    del other
    gc.collect()
    assert alive() is not None, "its address is bound"


def test_other_types_are_refused(opened, graph_bundle: Path) -> None:
    given = image(graph_bundle, 65, 97)
    given.dtype = "float16"
    with pytest.raises(EngineError, match="image must be contiguous float32, got float16"):
        run(opened(), image=given)


def test_on_torchs_tensors_other_layouts_are_refused(opened, graph_bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(image(graph_bundle, 65, 97).shape).to(memory_format=torch.channels_last)
    with pytest.raises(EngineError, match="image must be contiguous float32, got float32 with strides"):
        run(opened(), image=tensor)


def test_without_a_gpu_opening_it_is_one_clear_line(fake, graph_bundle: Path) -> None:
    fake.behaviour.devices = 0
    bundle = Bundle.open(graph_bundle)
    with pytest.raises(EngineError, match="there is an NVIDIA driver, but no device"):
        open_engine(bundle, "front", Options("tensorrt"), HostGpu())
    with pytest.raises(EngineError, match="there is an NVIDIA driver, but no device"):
        Runtime(bundle, "tensorrt")


def test_the_key_is_that_of_the_gpu_in_use(opened, fake, graph_bundle: Path) -> None:
    opened()
    fake.behaviour.devices = 2
    with pytest.raises(EngineError, match="device NVIDIA Fake where this is NVIDIA Fake the second"):
        open_engine(Bundle.open(graph_bundle), "front", Options("tensorrt", device="cuda:1"), HostGpu())


def test_it_does_not_run_on_the_cpu() -> None:
    with pytest.raises(ValueError, match="device must fit the engine: tensorrt runs on a GPU, got 'cpu'"):
        Options("tensorrt", device="cpu")
