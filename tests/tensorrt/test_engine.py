"""The TensorRT engine: what it binds, holds and checks, on a fake that computes nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.bundle import Bundle
from errseg_rt.engines import open_device_engine, open_engine
from errseg_rt.engines.built import built_engines
from errseg_rt.engines.tensorrt import TensorRTDeviceEngine, TensorRTEngine
from errseg_rt.errors import EngineError
from errseg_rt.export.builds import BuildOptions, build_engine
from errseg_rt.export.profiles import Profile

STREAM = 77


class Block:
    def __init__(self, size: int) -> None:
        self.data = np.full(max(size, 1), 0xFF, np.uint8)  # NaN, in every float

    @property
    def address(self) -> int:
        return int(self.data.ctypes.data)


class Memory:
    """Host memory in the place of a device's."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.depth = 0
        self.fill = 0

    def enter(self) -> int:
        self.depth += 1
        return STREAM

    def leave(self) -> None:
        self.depth -= 1

    def allocate(self, size: int) -> Block:
        assert self.depth == 1
        self.blocks.append(size)
        return Block(size)

    def copy_in(self, block: Block, data: np.ndarray) -> None:
        block.data[: data.size] = data

    def copy_out(self, data: np.ndarray, block: Block) -> None:
        data[:] = self.fill

    def wait(self) -> None:
        assert self.depth == 1


@pytest.fixture
def opened(fake, graph_bundle: Path):
    """Opens the front or the refine engine, built for two shapes."""

    def open_it(graph: str = "front", precision: str = "fp16") -> tuple[TensorRTEngine, Memory]:
        bundle, memory = Bundle.open(graph_bundle), Memory()
        for shape in ("65x97", "65x97..129x193"):
            build_engine(bundle, BuildOptions("tensorrt", precision, Profile.parse(shape)))
        return TensorRTEngine(built_engines(bundle, "tensorrt", precision), graph, memory), memory

    fake.Context.made.clear()
    return open_it


def image(bundle: Path, *size: int) -> np.ndarray:
    return np.ones((1, 3, *Bundle.open(bundle).manifest.input.input_size(size)), np.float32)


def test_names_and_shapes(opened) -> None:
    engine, _ = opened()
    assert {name: spec.shape for name, spec in engine.inputs.items()} == {"image": (1, 3, None, None)}
    assert list(engine.outputs) == ["logits", "error_logit", "low", "coarse", "gate"]
    assert engine.outputs["gate"].shape == (1, 5, 1, 1)
    assert {spec.dtype for spec in (*engine.inputs.values(), *engine.outputs.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_memory_is_allocated_once_per_shape(opened, fake, graph_bundle: Path, precision: str) -> None:
    engine, memory = opened(precision=precision)
    small, large = image(graph_bundle, 65, 97), image(graph_bundle, 129, 193)
    outputs = engine.run({"image": small})
    height, width = (-(-side // 4) for side in small.shape[2:])
    assert outputs["logits"].shape == (1, 11, height, width)
    assert {array.dtype for array in outputs.values()} == {np.dtype(np.float32)}
    once = list(memory.blocks)
    itemsize = 4 if precision == "fp32" else 2
    low = {name: array.size * itemsize for name, array in outputs.items() if name != "error_logit"}
    assert sorted(once) == sorted([1000, small.size * 4, outputs["error_logit"].size * 4, *low.values()])
    engine.run({"image": small})
    assert memory.blocks == once
    engine.run({"image": large})
    twice = list(memory.blocks)
    assert len(twice) == 2 * len(once)
    for each in (small, large, small):
        engine.run({"image": each})
    assert memory.blocks == twice
    assert len(fake.Context.made) == 2
    assert memory.depth == 0


def test_everything_is_bound_by_name_on_the_streams_context(opened, fake, graph_bundle: Path) -> None:
    engine, _ = opened()
    engine.run({"image": image(graph_bundle, 65, 97)})
    (context,) = fake.Context.made
    ((stream, addresses),) = context.runs
    assert stream == STREAM
    assert context.profile == (0, STREAM)
    assert set(addresses) == {"image", "logits", "error_logit", "low", "coarse", "gate"}
    assert len({*addresses.values(), context.memory[0]}) == 7


def test_the_fixed_shape_goes_before_the_range(opened, fake, graph_bundle: Path) -> None:
    engine, _ = opened()
    for size in ((65, 97), (129, 193)):
        engine.run({"image": image(graph_bundle, *size)})
    fixed, ranged = (context.engine.plan["profile"]["image"] for context in fake.Context.made)
    assert fixed[0] == fixed[2]
    assert ranged[0] != ranged[2]


def test_a_shape_that_nothing_was_built_for(opened, graph_bundle: Path) -> None:
    engine, memory = opened()
    with pytest.raises(EngineError, match=r"were built for inputs of .*, .*\.\..*; build another with .* --shape HxW"):
        engine.run({"image": image(graph_bundle, 257, 385)})
    with pytest.raises(EngineError, match=r"cannot run the front graph on .*: it takes image"):
        engine.run({"picture": image(graph_bundle, 65, 97)})
    assert memory.depth == 0


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_every_call_is_checked(opened, fake, graph_bundle: Path, call: str) -> None:
    engine, _ = opened()
    fake.behaviour.fails, fake.behaviour.log = call, "it is Friday"
    with pytest.raises(EngineError, match=r"TensorRT cannot .*: it is Friday"):
        engine.run({"image": image(graph_bundle, 65, 97)})


def test_a_plan_that_cannot_be_loaded(opened, fake) -> None:
    fake.behaviour.fails, fake.behaviour.log = "deserialize_cuda_engine", "The engine plan file is corrupt."
    with pytest.raises(EngineError, match=r"TensorRT cannot load the front graph from .*: The engine plan file"):
        opened()


@pytest.mark.parametrize(("precision", "hint"), [("fp16", "--precision bf16"), ("bf16", "--precision fp32")])
def test_what_overflows_names_its_branch(opened, graph_bundle: Path, precision: str, hint: str) -> None:
    engine, memory = opened(precision=precision)
    memory.fill = 0xFF
    with pytest.raises(
        EngineError, match=f"the semantic branch gave non-finite logits in {precision}; build with {hint}"
    ):
        engine.run({"image": image(graph_bundle, 65, 97)})


def test_too_little_memory_for_the_plan(opened, fake) -> None:
    opened()
    fake.behaviour.free = 3
    with pytest.raises(EngineError, match="the front graph needs more than 0 MB on the GPU, where 0 MB are free"):
        opened()


def test_threads_take_turns(opened, graph_bundle: Path) -> None:
    engine, memory = opened()
    feeds = {"image": image(graph_bundle, 65, 97)}
    threads = [threading.Thread(target=lambda: [engine.run(feeds) for _ in range(9)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.depth == 0


def test_the_refine_graph_takes_the_front_graphs_outputs(opened, graph_bundle: Path) -> None:
    front = opened()[0].run({"image": image(graph_bundle, 65, 97)})
    engine, _ = opened("refine")
    outputs = engine.run({name: front[name] for name in engine.inputs})
    assert outputs["detail_logits"].shape == front["logits"].shape


@pytest.fixture
def device_engine(fake, graph_bundle: Path, monkeypatch) -> TensorRTDeviceEngine:
    """On the CPU's tensors: the fake computes nothing anyway."""
    torch = pytest.importorskip("torch")

    class Stream:
        cuda_stream = STREAM

    class Device:
        def __init__(self, device: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream)
    monkeypatch.setattr(torch.cuda, "device", Device)
    fake.Context.made.clear()
    bundle = Bundle.open(graph_bundle)
    build_engine(bundle, BuildOptions("tensorrt", "fp16", Profile.parse("65x97")))
    return open_device_engine("tensorrt", bundle, "front", device=torch.device("cpu"), precision="fp16")


def test_on_device_the_types_are_the_precisions(device_engine) -> None:
    assert {name: spec.dtype for name, spec in device_engine.outputs.items()} == {
        "logits": "float16", "error_logit": "float32", "low": "float16", "coarse": "float16", "gate": "float16"
    }  # fmt: skip
    assert device_engine.inputs["image"].dtype == "float32"


def test_on_device_inputs_are_held_and_outputs_stay(device_engine, fake, graph_bundle: Path) -> None:
    import torch

    tensor = torch.from_numpy(image(graph_bundle, 65, 97))
    first = device_engine.run_on_device({"image": tensor})
    assert {name: str(each.dtype)[6:] for name, each in first.items()} == {
        name: spec.dtype for name, spec in device_engine.outputs.items()
    }
    other = tensor.clone()
    again = device_engine.run_on_device({"image": other})
    assert {name: each.data_ptr() for name, each in first.items()} == {
        name: each.data_ptr() for name, each in again.items()
    }
    (context,) = fake.Context.made
    assert [addresses["image"] for _, addresses in context.runs] == [tensor.data_ptr(), other.data_ptr()]
    assert [stream for stream, _ in context.runs] == [STREAM] * 2
    alive = weakref.ref(other)
    del other
    gc.collect()
    assert alive() is not None, "its address is bound"
    del tensor


def test_on_device_other_types_and_layouts_are_refused(device_engine, graph_bundle: Path) -> None:
    import torch

    tensor = torch.from_numpy(image(graph_bundle, 65, 97))
    for wrong in (tensor.half(), tensor.to(memory_format=torch.channels_last)):
        with pytest.raises(EngineError, match="image must be contiguous float32, got"):
            device_engine.run_on_device({"image": wrong})


def test_without_a_gpu_opening_it_is_one_clear_line(fake, graph_bundle: Path) -> None:
    fake.behaviour.devices = 0
    with pytest.raises(EngineError, match="there is an NVIDIA driver, but no device"):
        open_engine("tensorrt", Bundle.open(graph_bundle), "front")
