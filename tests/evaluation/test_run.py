"""A runtime over frames: folds, views, and frames that cannot be scored."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from errseg_rt.errors import DataError, EngineError
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.run import evaluate_frames


class Frames:
    """Frames of one grey each, by which the runtime knows them; some cannot be read."""

    def __init__(self, sample, count, unreadable=()):
        self.sample = sample
        self.names = [f"street/{index}" for index in range(count)]
        self.unreadable = unreadable

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if index in self.unreadable:
            raise DataError(f"{self.names[index]}.png: cannot be\nread")
        truth, _ = self.sample(index)
        frame = np.full((*truth.shape, 3), index, np.uint8)
        frame[:, 0] = 255
        return frame, truth


class FakeRuntime:
    """Random branches that depend on the frame, and notes of what it was shown."""

    def __init__(self, sample, failing=()):
        self.sample, self.shown, self.failing = sample, [], failing

    def branches(self, frame, *, color="bgr", scale=1.0):
        index, mirrored = int(frame[0, 1, 0]), bool(frame[0, 0, 0] != 255)
        self.shown.append((index, mirrored, scale))
        if (index, mirrored, scale) in self.failing:
            raise EngineError("gave non-finite logits")
        return self.sample(1000 * index + 500 * mirrored + int(100 * scale))[1]


def test_every_frame_is_scored_in_order(sample) -> None:
    runtime, evaluation, frames = FakeRuntime(sample), Evaluation(4, 0.6), Frames(sample, 3)
    done = evaluate_frames(runtime, frames, evaluation, "test")
    assert (done.scored, done.failed) == ([0, 1, 2], {})
    assert runtime.shown == [(0, False, 1.0), (1, False, 1.0), (2, False, 1.0)]
    wanted = Evaluation(4, 0.6)
    for index in range(3):
        frame, truth = frames[index]
        wanted.add(truth, FakeRuntime(sample).branches(frame))
    np.testing.assert_array_equal(evaluation.fused.frames, wanted.fused.frames)
    assert evaluation.multi_scale == {}


def test_frames_that_fail_are_named_and_the_rest_is_done(sample) -> None:
    evaluation = Evaluation(4, 0.6, folds=2)
    done = evaluate_frames(
        FakeRuntime(sample, failing=[(3, False, 1.0)]), Frames(sample, 5, unreadable=[1]), evaluation, "test"
    )
    assert done.scored == [0, 2, 4]
    assert done.failed == {"street/1": "street/1.png: cannot be read", "street/3": "gave non-finite logits"}
    assert len(evaluation.fused.frames) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(5, "Input/output error", "a.png"), "[Errno 5] Input/output error: 'a.png'"),
        (MemoryError(), "not enough memory; shrink it, or give --work-pixels"),
        (cv2.error("OpenCV: assertion\nfailed"), "OpenCV: assertion failed"),
    ],
    ids=["os", "memory", "opencv"],
)  # fmt: skip
def test_what_one_frame_alone_may_run_into_does_not_end_the_run(sample, fault, message) -> None:
    class Faulty(Frames):
        def __getitem__(self, index):
            if index == 1:
                raise fault
            return super().__getitem__(index)

    evaluation = Evaluation(4, 0.6)
    done = evaluate_frames(FakeRuntime(sample), Faulty(sample, 3), evaluation, "test")
    assert (done.scored, done.failed) == ([0, 2], {"street/1": message})
    assert len(evaluation.fused.frames) == len(evaluation.flagged) == 2


def test_a_view_that_fails_takes_its_frame_along(sample) -> None:
    evaluation = Evaluation(4, 0.6)
    runtime = FakeRuntime(sample, failing=[(1, True, 0.5)])
    done = evaluate_frames(runtime, Frames(sample, 2), evaluation, "test", scales=(0.5, 1.0), flip=True)
    assert (done.scored, list(done.failed)) == ([0], ["street/1"])
    assert len(evaluation.semantic.frames) == len(evaluation.multi_scale["fused_ms"].frames) == 1


@pytest.mark.parametrize(
    ("scales", "flip", "wanted"),
    [
        ((1.0,), True, [(False, 1.0), (True, 1.0)]),
        ((0.5, 2.0), False, [(False, 1.0), (False, 0.5), (False, 2.0)]),
        ((0.5, 1.0), True, [(False, 1.0), (False, 0.5), (True, 0.5), (True, 1.0)]),
    ],
)
def test_views_of_a_frame(sample, scales, flip, wanted) -> None:
    runtime, evaluation = FakeRuntime(sample), Evaluation(4, 0.6)
    evaluate_frames(runtime, Frames(sample, 1), evaluation, "test", scales=scales, flip=flip)
    assert [(mirrored, scale) for _, mirrored, scale in runtime.shown] == wanted
    assert set(evaluation.multi_scale) == {"semantic_ms", "fused_ms"}


def test_neighbours_share_a_fold(sample) -> None:
    evaluation = Evaluation(4, 0.6, folds=3)
    evaluate_frames(FakeRuntime(sample), Frames(sample, 7), evaluation, "test")
    by_frame = []
    for index in range(7):
        alone = Evaluation(4, 0.6)
        frame, truth = Frames(sample, 7)[index]
        alone.add(truth, FakeRuntime(sample).branches(frame))
        by_frame.append(sum(alone.errors.pixels))
    wanted = [sum(by_frame[:3]), sum(by_frame[3:5]), sum(by_frame[5:])]
    assert [sum(fold.pixels) for fold in evaluation.folds] == wanted


def test_a_fault_of_the_program_is_not_hidden(sample) -> None:
    class Broken(FakeRuntime):
        def branches(self, frame, **options):
            made = super().branches(frame, **options)
            return replace(made, error_logit=np.full_like(made.error_logit, np.nan))

    with pytest.raises(ValueError, match="hold NaN"):
        evaluate_frames(Broken(sample), Frames(sample, 1), Evaluation(4, 0.6), "test")
