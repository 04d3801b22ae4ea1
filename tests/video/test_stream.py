"""Streams over a runtime that answers by numbers: order, policies, errors, ends."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from errseg_rt import Runtime
from errseg_rt.errors import EngineError, FrameError, SourceError
from errseg_rt.options import Options
from errseg_rt.video.given import IterableSource, Paced
from errseg_rt.video.picture import Faults, Picture
from errseg_rt.video.stream import Stream


class Answers:
    """Stands for a runtime: each frame takes its time, and the answer is its number."""

    def __init__(self, seconds=0.0, options: Options | None = None, bad: int | None = None) -> None:
        self.options = options or Options(threads=1)
        self.bad = bad
        self.seconds, self.asked, self.busy, self.most = seconds, [], 0, 0
        self._lock = threading.Lock()

    def segment(self, frame, **asked):
        with self._lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
            self.asked.append(asked)
        time.sleep(self.seconds(int(frame[0, 0, 0])) if callable(self.seconds) else self.seconds)
        with self._lock:
            self.busy -= 1
        if frame[0, 0, 0] == self.bad:
            raise FrameError("number 13 is no frame")
        return SimpleNamespace(number=int(frame[0, 0, 0]), timings={"front": 1.0})


def frames(count: int, apart: float = 0.04):
    return IterableSource([(np.full((2, 2, 3), index % 256, np.uint8), index * apart) for index in range(count)])


class Live:
    """A camera that gives a frame whenever it is told to, and holds its reader in between."""

    name, is_live, fps, length, state = "live", True, None, None, "connected"

    def __init__(self) -> None:
        self.faults = Faults()
        self._given, self._is_there = [], threading.Condition()

    def give(self, *numbers: int) -> None:
        with self._is_there:
            self._given += numbers
            self._is_there.notify_all()
            self._is_there.wait_for(lambda: not self._given, timeout=5)

    def pictures(self, stop):
        index = 0
        while not stop.is_set():
            with self._is_there:
                if not self._is_there.wait_for(lambda: self._given, timeout=0.01):
                    continue
                number = self._given.pop(0)
                self._is_there.notify_all()
            yield Picture(np.full((2, 2, 3), number, np.uint8), index, float(index), time.time())
            index += 1


def threads() -> int:
    return sum(thread.name == "errseg-stream" for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_all_frames_come_in_their_order_whoever_is_first(workers) -> None:
    runtime = Answers(lambda number: 0.02 if number % 3 == 0 else 0.0)
    with Stream(runtime, frames(12), workers=workers) as stream:
        shots = list(stream)
    assert [shot.result.number for shot in shots] == list(range(12))
    assert [shot.index for shot in shots] == list(range(12))
    assert [shot.timestamp for shot in shots] == pytest.approx([0.04 * index for index in range(12)])
    assert {(shot.dropped, shot.captured_at, shot.latency) for shot in shots} == {(0, None, None)}
    assert runtime.most <= workers
    stats = stream.stats
    assert (stats.read, stats.segmented, stats.dropped, stats.state) == (12, 12, 0, "ended")
    assert set(stats.milliseconds) == {"read", "front"}
    assert threads() == 0


def test_workers_are_those_that_there_are_cores_for(monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.options.usable_cores", lambda: 8)
    assert Stream(Answers(options=Options(threads=2)), frames(1)).workers == 4
    assert Stream(Answers(options=Options(threads=16)), frames(1)).workers == 1
    assert Stream(Answers(options=Options("torch", device="cuda")), frames(1)).workers == 3


def test_the_latest_frame_is_taken_and_the_others_are_dropped() -> None:
    gate = threading.Event()

    class Gated(Answers):
        def segment(self, frame, **asked):
            gate.wait(5)
            return super().segment(frame, **asked)

    camera = Live()
    with Stream(Gated(), camera, workers=1) as stream:
        camera.give(0)
        while stream._inbox:  # until it is taken
            time.sleep(0.001)
        camera.give(1, 2, 3)
        while stream.stats.dropped < 2:
            time.sleep(0.001)
        gate.set()
        first, second = next(stream), next(stream)
    assert [(shot.result.number, shot.dropped) for shot in (first, second)] == [(0, 0), (3, 2)]
    assert second.latency is not None
    assert second.latency >= 0
    assert (stream.stats.read, stream.stats.segmented, stream.stats.dropped) == (4, 2, 2)
    assert set(stream.stats.latency) == {"median", "p95"}


def test_policies_go_by_the_source() -> None:
    assert Stream(Answers(), frames(1)).policy == "all"
    assert Stream(Answers(), Live()).policy == "latest"
    assert Stream(Answers(), Paced(frames(1))).policy == "latest"
    assert Stream(Answers(), Live(), policy="all").policy == "all"


def test_strides_and_rates() -> None:
    with Stream(Answers(), frames(20), stride=6) as stream:
        assert [shot.index for shot in stream] == [0, 6, 12, 18]
    with Stream(Answers(), frames(26), max_fps=5) as stream:
        assert [shot.index for shot in stream] == [0, 5, 10, 15, 20, 25]
    with Stream(Answers(), frames(30), max_fps=10) as stream:  # of 25: every second or third
        assert [shot.index for shot in stream] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]
    with Stream(
        Answers(), IterableSource([(np.zeros((1, 1, 3), np.uint8), t) for t in (0, 9, 9.1, 10)]), max_fps=1
    ) as s:
        assert [shot.timestamp for shot in s] == [0, 9, 10]


def test_what_is_asked_may_change_while_it_runs() -> None:
    runtime, camera = Answers(), Live()
    with Stream(runtime, camera, threshold=0.5, semantic=True) as stream:
        camera.give(1)
        next(stream)
        stream.change(threshold=0.9, budget=0.1)
        camera.give(2)
        next(stream)
    assert runtime.asked == [
        {"threshold": 0.5, "semantic": True},
        {"threshold": 0.9, "semantic": True, "budget": 0.1},
    ]


def test_a_frame_that_cannot_be_segmented_reaches_the_caller() -> None:
    with Stream(Answers(bad=13), frames(20), workers=3) as stream:
        found = [next(stream).index for _ in range(13)]
        with pytest.raises(FrameError, match="number 13"):
            next(stream)
    assert found == list(range(13))
    assert threads() == 0


def test_a_source_that_breaks_gives_first_what_it_had() -> None:
    def broken():
        yield np.zeros((1, 1, 3), np.uint8)
        yield np.zeros((1, 1, 3), np.uint8)
        raise SourceError("the camera burns")

    with Stream(Answers(0.01), IterableSource(broken())) as stream:
        assert [next(stream).index for _ in range(2)] == [0, 1]
        with pytest.raises(SourceError, match="burns"):
            next(stream)
    assert threads() == 0


def test_leaving_the_loop_ends_every_thread() -> None:
    for source in (frames(1000), Live()):
        begun = time.monotonic()
        with Stream(Answers(), source, workers=2) as stream:
            if not source.is_live:
                next(stream)
        assert time.monotonic() - begun < 3
        assert threads() == 0
        with pytest.raises(StopIteration):
            next(stream)


def test_closing_from_another_thread_ends_the_loop() -> None:
    stream = Stream(Answers(), Live())
    timer = threading.Timer(0.05, stream.close)
    timer.start()
    with stream:
        assert list(stream) == []
    timer.join()
    assert threads() == 0


def test_a_source_without_frames_ends() -> None:
    with Stream(Answers(), frames(0)) as stream:
        assert list(stream) == []
        assert list(stream) == []


def test_a_dead_source_does_not_hold_up_another() -> None:
    runtime, dead = Answers(), Live()
    with Stream(runtime, dead) as waiting, Stream(runtime, frames(5)) as other:
        assert [shot.index for shot in other] == [0, 1, 2, 3, 4]
        assert waiting.stats.read == 0


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"policy": "some"}, "policy must be all or latest"),
        ({"stride": 0}, "stride must be a whole number of at least 1"),
        ({"workers": 1.5}, "workers must be a whole number of at least 1"),
        ({"max_fps": 0}, "max_fps must be a positive number"),
        ({"max_fps": float("inf")}, "max_fps must be a positive number"),
    ],
)
def test_wrong_arguments(wrong, fault) -> None:
    with pytest.raises(ValueError, match=fault):
        Stream(Answers(), frames(1), **wrong)


def test_a_runtimes_stream(runtime, frame) -> None:
    with runtime.stream([(frame, 0.0), (frame[:64], 0.5)], threshold=0.3) as stream:
        shots = list(stream)
    for shot, given in zip(shots, (frame, frame[:64]), strict=True):
        np.testing.assert_array_equal(shot.result.labels, runtime.segment(given, threshold=0.3).labels)
        np.testing.assert_array_equal(shot.frame, given)


@pytest.mark.parametrize(("cores", "threads", "workers"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (6, 2, 3), (16, 4, 4)])
def test_frames_of_a_file_share_the_cores(runtime, frame, monkeypatch, cores, threads, workers) -> None:
    for module in ("errseg_rt.runtime", "errseg_rt.options"):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: cores)
    wanted = runtime.segment(frame).labels
    with Runtime(threads=None) as ours:
        with ours.stream([frame] * 3) as stream:
            assert stream.workers == workers
            for shot in stream:
                np.testing.assert_array_equal(shot.result.labels, wanted)
        assert (ours._sharing_cores() is ours) == (cores == 1)
        shared = ours._sharing_cores()
        assert shared.options.cores == threads
    with pytest.raises(EngineError, match="is closed"):
        shared.segment(frame)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, {"policy": "latest"}),
        ({}, {"deadline_ms": 50.0}),
        ({"deadline_ms": 50.0}, {}),
        ({"threads": 4}, {}),
    ],
)
def test_a_frame_that_is_waited_for_has_all_cores(monkeypatch, options, asked) -> None:
    for module in ("errseg_rt.runtime", "errseg_rt.options"):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: 4)
    with Runtime(**options) as ours, ours.stream([], **asked) as stream:
        assert stream._runtime is ours
        assert stream.workers == 1
