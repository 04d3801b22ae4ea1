"""The whole frame on a device, in Triton's interpreter, against the runtime on the CPU, and frames in flight."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton

from errseg_rt import Runtime
from errseg_rt.bundle import Bundle
from errseg_rt.calibration import Calibration
from errseg_rt.device.cascade import DeviceCascade, calibrated
from errseg_rt.device.flight import FRAMES, Flight, Request
from errseg_rt.device.segmentation import DeviceSegmentation
from errseg_rt.engines import open_device_engine
from errseg_rt.errors import EngineError
from errseg_rt.kernels import Geometry
from errseg_rt.kernels.fuse_labels import gpu as fuse_gpu
from errseg_rt.kernels.preprocess import gpu as preprocess_gpu
from errseg_rt.kernels.refine import gpu as refine_gpu
from errseg_rt.kernels.select import gpu as select_gpu
from errseg_rt.scenes import StreetScene

assert triton.knobs.runtime.interpret
CPU = torch.device("cpu")
SIZE = (75, 107)
T = 0.9  # flags a third of these small frames


@pytest.fixture(autouse=True)
def wide_tiles(monkeypatch):
    """Widen tiles for the interpreter, whose time goes by program."""
    monkeypatch.setattr(fuse_gpu, "CELLS", 4096)
    monkeypatch.setattr(preprocess_gpu, "PIXELS", 1 << 14)
    monkeypatch.setattr(select_gpu, "PIXELS", 1024)
    for name in ("SMALL", "FLOAT32"):
        monkeypatch.setattr(refine_gpu, name, refine_gpu.Tile(1024, 64, 160, 4, 3))
    monkeypatch.setattr(refine_gpu, "MOVED_PIXELS", 1024)


@pytest.fixture(scope="module")
def frame():
    return StreetScene(7, *SIZE).frame(0).frame


def bundle(scale=1.0):
    """The embedded one, for frames as they are: OpenCV rounds what it resizes to whole levels, the GPU does not."""
    embedded = Bundle.open("camvid")
    spec = replace(embedded.manifest.input, scale=scale, enlarge_up_to=0)
    return replace(embedded, manifest=replace(embedded.manifest, input=spec))


def cascade(precision="fp32", *, detail="sparse", budget=None, threshold=T, scale=1.0):
    opened = bundle(scale)
    front, stage3 = (
        open_device_engine("torch", opened, graph, device=CPU, precision=precision) for graph in ("front", "refine")
    )
    return DeviceCascade(opened, front, stage3, device=CPU, threshold=threshold, detail=detail, budget=budget)


def on_the_cpu(**options):
    return Runtime(bundle(), engine="torch", threshold=T, **options)


def same_but_for_ties(ours, theirs):
    """Logits differ in rounding: no pixel of these small frames is that near to a tie, or to t."""
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.flagged, theirs.flagged)
    np.testing.assert_allclose(ours.error_probability, theirs.error_probability, rtol=0, atol=1e-3)
    assert ours.left_out == theirs.left_out
    assert ours.geometry == theirs.geometry


@pytest.mark.parametrize("detail", ["sparse", "dense"])
def test_is_the_runtime_on_the_cpu(frame, detail):
    results = cascade(detail=detail).run(torch.from_numpy(frame), confidence=True, semantic=True)
    assert isinstance(results, DeviceSegmentation)
    ours = results.cpu()
    with on_the_cpu(detail=detail) as runtime:
        theirs = runtime.segment(frame, confidence=True, semantic=True)
    assert 0 < theirs.refined < 0.9 * theirs.flagged.size
    same_but_for_ties(ours, theirs)
    assert ours.work == theirs.work
    np.testing.assert_array_equal(ours.semantic_labels, theirs.semantic_labels)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-3)
    assert (ours.labels.dtype, ours.labels.shape) == (np.uint8, SIZE)


def test_a_budget_binds_on_the_device(frame):
    with on_the_cpu(budget=0.2) as runtime:
        theirs = runtime.segment(frame)
    ours = cascade(budget=0.2).run(torch.from_numpy(frame)).cpu()
    same_but_for_ties(ours, theirs)
    assert ours.left_out > 0
    assert ours.work == theirs.work <= 0.2
    none = cascade(budget=0.0).run(torch.from_numpy(frame)).cpu()
    assert (none.refined, none.work) == (0, 0)


def test_half_precision(frame):
    """float16 end to end. (The interpreter's products of bfloat16 are wrong.)"""
    with on_the_cpu() as runtime:
        theirs = runtime.segment(frame)
    ours = cascade("fp16").run(torch.from_numpy(frame)).cpu()
    assert (ours.labels == theirs.labels).mean() > 0.99
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.01


def test_colors_and_strides(frame):
    ran = cascade()
    wanted = ran.run(torch.from_numpy(frame)).labels
    rgb = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1]))
    planes = rgb.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert torch.equal(ran.run(planes, color="rgb").labels, wanted)


def test_branches_are_those_of_the_cpu(frame):
    ours = cascade().branches(torch.from_numpy(frame))
    with on_the_cpu() as runtime:
        theirs = runtime.branches(frame)
        scaled = runtime.branches(frame, scale=1.5)
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=2e-3)
    assert cascade().branches(torch.from_numpy(frame), scale=1.5).geometry == scaled.geometry


def test_a_frame_that_the_bundle_enlarges(frame):
    ours = cascade(scale=1.5).run(torch.from_numpy(frame)).cpu()
    with Runtime(bundle(1.5), engine="torch", threshold=T) as runtime:
        theirs = runtime.segment(frame)
    assert ours.geometry == theirs.geometry
    # Inputs differ by up to a level.
    assert (ours.labels == theirs.labels).mean() > 0.95
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.02


def test_values_that_are_not_finite_name_their_branch(frame):
    ran = cascade()
    engine = ran._front
    for name, branch in (("logits", "semantic"), ("error_logit", "error-prediction")):

        class Broken:
            inputs, outputs = engine.inputs, engine.outputs

            def run_on_device(self, feeds, name=name):
                outputs = dict(engine.run_on_device(feeds))
                outputs[name] = outputs[name].clone()
                outputs[name][..., 3, 4] = torch.inf
                return outputs

        ran._front = Broken()
        results = ran.run(torch.from_numpy(frame))
        with pytest.raises(EngineError, match=f"the {branch} branch.* gave logits that are not finite; .*'bf16'"):
            results.cpu()
        with pytest.raises(EngineError, match=f"the {branch} branch gave logits that are not finite"):
            ran.branches(torch.from_numpy(frame))


@pytest.mark.parametrize("knots", [((0.5,), (0.3,)), ((-3.0, 0.1, 0.2, 4.0), (0.0, 0.1, 0.8, 0.9))], ids=["1", "4"])
def test_error_probabilities_are_those_of_the_host(knots):
    error_logit = np.random.default_rng(0).normal(scale=4, size=(9, 13)).astype(np.float32)
    ours = calibrated(torch.from_numpy(error_logit), torch.tensor(knots))
    np.testing.assert_allclose(ours.numpy(), Calibration(*knots)(error_logit), rtol=0, atol=1e-6)
    assert ours.dtype == torch.float32


class Event:
    """Marks a place in the log of a GPU that does everything at once."""

    def __init__(self, gpu):
        self.gpu, self.at, self.is_done = gpu, None, True

    def record(self, stream):
        self.at = len(self.gpu.log)
        self.gpu.log.append(("record", stream.name, id(self)))

    def synchronize(self):
        assert self.at is not None
        self.gpu.log.append(("host waits", id(self)))

    def query(self):
        return self.is_done

    def elapsed_time(self, other):
        assert other.at > self.at
        return float(other.at - self.at)


class Stream:
    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def wait_event(self, event):
        assert event.at is not None, "waits for an event that was never recorded"
        self.gpu.log.append(("wait", self.name, id(event)))

    def wait_stream(self, stream):
        self.gpu.log.append(("wait for", self.name, stream.name))


class EagerGpu:
    """In the stead of a GPU: work is done when it is enqueued, and replayed by being done again."""

    device = CPU

    def __init__(self):
        self.log, self.made, self.captures = [], [], 0
        self.here = self.active = Stream(self, "caller")

    def stream(self):
        self.made.append(Stream(self, f"stream {len(self.made)}"))
        return self.made[-1]

    def current(self):
        return self.here

    @contextmanager
    def on(self, stream):
        before, self.active = self.active, stream
        yield
        self.active = before

    def event(self):
        return Event(self)

    def pinned(self, shape, dtype):
        return torch.empty(shape, dtype=dtype)

    def capture(self, work):
        self.captures += 1
        work()

        def replay():
            self.log.append(("replay", self.active.name))
            work()

        return replay


class Shade:
    """In the stead of a cascade: labels are the frame's first channel."""

    def __init__(self):
        self.runs = 0

    def run(self, frame, *, color, confidence, semantic):
        self.runs += 1
        labels = frame[..., 0].clone()
        grid = torch.zeros((1, 1))
        return DeviceSegmentation(
            labels=labels, error_probability=grid, flagged=grid > 0, counts=torch.zeros(3, dtype=torch.int32),
            left_out=torch.zeros((), dtype=torch.int32), is_finite=torch.ones(3, dtype=torch.bool), classes=(),
            geometry=None, row_work=None, confidence=labels.float() if confidence else None,
        )  # fmt: skip


@pytest.fixture
def flight(monkeypatch):
    geometry = Geometry((1, 1), (4, 5), (4, 5), (4, 5), True)
    made = Flight(Shade(), EagerGpu())
    run = made._cascade.run

    def with_geometry(*arguments, **options):
        return replace(run(*arguments, **options), geometry=geometry)

    made._cascade.run = with_geometry
    return made


REQUEST = Request(4, 5, "bgr", False, False)


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
        frames.append(flight.submit(shade(value), REQUEST))
        busy(flight)
    for value, under_way in enumerate(frames):
        result = under_way.result()
        assert (result.labels == value).all()
        assert set(result.timings) == {"upload", "compute", "download"}
        assert min(result.timings.values()) > 0


def test_a_seat_that_is_free_is_taken_again_and_there_are_no_more_than_three(flight):
    for value in range(4):
        flight.submit(shade(value), REQUEST)
    assert flight._gpu.captures == 1
    for value in range(7):
        busy(flight)
        flight.submit(shade(value), REQUEST)
    assert flight._gpu.captures == FRAMES == len(flight._seats[REQUEST])


def test_the_host_waits_only_for_the_seat_that_it_takes(flight):
    seats = []
    for value in range(5):
        busy(flight)
        oldest = flight._seats[REQUEST][0].done if len(flight._seats.get(REQUEST, [])) == FRAMES else None
        flight._gpu.log.clear()
        flight.submit(shade(value), REQUEST)
        seats.append(oldest)
        waited = [entry for entry in flight._gpu.log if entry[0] == "host waits"]
        assert waited == ([] if oldest is None else [("host waits", id(oldest))])
    assert seats[:3] == [None] * 3
    assert None not in seats[3:]


def test_copies_and_computation_are_on_streams_of_their_own_in_order(flight):
    flight.submit(shade(1), REQUEST)
    flight._gpu.log.clear()
    flight.submit(shade(2), REQUEST)
    upload, compute, download = (stream.name for stream in flight._gpu.made[:3])
    assert len({upload, compute, download}) == 3
    order = [entry[:2] for entry in flight._gpu.log]
    assert order.index(("record", upload)) < order.index(("wait", compute)) < order.index(("replay", compute))
    assert order.index(("replay", compute)) < order.index(("wait", download)) < order.index(("record", download))


@pytest.mark.parametrize("as_tensor", [False, True], ids=["from_the_host", "from_the_device"])
def test_on_the_device_the_callers_stream_waits_and_the_host_does_not(flight, as_tensor):
    frames = [torch.from_numpy(shade(value)) if as_tensor else shade(value) for value in (3, 4)]
    results = []
    for frame in frames:
        flight._gpu.log.clear()
        results.append(flight.run_on_device(frame, REQUEST))
        assert flight._gpu.log[-1][:2] == ("wait", "caller")
        if as_tensor:
            assert not [entry for entry in flight._gpu.log if entry[0] == "host waits"]
    for value, result in zip((3, 4), results, strict=True):
        assert (result.labels == value).all()
        assert isinstance(result, DeviceSegmentation)


def test_kinds_have_seats_of_their_own_and_old_ones_are_forgotten(flight):
    requests = [Request(4, 5, "bgr", confidence, False) for confidence in (False, True)]
    requests += [Request(side, 5, "bgr", False, False) for side in (6, 7, 8)]
    for request in requests:
        result = flight.submit(shade(9, (request.height, 5)), request).result()
        assert result.labels.shape == (request.height, 5)
        assert (result.confidence is not None) == request.confidence
    assert list(flight._seats) == requests[1:]


def test_preparing_makes_all_seats(flight):
    flight.prepare(REQUEST)
    assert flight._gpu.captures == FRAMES
    for value in range(5):
        busy(flight)
        flight.submit(shade(value), REQUEST)
    assert flight._gpu.captures == FRAMES


def test_threads_share_it(flight):
    wrong = []

    def work(value):
        results = (flight.submit(shade(value), REQUEST).result() for _ in range(20))
        wrong.extend(value for result in results if not (result.labels == value).all())

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_too_little_memory_is_one_clear_line(flight):
    def full(work):
        raise torch.OutOfMemoryError("CUDA out of memory")

    flight._gpu.capture = full
    with pytest.raises(EngineError, match="too little memory for a frame of 4x5: CUDA out of memory"):
        flight.submit(shade(1), REQUEST)
