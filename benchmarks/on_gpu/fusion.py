"""fuse_labels against what one writes with torch, eager and compiled: checked first, then timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from benchmarks.on_gpu.data import HALF, Size, error_logits, logits_of
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against, roofline
from benchmarks.on_gpu.timing import Ceilings, Timer, Wrong
from errseg_rt.kernels import fuse_labels, fuse_labels_reference


def eager_fusion(size: Size, semantic: torch.Tensor, detail: torch.Tensor, flagged: torch.Tensor) -> torch.Tensor:
    """What one writes with torch: select, softmax, interpolate, argmax."""
    probabilities = torch.where(flagged, detail.softmax(0), semantic.softmax(0))
    return interpolate(probabilities[None], size=size.frame, mode="bilinear", align_corners=True)[0].argmax(0)


@dataclass(frozen=True)
class Fusion:
    """Two maps of logits, one of them in rows where it is flagged, and the labels by the definition."""

    size: Size
    semantic: torch.Tensor  # [K, h, w]
    detail: torch.Tensor  # [K, h, w]
    flagged: torch.Tensor  # [h, w] bool
    rows: torch.Tensor  # [n, K]
    index: torch.Tensor  # [h, w] int32

    @classmethod
    def of(cls, size: Size, device: torch.device) -> Fusion:
        """That of a street."""
        semantic, detail = (torch.from_numpy(logits_of(size, sharp)).to(HALF) for sharp in (0.7, 1.4))
        error_logit = error_logits(size)
        flagged = error_logit > np.quantile(error_logit, 0.9)
        index = np.where(flagged, flagged.cumsum().reshape(size.grid) - 1, -1).astype(np.int32)
        rows = detail[:, torch.from_numpy(flagged)].T.contiguous()
        tensors = (semantic, detail, torch.from_numpy(flagged), rows, torch.from_numpy(index))
        return cls(size, *(tensor.to(device) for tensor in tensors))

    def fused(self) -> torch.Tensor:
        """Labels by the kernel."""
        return fuse_labels(self.semantic, self.rows, self.index, self.size.geometry).labels

    def wanted(self) -> npt.NDArray[np.uint8]:
        """Labels by the definition."""
        operands = (tensor.cpu().numpy() for tensor in (self.semantic, self.rows, self.index))
        labels: npt.NDArray[np.uint8] = fuse_labels_reference(*operands, self.size.geometry).labels
        return labels

    def checked(self) -> str:
        """How near the kernel is to the definition, in words; Wrong where it is not."""
        differs = float((self.fused().cpu().numpy() != self.wanted()).mean())
        if differs > 1e-5:  # ties within rounding
            raise Wrong(f"fuse_labels: {differs:.2e} of the labels differ from the definition's")
        frame = self.size.frame
        return f"{frame[0]}x{frame[1]}, {self.size.classes} classes, fp16, equal to the definition but {differs:.0e}"

    def by_torch(self) -> tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]:
        """What one writes with torch, and its operands."""
        size = self.size

        def fuse(semantic: torch.Tensor, detail: torch.Tensor, flagged: torch.Tensor) -> torch.Tensor:
            return eager_fusion(size, semantic, detail, flagged)

        return fuse, (self.semantic, self.detail, self.flagged)


def fusion(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Found]:
    """fuse_labels in half precision, against torch eager."""
    made = Fusion.of(size, timer.device)
    note, times = made.checked(), timer.time(made.fused)
    moved = made.semantic.nbytes + made.rows.nbytes + made.index.nbytes + size.frame[0] * size.frame[1]
    # Two passes of about 6 operations at 4 corners, and interpolation of what is no uniform cell, a tenth or so.
    operations = size.classes * (12 * 4 * size.grid[0] * size.grid[1] + 0.1 * 6 * size.frame[0] * size.frame[1])
    yield roofline("fuse_labels", moved, operations, times, ceilings)
    eager, operands = made.by_torch()
    theirs = timer.time(partial(eager, *operands))
    yield against("fuse_labels/gpu_vs_torch_eager", times, theirs, f"{note}; bar: at most 40 us")


def compiled_fusion(size: Size, timer: Timer) -> Iterator[Found]:
    """fuse_labels against what torch.compile makes of torch's."""
    made = Fusion.of(size, timer.device)
    note, (eager, operands) = made.checked(), made.by_torch()
    compiled = torch.compile(eager)
    times, theirs = timer.time(made.fused), timer.time(lambda: compiled(*operands))
    yield against("fuse_labels/gpu_vs_torch_compile", times, theirs, f"{note}; bars: at most 40 us, at least 8 times")
