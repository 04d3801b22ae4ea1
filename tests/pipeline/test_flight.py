"""Frames in flight, without a GPU: in the stead of one, work that is done at once, and a log of what waits for what."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt import Runtime  # noqa: E402
from errseg_rt.bundle.bundle import Bundle  # noqa: E402
from errseg_rt.engines.engine import TensorSpec  # noqa: E402
from errseg_rt.errors import EngineError, FrameError  # noqa: E402
from errseg_rt.frames.frame import Ask  # noqa: E402
from errseg_rt.kernels import Geometry  # noqa: E402
from errseg_rt.options import Limits  # noqa: E402
from errseg_rt.pipeline import open as opening  # noqa: E402
from errseg_rt.pipeline.flight import FRAMES, Flight, Kind  # noqa: E402
from errseg_rt.pipeline.outcome import Outcome  # noqa: E402
from errseg_rt.pipeline.pipeline import Pipeline  # noqa: E402
from errseg_rt.pipeline.plan import Plan  # noqa: E402
from errseg_rt.places.torch_gpu import TorchGpu  # noqa: E402
from tests.places.eager_gpu import EagerGpu  # noqa: E402


class Shade:
    """In the stead of a pipeline: labels are the frame's first channel, and what was left out is the budget."""

    manifest = SimpleNamespace(threshold=0.7)

    def __init__(self, place):
        self.place = place

    def plan(self, size):
        return Plan(Geometry((1, 1), (4, 5), (4, 5), (4, 5), True), (1, 1), 1000)

    def run(self, frame, ask, bounds, marks):
        labels = frame[..., 0].clone()
        grid = torch.zeros((1, 1))
        return Outcome(
            place=self.place, labels=labels, error_probability=grid, flagged=grid > 0,
            counts=torch.zeros(3, dtype=torch.int32), left_out=bounds[0].int(),
            faults=torch.zeros(3, dtype=torch.int32), classes=(), layers=None,
            geometry=Geometry((1, 1), (4, 5), (4, 5), (4, 5), True),
            confidence=labels.float() if ask.confidence else None,
        )  # fmt: skip


@pytest.fixture
def flight():
    return Flight(Shade(EagerGpu()))


ASK, LIMITS = Ask(), Limits(0.7)
KIND = Kind((4, 5), ASK)


def shade(value, size=(4, 5)):
    return np.full((*size, 3), value, np.uint8)


def busy(flight):
    """Make every event of seats one that has not come yet."""
    for seats in flight._seats.values():
        for seat in seats:
            if seat.done is not None:
                seat.done.is_done = False


def test_results_are_the_frames_own(flight):
    frames = []
    for value in range(7):
        frames.append(flight.submit(shade(value), ASK, LIMITS))
        busy(flight)
    for value, under_way in enumerate(frames):
        result = under_way.result()
        assert (result.labels == value).all()
        assert set(result.timings) == {"upload", "compute", "download"}
        assert min(result.timings.values()) > 0


def test_a_seat_that_is_free_is_taken_again_and_there_are_no_more_than_three(flight):
    for value in range(4):
        flight.submit(shade(value), ASK, LIMITS)
    assert flight._gpu.captures == 1
    for value in range(7):
        busy(flight)
        flight.submit(shade(value), ASK, LIMITS)
    assert flight._gpu.captures == FRAMES == len(flight._seats[KIND])


def test_the_host_waits_only_for_the_seat_that_it_takes(flight):
    """For the frame before in it, or, where it is new, for what made it."""
    for value in range(5):
        busy(flight)
        seats = list(flight._seats.get(KIND, []))
        is_new = len(seats) < FRAMES
        oldest = None if is_new else seats[0].done
        flight._gpu.log.clear()
        flight.submit(shade(value), ASK, LIMITS)
        (waited,) = [event for kind, *_, event in flight._gpu.log if kind == "host waits"]
        made = [
            event for kind, stream, event in (each for each in flight._gpu.log if len(each) == 3) if kind == "record"
        ]
        assert waited == (made[0] if is_new else id(oldest))


def test_copies_and_computation_are_on_streams_of_their_own_in_order(flight):
    flight.submit(shade(1), ASK, LIMITS)
    flight._gpu.log.clear()
    flight.submit(shade(2), ASK, LIMITS)
    upload, compute, download = (stream.name for stream in flight._gpu.made[:3])
    assert len({upload, compute, download}) == 3
    order = [entry[:2] for entry in flight._gpu.log]
    assert order.index(("record", upload)) < order.index(("wait", compute)) < order.index(("replay", compute))
    assert order.index(("replay", compute)) < order.index(("wait", download)) < order.index(("record", download))


def test_limits_are_data_that_need_no_new_capture(flight):
    budgets = [None, 0.5, 0.0, 0.25, 1.0, None]
    frames = []
    for budget in budgets:
        frames.append(flight.submit(shade(1), ASK, Limits(0.6, budget)))
        busy(flight)
    found = [frame.result().left_out for frame in frames]
    assert found == [-1 if budget is None else 1000 * budget for budget in budgets]
    assert flight._gpu.captures == FRAMES


def test_a_deadline_becomes_a_budget_by_the_frames_that_are_over(flight):
    first = flight.submit(shade(1), ASK, Limits(0.6, deadline_ms=1e6)).result()
    assert first.work == 1
    took = sum(first.timings.values())
    # All of the dense stage's 1,000 multiply-adds are done in that time, whatever the budget says.
    budgets = [flight.submit(shade(1), ASK, Limits(0.6, deadline_ms=took / 2)).result().left_out for _ in range(3)]
    assert budgets == [500] * 3
    assert flight._gpu.captures == 1
    with pytest.raises(ValueError, match="deadline_ms is learned from results that come to the host"):
        flight.on_device(shade(1), ASK, Limits(0.6, deadline_ms=10))


def test_one_capture_at_a_time_in_a_process():
    """Of whatever runtime: CUDA fails both where two overlap."""
    inside, overlaps = [], []

    class Careful(EagerGpu):
        def capture(self, work):
            overlaps.append(len(inside))
            inside.append(self)
            time.sleep(0.02)
            replay = super().capture(work)
            inside.remove(self)
            return replay

    flights = [Flight(Shade(Careful())) for _ in range(3)]
    threads = [threading.Thread(target=flight.prepare, args=((4, 5),)) for flight in flights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [0] * FRAMES * 3


def test_the_first_upload_of_a_seat_waits_for_the_seats_own_first_runs(flight):
    flight.submit(shade(1), ASK, LIMITS)
    upload, compute, _ = (stream.name for stream in flight._gpu.made[:3])
    made = next(event for kind, stream, event in flight._gpu.log if (kind, stream) == ("record", compute))
    order = [entry for entry in flight._gpu.log if entry in (("wait", upload, made), ("record", upload, entry[-1]))]
    assert order[0] == ("wait", upload, made), "the upload begins before the seat is made"


def test_a_frame_that_is_read_holds_no_events(flight):
    under_way = flight.submit(shade(1), ASK, LIMITS)
    events = [weakref.ref(event) for pair in under_way._marks._steps.values() for event in pair]
    first = under_way.result()
    busy(flight)
    flight._seats.clear()
    gc.collect()
    assert not any(event() for event in events)
    assert under_way.done()
    again = under_way.result()
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.timings == again.timings


def test_events_go_while_the_gpu_is_the_threads():
    """pycuda cannot let go of them otherwise."""
    depths, depth = [], [0]

    class Entered(EagerGpu):
        @contextmanager
        def entered(self):
            depth[0] += 1
            yield
            depth[0] -= 1

        def event(self):
            made = super().event()
            weakref.finalize(made, lambda: depths.append(depth[0]))
            return made

    flight = Flight(Shade(Entered()))
    under_way = flight.submit(shade(1), ASK, LIMITS)
    under_way.result()
    assert len(depths) >= 5  # of upload, computation and download, but for the one that the seat keeps
    assert 0 not in depths


def test_what_fails_in_a_capture_is_what_is_told(monkeypatch):
    """Though ending the capture fails, too."""

    @contextmanager
    def capturing(*given, **how):
        try:
            yield
        except BaseException:
            raise RuntimeError("the capture is invalid") from None

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(EagerGpu, "capture", TorchGpu.capture)
    for error, told in (
        (torch.OutOfMemoryError("CUDA out of memory"), r"cpu has too little memory \(CUDA out of memory\)"),
        (EngineError("the graph takes no such size"), "the graph takes no such size"),
    ):
        runs = []

        def work(error=error, runs=runs):
            runs.append(1)
            if len(runs) == 2:
                raise error

        with pytest.raises(EngineError, match=told):
            EagerGpu().capture(work)


def test_what_computes_a_frame_is_held_until_it_is_read():
    flight = Flight(Shade(EagerGpu()))
    held, under_way = weakref.ref(flight), flight.submit(shade(3), ASK, LIMITS)
    del flight
    gc.collect()
    assert held() is not None
    assert (under_way.result().labels == 3).all()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("as_tensor", [False, True], ids=["from_the_host", "from_the_device"])
def test_on_the_device_the_callers_stream_waits_and_the_host_does_not(flight, as_tensor):
    frames = [torch.from_numpy(shade(value)) if as_tensor else shade(value) for value in (3, 4)]
    results = []
    for frame in frames:
        flight._gpu.log.clear()
        results.append(flight.on_device(frame, ASK, LIMITS))
        assert flight._gpu.log[-1][:2] == ("wait", "caller")
        if as_tensor:
            assert not [entry for entry in flight._gpu.log if entry[0] == "host waits"]
    for value, result in zip((3, 4), results, strict=True):
        assert (result.labels == value).all()
        assert isinstance(result, Outcome)


def test_kinds_have_seats_of_their_own_and_old_ones_are_forgotten(flight):
    kinds = [Kind((4, 5), Ask(confidence=confidence)) for confidence in (False, True)]
    kinds += [Kind((side, 5), ASK) for side in (6, 7, 8)]
    for kind in kinds:
        result = flight.submit(shade(9, kind.size), kind.ask, LIMITS).result()
        assert result.labels.shape == kind.size
        assert (result.confidence is not None) == kind.ask.confidence
    assert list(flight._seats) == kinds[1:]


def test_scratch_of_forgotten_kinds_goes_with_their_graphs(monkeypatch):
    """Torch gives a pool back when the last graph in it is gone, and until then keeps what it had for any size."""
    pools = weakref.WeakSet()

    class Pool:
        def __init__(self):
            pools.add(self)

    class Graph:
        def replay(self):
            pass

    @contextmanager
    def capturing(graph, pool, stream, capture_error_mode):
        graph.pool = pool
        yield

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", Pool)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(EagerGpu, "capture", TorchGpu.capture)
    flight = Flight(Shade(EagerGpu()))
    gc.freeze()  # what was there before holds no pool; to look through all that torch has made takes a second
    try:
        for number in range(50):
            flight.submit(shade(number, (4, 5 + number)), ASK, LIMITS).result()
            gc.collect()
            assert len(pools) == 1 if number < 4 else len(pools) <= 4
    finally:
        gc.unfreeze()


def test_preparing_makes_all_seats(flight):
    flight.prepare((4, 5))
    assert flight._gpu.captures == FRAMES
    for value in range(5):
        busy(flight)
        flight.submit(shade(value), ASK, LIMITS)
    assert flight._gpu.captures == FRAMES


def test_threads_share_it(flight):
    wrong = []

    def work(value):
        results = (flight.submit(shade(value), ASK, LIMITS).result() for _ in range(20))
        wrong.extend(value for result in results if not (result.labels == value).all())

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_too_little_memory_is_one_clear_line(flight, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(EngineError, match="has too little memory \\(CUDA out of memory\\); take the precision fp16"):
        flight.submit(shade(1), ASK, LIMITS)


@pytest.mark.parametrize("kind", ["empty", "zeros", "lasting"])
def test_too_little_memory_for_any_array(monkeypatch, kind):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(EngineError, match=r"cpu has too little memory \(CUDA out of memory\)"):
        getattr(EagerGpu(), kind)((4, 5), "float16")


@pytest.fixture
def on_no_gpu(monkeypatch):
    """`Runtime(device="cuda")` with real engines, but no kernels: labels are the frame's first channel."""
    monkeypatch.setattr(opening, "open_gpu", lambda index, **how: EagerGpu())

    def run(pipeline, frame, ask, bounds, marks):
        grid = (2, 3)
        layers = None if pipeline.refinement.detail == "dense" else pipeline.refinement.layers
        return Outcome(
            place=pipeline.place, labels=frame[..., 0].clone(), error_probability=torch.zeros(grid),
            flagged=torch.ones(grid) > 0, counts=torch.tensor([6, 6, 6], dtype=torch.int32),
            left_out=torch.tensor(2, dtype=torch.int32), classes=pipeline.manifest.classes,
            faults=torch.tensor([0, 0, frame[0, 0, 0] == 13], dtype=torch.int32),
            geometry=Geometry(grid, (8, 12), (8, 12), tuple(frame.shape[:2]), False), layers=layers,
            semantic_labels=frame[..., 1].clone() if ask.semantic else None,
        )  # fmt: skip

    monkeypatch.setattr(Pipeline, "run", run)
    return Runtime


@pytest.mark.parametrize("detail", [None, "dense"])
def test_a_runtime_on_a_gpu(on_no_gpu, detail):
    frames = [np.random.default_rng(seed).integers(20, 99, (9, 11, 3), np.uint8) for seed in range(5)]
    with on_no_gpu(engine="torch", device="cuda", detail=detail) as runtime:
        assert runtime.detail == (detail or "sparse")
        runtime.warm_up((9, 11))
        under_way = [runtime.submit(frame) for frame in frames]
        for frame, each in zip(frames, under_way, strict=True):
            assert each.done()
            np.testing.assert_array_equal(each.result().labels, frame[..., 0])
        result = runtime.segment(frames[0][:, ::-1], semantic=True)
        np.testing.assert_array_equal(result.semantic_labels, frames[0][:, ::-1, 1])
        assert (result.refined, result.left_out, result.work) == (6, 2, 1.0)
        stayed = runtime.segment_on_device(torch.from_numpy(frames[1]))
        assert torch.equal(stayed.labels, torch.from_numpy(frames[1][..., 0]))
        assert stayed.cpu().timings == {}


def test_values_that_are_not_finite_are_found_on_the_host(on_no_gpu):
    frame = np.full((4, 5, 3), 13, np.uint8)
    with on_no_gpu(engine="torch", device="cuda") as runtime:
        under_way, stayed = runtime.submit(frame), runtime.segment_on_device(frame)
        for read in (under_way.result, stayed.cpu):
            with pytest.raises(
                EngineError, match="the detail branch gave values that are not finite: in fp16, take bf16"
            ):
                read()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "a frame is uint8, got float32"),
        (torch.zeros((4, 5, 4), dtype=torch.uint8), r"a frame is \[H, W, 3\], got \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), "has no pixels"),
        ("street.png", "a NumPy array or a CUDA tensor uint8 .*, got str"),
    ],
)
def test_frames_that_are_none(on_no_gpu, frame, message):
    with on_no_gpu(engine="torch", device="cuda") as runtime:
        for call in (runtime.segment, runtime.submit, runtime.segment_on_device, runtime.branches):
            with pytest.raises(FrameError, match=message):
                call(frame)
        with pytest.raises(ValueError, match="color must be 'bgr' or 'rgb', got 'hsv'"):
            runtime.segment(np.zeros((4, 5, 3), np.uint8), color="hsv")


class Shapes:
    """An engine that makes tensors of the right shape, and computes nothing."""

    def __init__(self, **shapes):
        self.shapes = shapes
        specs = {name: "float32" if name == "error_logit" else "float16" for name in shapes}
        self.outputs = {name: TensorSpec(dtype, (1, *shapes[name])) for name, dtype in specs.items()}
        self.inputs = {name: TensorSpec("float16", ()) for name in ("image",)}

    def run(self, feeds):
        made = {name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype)) for name, spec in self.outputs.items()}
        if "low" in made:
            made["low"] = made["low"].to(memory_format=torch.channels_last)
        return made


class Idle(EagerGpu):
    def launch(self, launch):
        pass


@pytest.mark.parametrize("detail", ["sparse", "dense"])
def test_shapes_of_a_whole_frame(detail):
    """Whatever the kernels write."""
    bundle, grid = Bundle.open("camvid"), (137, 241)
    width = bundle.manifest.cascade["detail_width"]
    manifest = replace(bundle.manifest, input=replace(bundle.manifest.input, scale=1.0))
    front = Shapes(
        logits=(11, *grid), error_logit=(1, *grid), low=(24, *grid), coarse=(width, 69, 121), gate=(width, 1, 1)
    )
    stage3 = Shapes(detail_logits=(11, *grid))
    stage3.inputs = {name: TensorSpec("float16", ()) for name in ("logits", "low", "coarse", "gate")}
    made = Pipeline(replace(bundle, manifest=manifest), front, stage3, Idle(), detail=detail)
    frame, bounds = torch.empty((540, 960, 3), dtype=torch.uint8), torch.tensor([10**6, 0])
    results = made.run(frame, Ask(confidence=True, semantic=True), bounds, made.place.marks())
    found = {name: (str(x.dtype), tuple(x.shape)) for name, x in results.arrays().items()}
    frame = (540, 960)
    assert found == {
        "labels": ("torch.uint8", frame), "semantic_labels": ("torch.uint8", frame),
        "confidence": ("torch.float32", frame), "error_probability": ("torch.float32", grid),
        "semantic_error_probability": ("torch.float32", grid),
        "flagged": ("torch.bool", grid), "counts": ("torch.int32", (3,)), "left_out": ("torch.int32", ()),
        "faults": ("torch.int32", (3,)),
    }  # fmt: skip
