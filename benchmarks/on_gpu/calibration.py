"""The error probability of the final label against what one writes with torch: checked first, then timed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.on_gpu.data import HALF, Size, error_logits
from benchmarks.on_gpu.fusion import Fusion
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against
from benchmarks.on_gpu.timing import Timer, Wrong
from errseg_rt.kernels.calibrate.launches import enqueue_calibrate
from errseg_rt.kernels.calibrate.reference import calibrate_final_reference
from errseg_rt.kernels.torch_launcher import TorchLauncher

KNOTS = 32  # of either map, as the embedded bundles have them
TOLERANCE = 1e-5  # a doubt of up to 8 in float32, off by 4e-6 of it, on maps that rise by a quarter at most


def calibration(size: Size, timer: Timer) -> Iterator[Found]:
    """The error probability of the final label, a tenth of the pixels flagged, against torch eager."""
    made, error_logit = Fusion.of(size, timer.device), error_logits(size)
    logits = np.linspace(-8, 4, KNOTS)
    # The map of the doubt: the same, a little less sure.
    maps = (logits, 1 / (1 + np.exp(-logits))), (logits, 1 / (1 + np.exp(0.5 - 0.7 * logits)))
    knots, detail_knots = (torch.from_numpy(np.array(each, np.float32)).to(timer.device) for each in maps)
    above = float(np.quantile(error_logit, 0.9))
    half = torch.from_numpy(error_logit).to(timer.device, HALF)
    launcher = TorchLauncher(timer.device)

    def ours() -> torch.Tensor:
        found: torch.Tensor = enqueue_calibrate(launcher, half, knots, made.rows, made.index, detail_knots, above)
        return found

    def theirs() -> torch.Tensor:
        return eager_final(half, knots, made.rows, made.index, detail_knots, above)

    on_host, rows, index = half.float().cpu().numpy(), made.rows.cpu().numpy(), made.index.cpu().numpy()
    wanted = calibrate_final_reference(on_host, maps[0], rows, index, maps[1], above)
    for name, found in {"calibrate_final": ours(), "torch eager's error probability": theirs()}.items():
        difference = float(np.abs(found.double().cpu().numpy() - wanted).max())
        if not difference <= TOLERANCE:  # a NaN is wrong, too
            raise Wrong(f"{name} differs from the definition by {difference:.1e}")
    note = (
        f"{size.grid[0]}x{size.grid[1]}, {size.classes} classes, fp16, maps of {KNOTS} knots; theirs is given the rows "
        f"of the {made.rows.shape[0]} flagged pixels alone, so that it computes no other pixel's doubt"
    )
    yield against("calibrate_final/gpu_vs_torch_eager", timer.time(ours), timer.time(theirs), note)


def eager_final(
    error_logit: torch.Tensor,  # [h, w]
    knots: torch.Tensor,  # [2, n] float32
    rows: torch.Tensor,  # [m, C]
    index: torch.Tensor,  # [h, w] int32, negative where no row is
    detail_knots: torch.Tensor,  # [2, k] float32
    above: float,
) -> torch.Tensor:  # [h, w] float32
    """What one writes with torch: the doubt of each row, two interpolations, select."""
    value, logits = error_logit.float(), rows.float()
    top = logits.argmax(1, keepdim=True)
    others = (logits - logits.gather(1, top)).exp().scatter(1, top, 0.0).sum(1)
    of_rows = _interpolated(others.log(), detail_knots)
    is_detail = (index >= 0) & (value > above)
    return torch.where(is_detail, of_rows[index.clamp(min=0)], _interpolated(value, knots))


def _interpolated(value: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Linear between knots whose logits increase, constant beyond the ends."""
    logits, probabilities = knots
    within = value.clamp(logits[0], logits[-1])
    upper = torch.searchsorted(logits, within, right=True).clamp(1, len(logits) - 1)
    left, low = logits[upper - 1], probabilities[upper - 1]
    return torch.lerp(low, probabilities[upper], (within - left) / (logits[upper] - left))
