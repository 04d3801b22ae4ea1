"""select and refine, and the path behind the front graph, against cuDNN and cuBLAS: checked first, then timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from benchmarks.on_gpu.data import HALF, Size, Stage, error_logits, stage, threshold_of
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against, roofline, single
from benchmarks.on_gpu.timing import Ceilings, Timer, Wrong
from errseg_rt.kernels import fuse_labels, refine, select
from errseg_rt.kernels.refine import DeviceWeights, refine_reference
from errseg_rt.kernels.select import Layers, Selection, select_reference, supports_reference
from errseg_rt.kernels.select.operands import work_of

SHARES = (0.03, 0.05, 0.1, 0.2)
# Share of flagged labels, near ties apart, that the sparse stage must have in common with the dense one: as a rule, and
# at least. Both round to half precision between their layers, each in its own order.
AGREEMENT, LEAST_AGREEMENT = 0.999, 0.99


def refinement(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Found]:
    """Select + refine on flagged pixels against cuDNN's dense stage 3, and the path behind the front graph."""
    _check_refinement(size, timer)
    made, error_logit = stage(size, timer.device), error_logits(size)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    on_device = torch.from_numpy(error_logit).to(timer.device)
    dense = partial(_dense, made)
    whole, dense_times = dense(), timer.captured(dense)
    layers = made.weights.layers
    dense_work = size.grid[0] * size.grid[1] * layers.of_pixel
    yield roofline("refine_dense_cudnn", made.low.nbytes + 2 * whole.numel(), 2 * dense_work, dense_times, ceilings)
    for share in SHARES:
        threshold = threshold_of(error_logit, share)

        def selected(threshold: float = threshold) -> Selection:
            return select(on_device, threshold, layers=layers)

        def refined(selection: Selection) -> torch.Tensor:
            return refine(weights, selection, made.logits, made.low, made.coarse, made.gate)

        def both(selected: Callable[[], Selection] = selected) -> torch.Tensor:
            return refined(selected())

        def post_front(selected: Callable[[], Selection] = selected) -> torch.Tensor:
            selection = selected()
            where = selection.slots[2].view(size.grid)
            return fuse_labels(made.logits, refined(selection), where, size.geometry).labels

        selection = selected()
        agreement = _check_selection(selection, error_logit, threshold, layers, refined(selection), whole)
        if agreement < AGREEMENT:
            yield f"only {agreement:.3%} of the labels at {share:.0%} flagged are those of the dense stage"
        counts = selection.counts.tolist()
        work = work_of(selection.counts, layers) / dense_work
        at = f"{share:.0%}"
        note = (
            f"{size.grid[0]}x{size.grid[1]}, C={size.width}, {size.low} low channels, fp16, channels last; F1 is "
            f"{counts[0] / whole[0].numel():.0%} of the grid, {work:.1%} of the work, {agreement:.3%} of flagged "
            "labels as dense, but for near ties"
        )
        bar = "; bar: at least 2.5 times, aiming at 4" if share == 0.05 else ""
        select_times, refine_times = timer.captured(selected), timer.captured(partial(refined, selection))
        yield single(f"select/gpu@{at}", select_times, f"{size.grid[0]}x{size.grid[1]}")
        yield single(f"select/gpu_with_budget@{at}", timer.captured(
            partial(select, on_device, threshold, layers=layers, budget=int(0.5 * work * dense_work))
        ), "half of the work that the flagged pixels would take")  # fmt: skip
        yield against(f"refine/gpu_select_and_refine@{at}", timer.captured(both), dense_times, note + bar)
        yield against(
            f"refine/gpu_vs_gather_and_matmul@{at}",
            refine_times,
            timer.captured(_gathered(made, weights, selection, counts, refined(selection))),
            "theirs knows the counts and has its tables of neighbours: an engine of Gather and MatMul at its best",
        )
        yield roofline(f"refine@{at}", _moved(made, counts), 2 * work * dense_work, refine_times, ceilings)
        yield single(
            f"cascade/gpu_post_front@{at}",
            timer.captured(post_front),
            "select, refine and fuse_labels in one CUDA graph",
        )


def _check_refinement(size: Size, timer: Timer) -> None:
    """Hold refine against the definition, with all its channels, on a grid that NumPy is done with in seconds."""
    small = replace(size, frame=(min(size.frame[0], 129), min(size.frame[1], 193)))
    made, flagged = stage(small, timer.device), error_logits(small)
    flagged = flagged > np.quantile(flagged, 0.9)
    logit = torch.where(torch.from_numpy(flagged), 1.0, -1.0).to(timer.device)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    operands = (made.logits, made.low, made.coarse, made.gate)
    rows = refine(weights, select(logit, 0.5, layers=made.weights.layers), *operands)[: int(flagged.sum())]
    arrays = (tensor.float().cpu().contiguous().numpy() for tensor in operands)
    wanted = refine_reference(made.weights, supports_reference(flagged, made.weights.layers), *arrays)
    difference = float(np.abs(rows.float().cpu().numpy() - wanted).max() / np.abs(wanted).max())
    if difference > 5e-3:  # half precision between five layers
        raise Wrong(f"refine: rows differ from the definition by {difference:.1e} of the largest")


def _check_selection(
    selection: Selection,
    error_logit: npt.NDArray[np.float32],
    threshold: float,
    layers: Layers,
    rows: torch.Tensor,
    whole: torch.Tensor,
) -> float:
    """Hold select against the definition, and sparse against dense; the share of flagged labels that are alike."""
    wanted = select_reference(error_logit, threshold, layers=layers)
    same = selection.counts.tolist() == wanted.counts.tolist()
    for layer, count in enumerate(wanted.counts):
        found = selection.rows[layer, :count].cpu().numpy()
        same = same and np.array_equal(found, wanted.support(layer + 1))
    if not same:
        raise Wrong("select: the supports differ from the definition's")
    flagged = torch.from_numpy(wanted.support(3)).long().to(rows.device)
    dense = whole.flatten(1)[:, flagged].T
    clear = ~near_ties(dense)
    agreement = float((rows[: len(flagged)].argmax(1) == dense.argmax(1))[clear].float().mean()) if clear.any() else 1.0
    if agreement < LEAST_AGREEMENT:
        raise Wrong(f"refine: only {agreement:.3%} of the flagged labels are those of the dense stage")
    return agreement


def near_ties(logits: torch.Tensor) -> torch.Tensor:
    """Which rows `[n, K]` of half-precision logits have two largest ones within two units in the last place."""
    largest, second = logits.float().topk(2).values.T
    last_place = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 11)
    return largest - second <= 2 * last_place


def _dense(made: Stage) -> torch.Tensor:
    """Stage 3 everywhere, by torch's convolutions: cuDNN's on a GPU."""
    with torch.no_grad():
        operands = (made.logits[None], made.low[None], made.coarse[None], made.gate[None, :, None, None])
        out: torch.Tensor = made.detail.refine(*operands)[0]
        return out


def _gathered(
    made: Stage, weights: DeviceWeights, selection: Selection, counts: list[int], wanted: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """Refinement by gathering rows and multiplying matrices, held against the kernels' rows; sizes are the host's."""
    height, width = selection.grid_size
    channels = len(made.gate)
    rows = [selection.rows[layer, :count].long() for layer, count in enumerate(counts)]
    slots = selection.slots.long()
    tables = []
    for layer, pixels in enumerate(rows):
        i, j = pixels // width, pixels % width
        taps = [(i + dy, j + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        there = torch.stack([(y >= 0) & (y < height) & (x >= 0) & (x < width) for y, x in taps], 1)
        pixel = torch.stack([y.clamp(0, height - 1) * width + x.clamp(0, width - 1) for y, x in taps], 1)
        source = pixel if layer == 0 else slots[layer - 1][pixel]
        tables.append(torch.where(there, source, height * width if layer == 0 else counts[layer - 1]))
    low = torch.zeros((height * width + 1, len(weights.low) // 9), dtype=made.low.dtype, device=made.low.device)
    low[:-1, : len(made.low)] = made.low.flatten(1).T
    gate = torch.zeros_like(weights.low[0])
    gate[:channels] = made.gate
    low_bias, project_bias, *biases, head_bias = (bias.to(low.dtype) for bias in weights.biases)

    def padded(values: torch.Tensor) -> torch.Tensor:  # one row more, for what lies outside
        return torch.cat([values, torch.zeros_like(values[:1])])

    def run() -> torch.Tensor:
        projected = made.coarse.flatten(1).T @ weights.project + project_bias
        planes = projected.T.reshape(1, -1, *made.coarse.shape[1:])
        laid = interpolate(planes, size=(height, width), mode="bilinear", align_corners=weights.host.align_corners)
        x = (low[tables[0]].flatten(1) @ weights.low + low_bias) * gate + laid[0].flatten(1).T[rows[0]]
        for table, weight, bias in zip(tables[1:], (weights.first, weights.second), biases, strict=True):
            x = torch.relu(padded(x)[table].flatten(1) @ weight + bias)
        out: torch.Tensor = (x @ weights.head + head_bias)[:, : len(made.logits)]
        return out + made.logits.flatten(1).T[rows[2]] if weights.host.residual else out

    difference = float((run() - wanted[: counts[2]]).abs().max() / wanted[: counts[2]].abs().max())
    if difference > 1e-2:  # half precision between five layers, on both sides
        raise Wrong(f"refine: rows differ from gathered products by {difference:.1e} of the largest")
    return run


def _moved(made: Stage, counts: list[int]) -> float:
    """Bytes that refinement must read and write: features around F1, what lies between the layers, tables, rows."""
    classes, width, low = len(made.logits), len(made.gate), len(made.low)
    pixels = made.low[0].numel()
    between = 2 * width * (3 * counts[0] + 2 * counts[1] + 2 * counts[2])  # x twice, for the projection
    tables = 4 * (2 * pixels + sum(counts))
    return 2 * low * counts[0] + between + tables + 2 * made.coarse.numel() * 2 + 4 * classes * counts[2]
