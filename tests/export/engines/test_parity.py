"""Parity of two engines: what each branch's share of equal labels means."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.export.engines.parity import compare
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.fuse_labels import fuse_labels_reference
from errseg_rt.options import Limits, Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.open import open_way
from errseg_rt.scenes import StreetScene


@pytest.fixture(scope="module")
def views():
    scene = StreetScene(0, 97, 131)
    return [scene.frame(index) for index in (0, 9)]


@pytest.fixture(scope="module")
def frames(views):
    return [view.frame for view in views]


@pytest.fixture(scope="module")
def way():
    return open_way(Bundle.open("camvid"), Options(threads=1))


T = Bundle.open("camvid").manifest.threshold


class Changed:
    """A way whose branches are another's, but for what `change` does to one of them."""

    def __init__(self, way: Direct, **change: object) -> None:
        self._way, self._change = way, change
        self.pipeline, self.submit = way.pipeline, way.submit

    def branches(self, frame):
        branches = self._way.branches(frame)
        changed = {name: change(getattr(branches, name)) for name, change in self._change.items()}
        names = ("logits", "error_logit", "detail_logits", "geometry")
        return Branches(**{**{name: getattr(branches, name) for name in names}, **changed})


def labels(branches: Branches, detail=None, flagged=None):
    return fuse_labels_reference(branches.logits, detail, flagged, branches.geometry).labels


def test_an_engine_equals_itself(way, views, frames):
    parity = compare(way, way, iter(frames), [view.labels for view in views])
    assert (parity.frames, parity.pixels, parity.flagged_differ, parity.agreement) == (2, 2 * 97 * 131, 0.0, 1.0)
    for name, branch in parity.branches.items():
        assert branch.agreement == 1
        assert branch.largest == branch.mean == (None if name == "fused" else 0)
        assert branch.miou == branch.reference_miou > 0
    assert parity.under(1.0) == {}
    assert min(parity.milliseconds, parity.reference_milliseconds) > 0


def test_each_branch_is_exchanged_alone(way, frames):
    """A branch that is changed lowers its own share, and not that of the others."""
    roll = lambda logits: np.ascontiguousarray(np.roll(logits, 1, axis=0))  # noqa: E731
    frame = frames[0]
    a = way.branches(frame)
    flags = a.flagged(T)
    fused = labels(a, a.detail_logits, flags)
    mirrored = 2 * np.log(T / (1 - T))
    changes = {"logits": roll, "error_logit": lambda logit: np.float32(mirrored) - logit, "detail_logits": roll}
    others = Changed(way, error_logit=changes["error_logit"]).branches(frame).flagged(T)
    wanted = {
        "logits": ("semantic", (labels(a) == labels(Changed(way, logits=roll).branches(frame))).mean()),
        "error_logit": ("error", (fused == labels(a, a.detail_logits, others)).mean()),
        "detail_logits": ("detail", (fused == labels(a, roll(a.detail_logits), flags)).mean()),
    }
    for name, (branch, share) in wanted.items():
        parity = compare(way, Changed(way, **{name: changes[name]}), [frame])
        assert parity.branches[branch].agreement == share < 1
        assert set(parity.under(1.0)) == {branch}


def test_differences_are_of_probabilities(way, frames):
    shift = Changed(way, error_logit=lambda logit: logit + np.float32(0.5), logits=lambda logits: logits + 7)
    parity = compare(way, shift, frames[:1])
    logit = way.branches(frames[0]).error_logit.astype(np.float64)
    difference = np.abs(1 / (1 + np.exp(-logit - 0.5)) - 1 / (1 + np.exp(-logit)))
    assert parity.branches["error"].largest == pytest.approx(difference.max(), rel=1e-4)
    assert parity.branches["error"].mean == pytest.approx(difference.mean(), rel=1e-4)
    # A constant on all logits is no difference.
    assert parity.branches["semantic"].largest < 1e-5


def test_flags_that_differ_are_counted(way, frames):
    never = Changed(way, error_logit=lambda logit: np.full_like(logit, -9))
    flagged = way.branches(frames[0]).flagged(T)
    assert compare(way, never, frames[:1]).flagged_differ == flagged.mean() > 0


def test_miou_is_that_of_the_labels(way, views):
    parity = compare(way, way, [views[0].frame], [views[0].labels])
    confusion = ConfusionMatrix(11)
    confusion.add(views[0].labels, way.submit(views[0].frame, Ask(), Limits(T)).result().labels)
    assert parity.branches["fused"].miou == confusion.miou_of_truth()


def test_without_truth_there_is_no_score(way, frames):
    branch = compare(way, way, frames[:1], [None]).branches["fused"]
    assert branch.miou is None
    assert branch.reference_miou is None


def test_it_wants_a_frame(way):
    with pytest.raises(ValueError, match="no frame to compare on"):
        compare(way, way, [])
