"""Frames in flight, without a GPU: in the stead of one, work that is done at once, and a log of what waits for what."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt import Runtime  # noqa: E402
from errseg_rt.bundle.bundle import Bundle  # noqa: E402
from errseg_rt.engines import DeviceSpec  # noqa: E402
from errseg_rt.errors import EngineError, FrameError  # noqa: E402
from errseg_rt.kernels import Geometry  # noqa: E402
from errseg_rt.pipeline import device_runtime  # noqa: E402
from errseg_rt.pipeline.flight import FRAMES, Flight, Request  # noqa: E402
from errseg_rt.pipeline.outcome import DeviceSegmentation  # noqa: E402
from errseg_rt.pipeline.pipeline import DeviceCascade  # noqa: E402
from tests.places.eager_gpu import EagerGpu  # noqa: E402


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
            left_out=torch.zeros((), dtype=torch.int32), faults=torch.zeros(3, dtype=torch.int32), classes=(),
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


def test_too_little_memory_is_one_clear_line(flight, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(EngineError, match="cpu has too little memory \\(CUDA out of memory\\); take precision='fp16'"):
        flight.submit(shade(1), REQUEST)


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
    monkeypatch.setattr(device_runtime, "open_gpu", lambda *which: EagerGpu())

    def run(cascade, frame, *, color, confidence, semantic):
        grid = (2, 3)
        geometry = Geometry(grid, (8, 12), (8, 12), tuple(frame.shape[:2]), False)
        row_work = None if cascade._weights is None else cascade._weights.host.row_work
        return DeviceSegmentation(
            labels=frame[..., 0].clone(), error_probability=torch.zeros(grid), flagged=torch.ones(grid) > 0,
            counts=torch.tensor([6, 6, 6], dtype=torch.int32), left_out=torch.tensor(2, dtype=torch.int32),
            faults=torch.tensor([0, 0, frame[0, 0, 0] == 13], dtype=torch.int32), classes=cascade.manifest.classes,
            geometry=geometry, row_work=row_work, semantic_labels=frame[..., 1].clone() if semantic else None,
        )  # fmt: skip

    monkeypatch.setattr(DeviceCascade, "run", run)
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
                EngineError, match="the detail branch gave logits that are not finite; use precision='bf16'"
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
        self.outputs = {name: DeviceSpec(dtype, (1, *shapes[name])) for name, dtype in specs.items()}
        self.inputs = {name: DeviceSpec("float16", ()) for name in ("image",)}

    def run_on_device(self, feeds):
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
    bundle, grid = Bundle.open("camvid"), (136, 240)
    width = bundle.manifest.cascade["detail_width"]
    manifest = replace(bundle.manifest, input=replace(bundle.manifest.input, scale=1.0))
    front = Shapes(
        logits=(11, *grid), error_logit=(1, *grid), low=(24, *grid), coarse=(width, 68, 120), gate=(width, 1, 1)
    )
    stage3 = Shapes(detail_logits=(11, *grid))
    stage3.inputs = {name: DeviceSpec("float16", ()) for name in ("logits", "low", "coarse", "gate")}
    made = DeviceCascade(
        replace(bundle, manifest=manifest), front, stage3, gpu=Idle(), threshold=0.7, detail=detail,
        budget=0.1 if detail == "sparse" else None,
    )  # fmt: skip
    results = made.run(torch.empty((540, 960, 3), dtype=torch.uint8), confidence=True, semantic=True)
    found = {name: (str(x.dtype), tuple(x.shape)) for name, x in results.arrays().items()}
    frame = (540, 960)
    assert found == {
        "labels": ("torch.uint8", frame), "semantic_labels": ("torch.uint8", frame),
        "confidence": ("torch.float32", frame), "error_probability": ("torch.float32", grid),
        "flagged": ("torch.bool", grid), "counts": ("torch.int32", (3,)), "left_out": ("torch.int32", ()),
        "faults": ("torch.int32", (3,)),
    }  # fmt: skip
