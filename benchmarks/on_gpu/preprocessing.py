"""preprocess against what one writes with torch: checked first, then timed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.on_gpu.data import Size
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against, roofline
from benchmarks.on_gpu.streets import street
from benchmarks.on_gpu.timing import Ceilings, Timer, Wrong
from errseg_rt.kernels import preprocess
from errseg_rt.kernels.preprocess import preprocess_reference


def preprocessing(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Found]:
    """Preprocess against what one writes with torch."""
    frame = street(size.frame).frame
    tensor = torch.from_numpy(frame).to(timer.device)
    colors: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    mean, std = (torch.tensor(each, device=timer.device).view(3, 1, 1) for each in colors.values())

    def ours() -> torch.Tensor:
        return preprocess(tensor, size.frame, size.frame, **colors, dtype="float16")

    def theirs() -> torch.Tensor:
        return ((tensor.permute(2, 0, 1).flip(0) / 255 - mean) / std)[None].half()

    wanted = preprocess_reference(frame, size.frame, size.frame, **colors)
    difference = float(np.abs(ours().double().cpu().numpy() - wanted).max())
    if difference > 4e-3:  # half precision of values up to 2.7
        raise Wrong(f"preprocess differs from the definition by {difference:.1e}")
    times = timer.time(ours)
    yield roofline("preprocess", frame.nbytes + 2 * wanted.size, 2 * wanted.size, times, ceilings)
    yield against("preprocess/gpu_vs_torch_eager", times, timer.time(theirs), "fp16")
