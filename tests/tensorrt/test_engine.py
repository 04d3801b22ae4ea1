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
from errseg_rt.kernels.refine.launches import is_channels_last
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
def test_memory_is_the_frames_and_lies_where_it_lay(opened, fake, graph_bundle: Path, precision: str) -> None:
    engine, gpu = opened(precision=precision)
    small, large = image(graph_bundle, 65, 97), image(graph_bundle, 129, 193)

    def frame(given: DeviceArray) -> dict[str, DeviceArray]:
        gpu.begin()
        return run((engine, gpu), image=given)

    outputs = frame(small)
    height, width = (-(-side // 4) for side in small.shape[2:])
    assert outputs["logits"].shape == (1, 11, height, width)
    once = list(gpu.allocated)
    assert sorted(once) == sorted([1000, *(array.size for array in outputs.values())])
    again = frame(small)
    assert {name: each.address for name, each in again.items()} == {
        name: each.address for name, each in outputs.items()
    }
    assert gpu.allocated == once
    frame(large)  # takes the place of what is too small
    twice = list(gpu.allocated)
    for each in (small, large, small):
        frame(each)
    assert gpu.allocated == twice
    assert len(fake.Context.made) == 2


@pytest.mark.parametrize(("precision", "is_packed"), [("fp32", False), ("fp16", True), ("bf16", True)])
def test_low_lies_by_pixel_where_two_bytes_make_a_channel(opened, graph_bundle, precision: str, is_packed) -> None:
    """As refinement reads it: what the front graph gives is taken by the refine graph, and by no other layout."""
    front, stage3 = opened(precision=precision), opened("refine", precision)
    outputs = run(front, image=image(graph_bundle, 65, 97))
    _, channels, height, width = outputs["low"].shape
    packed = (channels * height * width, 1, channels * width, channels)
    assert outputs["low"].stride() == (packed if is_packed else (*packed[:1], height * width, width, 1))
    assert is_channels_last(outputs["low"][0]) == is_packed
    assert outputs["logits"].is_contiguous()
    feeds = {name: outputs[name] for name in stage3[0].inputs}
    run(stage3, **feeds)
    other = DeviceArray(feeds["low"].address, feeds["low"].shape, feeds["low"].dtype, None)
    if not is_packed:
        other = other.permute(0, 1, 3, 2)
    with pytest.raises(EngineError, match=f"low must be contiguous .*{'by pixel' if is_packed else 'float32'}, got"):
        run(stage3, **{**feeds, "low": other})


def by_pixels(shapes: dict[str, tuple[int, ...]]) -> int:
    """Scratch that grows with the frame."""
    return 4 * max(shape[-2] * shape[-1] for shape in shapes.values())


def test_front_and_refine_share_one_workspace_which_grows(opened, fake, graph_bundle: Path) -> None:
    """It is given anew before each run, and lies where it lay unless more is needed."""
    fake.behaviour.scratch = by_pixels
    front, gpu = opened()
    refine, _ = opened("refine")
    refine._gpu = gpu
    given, execute = [], fake.Context.execute_async_v3

    def noted(self, stream: int) -> bool:
        given.append(self.memory)
        return execute(self, stream)

    fake.Context.execute_async_v3 = noted
    for size in ((65, 97), (129, 193), (65, 97)):
        outputs = run((front, gpu), image=image(graph_bundle, *size))
        run((refine, gpu), **{name: outputs[name] for name in refine.inputs})
    addresses, sizes = zip(*given, strict=True)
    assert addresses[0] == addresses[1] != addresses[2] == addresses[3] == addresses[4] == addresses[5]
    assert sizes[0] == sizes[4] < sizes[2]


SIZES = [(72 + 8 * (index % 7), 104 + 8 * index) for index in range(50)]


def test_shapes_that_come_and_go_leave_nothing(fake, graph_bundle: Path) -> None:
    """On an engine alone, as `branches` uses it: nothing captures, and nobody says which shapes are over."""
    fake.behaviour.scratch = by_pixels
    bundle, gpu = Bundle.open(graph_bundle), LiveGpu()
    build_engine(bundle, BuildOptions("tensorrt", "fp16", Profile.parse("65x97..160x520")))
    engine = open_engine(bundle, "front", Options("tensorrt"), gpu)
    fake.Context.made = Forgetful()
    for size in SIZES:
        gpu.begin()
        run((engine, gpu), image=image(graph_bundle, *size))
    gpu.begin()
    given = image(graph_bundle, 160, 520)
    largest = sum(each.size for each in run((engine, gpu), image=given).values()) + by_pixels({"image": given.shape})
    gc.collect()
    assert len(fake.Context.alive) <= 4
    assert gpu.live <= largest


def test_shapes_that_take_turns_make_no_context_anew(opened, fake, graph_bundle: Path) -> None:
    front = opened()
    for _ in range(5):
        for size in ((65, 97), (80, 97), (80, 120), (96, 160)):
            run(front, image=image(graph_bundle, *size))
    assert len(fake.Context.made) == 4


@pytest.mark.parametrize("detail", [None, "dense"])
def test_frames_of_fifty_sizes_take_no_more_memory_than_the_last_few(fake, graph_bundle, monkeypatch, detail) -> None:
    build_engine(Bundle.open(graph_bundle), BuildOptions("tensorrt", "fp16", Profile.parse("65x97..160x520")))
    fake.Context.made, fake.behaviour.scratch = Forgetful(), by_pixels

    def held_after(sizes: list[tuple[int, int]]) -> int:
        """Bytes on the GPU and of pinned memory."""
        gpu = LiveGpu()
        monkeypatch.setattr("errseg_rt.pipeline.open.open_gpu", lambda index, **how: gpu)
        with Runtime(graph_bundle, "tensorrt", detail=detail) as runtime:
            for height, width in sizes:
                under_way = [runtime.submit(np.zeros((height, width, 3), np.uint8)) for _ in range(2)]
                assert [each.result().labels.shape for each in under_way] == [(height, width)] * 2
            del under_way
            gc.collect()
            # Front and refine: the latest, and those that the four kinds of frames hold that are kept.
            assert len(fake.Context.alive) <= 2 * 4
            held = gpu.live
        gc.collect()
        assert len(fake.Context.alive) == 0
        return held

    assert held_after(SIZES) <= 1.1 * held_after(SIZES[-8:])


def test_what_is_replayed_keeps_its_context(fake, graph_bundle: Path, monkeypatch) -> None:
    """However many shapes the engine has seen since."""
    gpu = LiveGpu()
    build_engine(Bundle.open(graph_bundle), BuildOptions("tensorrt", "fp16", Profile.parse("65x97..160x520")))
    monkeypatch.setattr("errseg_rt.pipeline.open.open_gpu", lambda index, **how: gpu)
    monkeypatch.setattr("errseg_rt.pipeline.pipeline.check_finite", lambda *given: None)  # nothing is computed
    fake.Context.made, fake.behaviour.scratch = Forgetful(), by_pixels
    with Runtime(graph_bundle, "tensorrt") as runtime:
        runtime.segment(np.zeros((72, 104, 3), np.uint8))
        first, workspace = set(fake.Context.alive), weakref.ref(gpu._workspace.owner)
        for height, width in SIZES:
            runtime.branches(np.zeros((height, width, 3), np.uint8))
        gc.collect()
        assert first <= set(fake.Context.alive)
        assert workspace() is not None
        assert workspace() is not gpu._workspace.owner, "larger frames need more"
        made = []
        monkeypatch.setattr(fake.CudaEngine, "create_execution_context", lambda *given: made.append(given))
        runtime.segment(np.zeros((72, 104, 3), np.uint8))
        assert not made


class LiveGpu(HostGpu):
    """Counts bytes that somebody holds, pinned ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0

    def _allocate(self, size: int):
        address, block = super()._allocate(size)
        self._count(block)
        return address, block

    def _allocate_pinned(self, size: int):
        return self._count(super()._allocate_pinned(size))

    def _count(self, block: np.ndarray) -> np.ndarray:
        self.live += block.size
        weakref.finalize(block, self._gone, block.size)
        return block

    def _gone(self, size: int) -> None:
        self.live -= size


class Forgetful(list):
    """In the stead of the fake's list, which holds every context."""

    def append(self, item: object) -> None:
        pass


def test_everything_is_bound_by_name_on_the_streams_context(opened, fake, graph_bundle: Path) -> None:
    given = image(graph_bundle, 65, 97)
    outputs = run(opened(), image=given)
    (context,) = fake.Context.made
    ((stream, addresses),) = context.runs
    assert stream == STREAM
    assert context.profile == (0, STREAM)
    assert addresses == {name: array.address for name, array in {"image": given, **outputs}.items()}
    assert len({*addresses.values(), context.memory[0]}) == 7, "they lie over one another"


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
