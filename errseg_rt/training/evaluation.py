"""A cascade's labels and error map on labelled frames, through the same preprocessing and fusion as the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from errseg_rt.calibration import Calibration
from errseg_rt.classes import IGNORE, ClassSet
from errseg_rt.input_spec import InputSpec
from errseg_rt.kernels.fuse_labels import Geometry, fuse_labels
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.networks.cascade import Cascade, flag
from errseg_rt.scores import ConfusionMatrix
from errseg_rt.training.calibration import fit_calibration
from errseg_rt.training.data import LabelledFrames
from errseg_rt.training.stages import labels_on_grid

Progress = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass
class Evaluation:
    """Scores of the semantic and the fused labels of some frames.

    Attributes:
        semantic: Confusion of the semantic labels, at frame size.
        fused: Confusion of the fused labels, at frame size.
        flagged: Share of flagged grid pixels, one number a frame.
        error_logit: Error logits of all valid grid pixels, for calibration.
        wrong: Whether the semantic label of each was wrong.
    """

    semantic: ConfusionMatrix
    fused: ConfusionMatrix
    flagged: list[float] = field(default_factory=list)
    error_logit: list[npt.NDArray[np.float32]] = field(default_factory=list)
    wrong: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def calibration(self) -> Calibration:
        """The map from error logit to error probability that these frames bear out."""
        return fit_calibration(np.concatenate(self.error_logit), np.concatenate(self.wrong))

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """Scores in 0..1, as the manifest and the model card hold them."""
        return {
            "frames": len(self.flagged),
            "flagged": float(np.mean(self.flagged)),
            "semantic": self.semantic.to_dict(classes),
            "fused": self.fused.to_dict(classes),
        }


@torch.inference_mode()
def evaluate(
    cascade: Cascade, spec: InputSpec, threshold: float, frames: LabelledFrames, progress: Progress, title: str
) -> Evaluation:
    """Run a cascade, densely, over labelled frames.

    Args:
        cascade: In eval mode.
        spec: Its input.
        threshold: t of eq. 4.
        frames: Frames with labels.
        progress: Wraps the loop over the frames in a bar.
        title: What the bar says.
    """
    result = Evaluation(ConfusionMatrix(cascade.config.classes), ConfusionMatrix(cascade.config.classes))
    for index in progress(range(len(frames)), title, len(frames)):
        frame, truth = frames[index]
        size = (frame.shape[0], frame.shape[1])
        content, padded = spec.content_size(size), spec.input_size(size)
        image = torch.from_numpy(preprocess(frame, content, padded, mean=spec.mean, std=spec.std))
        front = cascade.front(image.contiguous(memory_format=torch.channels_last))
        detail = cascade.detail.refine(front.logits, front.low, front.coarse, front.gate)
        flagged = flag(front.error_logit, threshold)[0, 0]
        align = cascade.semantic.align_corners
        geometry = Geometry((flagged.shape[0], flagged.shape[1]), padded, content, size, align)
        logits = front.logits[0].numpy()
        result.semantic.add(truth, fuse_labels(logits, None, None, geometry).labels)
        result.fused.add(truth, fuse_labels(logits, detail[0].numpy(), flagged.numpy(), geometry).labels)
        rows, cols = geometry.seen()
        result.flagged.append(float(flagged[:rows, :cols].float().mean()))
        on_grid = _truth_on_grid(truth, geometry)
        valid = on_grid != IGNORE
        result.error_logit.append(front.error_logit[0, 0].numpy()[valid])
        result.wrong.append((logits.argmax(0) != on_grid)[valid])
    return result


def _truth_on_grid(truth: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.int64]:
    """True labels under the grid pixels, `IGNORE` in the padding."""
    content, frame = geometry.content_size, geometry.output_size
    rows, cols = (
        np.minimum((np.arange(inner) + 0.5) * outer / inner, outer - 1).astype(np.int64)
        for inner, outer in zip(content, frame, strict=True)
    )
    padded = np.full(geometry.input_size, IGNORE, np.int64)
    padded[: content[0], : content[1]] = truth[rows[:, None], cols]
    on_grid = labels_on_grid(torch.from_numpy(padded)[None], torch.Size(geometry.grid_size), geometry.align_corners)
    return on_grid[0].numpy()
