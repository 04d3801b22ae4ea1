"""How far an engine is from the reference, branch by branch, on the same frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.options import Limits
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.flight import Flight

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BranchParity:
    """One branch of two engines.

    Attributes:
        agreement: Share of the frames' pixels with equal labels, in 0..1. For `semantic`, of the labels of that branch
            alone; for `error` and `detail`, of the fused labels of the reference when this one of its branches is
            exchanged for the other engine's; for `fused`, of what the two engines answer in the end.
        largest: Largest difference of the branch's probability (P_sb, P_ep, P_db) at a grid pixel; None for `fused`.
        mean: Mean difference, likewise.
        miou: mIoU of the labels that `agreement` is about, over the classes that the truth holds; None where it is not
            known.
        reference_miou: That of the reference.
    """

    agreement: float
    largest: float | None
    mean: float | None
    miou: float | None
    reference_miou: float | None


@dataclass(frozen=True)
class Parity:
    """Two engines on the same frames.

    Attributes:
        frames: Frames compared.
        pixels: Pixels of these.
        branches: By branch that the bundle has, `semantic`, `error` and `detail`, and `fused` for all of it.
        flagged_differ: Share of grid pixels that only one of the two flags, in 0..1.
        milliseconds: Median time of a frame with the other engine, from its upload to its results.
        reference_milliseconds: The same with the reference.
    """

    frames: int
    pixels: int
    branches: Mapping[str, BranchParity]
    flagged_differ: float
    milliseconds: float
    reference_milliseconds: float

    @property
    def agreement(self) -> float:
        """Share of equal labels in the end, in 0..1."""
        return self.branches["fused"].agreement

    def under(self, bar: float) -> dict[str, float]:
        """The agreement of each branch that is under a bar."""
        return {name: each.agreement for name, each in self.branches.items() if each.agreement < bar}


def compare(
    reference: Direct | Flight,
    other: Direct | Flight,
    frames: Iterable[npt.NDArray[np.uint8]],
    truths: Iterable[Labels | None] | None = None,
) -> Parity:
    """Send frames through a bundle in two ways and compare what they say, at the bundle's own threshold.

    Args:
        reference: The one to hold the other against.
        other: The other.
        frames: BGR, `uint8 [H, W, 3]`.
        truths: True class ids of each frame, `uint8 [H, W]`; None where they are not known.

    Raises:
        ValueError: There is no frame.
        EngineError: An engine failed, or gave non-finite values.
    """
    manifest = reference.pipeline.manifest
    classes, limits = len(manifest.classes), Limits(manifest.threshold)
    tallies = {name: _Tally(classes) for name in (*manifest.branches, "fused")}
    flagged: list[float] = []
    times: list[tuple[float, float]] = []
    count = pixels = 0
    for frame, truth in zip(frames, repeat(None) if truths is None else truths, strict=truths is not None):
        a, b = reference.branches(frame), other.branches(frame)
        flags = a.flagged(limits.threshold), b.flagged(limits.threshold)
        labels = _fuse(a, a.detail_logits, flags[0])
        tallies["semantic"].add(truth, _fuse(a), _fuse(b), softmax(a.logits, axis=0), softmax(b.logits, axis=0))
        if a.error_logit is not None:
            p_ep = expit(a.error_logit), expit(b.error_logit)
            tallies["error"].add(truth, labels, _fuse(a, a.detail_logits, flags[1]), *p_ep)
        if a.detail_logits is not None:
            p_db = softmax(a.detail_logits, axis=0), softmax(b.detail_logits, axis=0)
            tallies["detail"].add(truth, labels, _fuse(a, b.detail_logits, flags[0]), *p_db)
        ours, theirs = (way.submit(frame, Ask(), limits).result() for way in (reference, other))
        tallies["fused"].add(truth, ours.labels, theirs.labels)
        times.append((sum(ours.timings.values()), sum(theirs.timings.values())))
        flagged.append(float((flags[0] != flags[1]).mean()))
        count, pixels = count + 1, pixels + labels.size
    if not count:
        raise ValueError("no frame to compare on")
    branches = {name: tally.result() for name, tally in tallies.items()}
    reference_ms, other_ms = np.median(times, axis=0).tolist()
    return Parity(count, pixels, branches, float(np.mean(flagged)), other_ms, reference_ms)


@dataclass
class _Tally:
    """What has been counted of one branch."""

    classes: int
    pixels: int = 0
    equal: int = 0
    largest: float = 0.0
    means: list[float] = field(default_factory=list)
    confusions: list[ConfusionMatrix] = field(default_factory=list)

    def add(
        self,
        truth: Labels | None,
        labels: Labels,
        others: Labels,
        probability: npt.NDArray[np.floating] | None = None,
        other: npt.NDArray[np.floating] | None = None,
    ) -> None:
        self.pixels += labels.size
        self.equal += int((labels == others).sum())
        if probability is not None and other is not None:
            difference = np.abs(probability - other)
            self.largest = max(self.largest, float(difference.max()))
            self.means.append(float(difference.mean()))
        if truth is not None:
            self.confusions = self.confusions or [ConfusionMatrix(self.classes), ConfusionMatrix(self.classes)]
            for confusion, answer in zip(self.confusions, (labels, others), strict=True):
                confusion.add(truth, answer)

    def result(self) -> BranchParity:
        scores = [confusion.miou_of_truth() for confusion in self.confusions]
        reference_miou, miou = (score if np.isfinite(score) else None for score in scores or (np.nan, np.nan))
        mean = float(np.mean(self.means)) if self.means else None
        largest = self.largest if self.means else None
        return BranchParity(self.equal / self.pixels, largest, mean, miou, reference_miou)


def _fuse(branches: Branches, detail: Any = None, flagged: Any = None) -> Labels:
    flagged = None if detail is None else flagged
    return fuse_labels(branches.logits, detail, flagged, branches.geometry).labels
