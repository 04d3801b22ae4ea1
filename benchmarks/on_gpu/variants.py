"""Other launches than those that are shipped: the same results first, then how long they take.

Here launch constants and switches of the kernels are decided, by figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch

from benchmarks.on_gpu.data import HALF, Size, error_logits, stage, threshold_of
from benchmarks.on_gpu.fusion import Fusion
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against, single
from benchmarks.on_gpu.timing import Timer, Times, Wrong
from errseg_rt.kernels import refine, select
from errseg_rt.kernels.fuse_labels import launches as of_fusion
from errseg_rt.kernels.refine import DeviceWeights
from errseg_rt.kernels.refine import launches as of_refinement
from errseg_rt.kernels.select import Selection
from errseg_rt.kernels.select import launches as of_selection
from errseg_rt.kernels.select.operands import work_of

SHARE = 0.05
# Pixels and depth of a tile, warps, stages; each takes seconds to compile, so the most promising first.
TILES = (
    (128, 64, 8, 3), (128, 128, 8, 2), (256, 64, 8, 3), (64, 64, 4, 4), (128, 64, 8, 4), (64, 128, 4, 3),
    (64, 64, 4, 3), (128, 128, 8, 3), (128, 64, 4, 3), (64, 64, 4, 2), (128, 64, 8, 2),
)  # fmt: skip
Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """Launch constants that take the place of the shipped ones.

    Attributes:
        name: Of the row.
        constants: By name.
        is_equal: Whether results must be the shipped ones bit for bit: other tiles sum in another order.
    """

    name: str
    constants: dict[str, Any]
    is_equal: bool = True


@dataclass(frozen=True)
class Operation:
    """What is tried.

    Attributes:
        name: Of its rows.
        module: Its launch constants.
        work: Enqueues it.
        timed: Times that.
        trials: In their order.
        promised: Of what it gives, that which its content is promised of.
    """

    name: str
    module: ModuleType
    work: Callable[[], Any]
    timed: Callable[[Callable[[], object]], Times]
    trials: Sequence[Trial]
    promised: Callable[[Any], Tensors] = lambda tensors: tensors


def variants(size: Size, timer: Timer, multiprocessors: int) -> Iterator[Found]:
    """Switches of the kernels: persistent programs, tiles of several rows, a ticket."""
    made, error_logit = stage(size, timer.device), error_logits(size)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    on_device, threshold = torch.from_numpy(error_logit).to(timer.device), threshold_of(error_logit, SHARE)
    layers = made.weights.layers
    selection = select(on_device, threshold, layers=layers)
    count = int(selection.counts[2])
    budget = int(0.5 * work_of(selection.counts, layers))

    def refined() -> Tensors:
        return (refine(weights, selection, made.logits, made.low, made.coarse, made.gate)[:count],)

    persistent = [Trial(f"persistent_{n}", {"PROGRAMS": n}) for n in (multiprocessors, 2 * multiprocessors)]
    yield from compared(Operation("refine", of_refinement, refined, timer.captured, persistent))
    fusion = Fusion.of(size, timer.device)
    squarer = [Trial(f"tiles_{of_fusion.CELLS // rows}x{rows}", {"TILE_ROWS": rows}) for rows in (2, 4)]
    yield from compared(Operation("fuse_labels", of_fusion, lambda: (fusion.fused(),), timer.time, squarer))
    selected = partial(select, on_device, threshold, layers=layers, budget=budget)
    yield from compared(
        Operation(
            "select_with_budget", of_selection, selected, timer.captured, [Trial("ticket", {"TICKET": True})], _promised
        )
    )


def tiles(size: Size, timer: Timer) -> Iterator[Found]:
    """Other tiles of refinement's convolutions."""
    made, error_logit = stage(size, timer.device), error_logits(size)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    selection = select(torch.from_numpy(error_logit).to(timer.device), threshold_of(error_logit, SHARE))
    count, trials = int(selection.counts[2]), []
    for name in ("LARGE", "SMALL"):
        shipped = getattr(of_refinement, name)
        for pixels, depth, warps, stages in TILES:
            tile = of_refinement.Tile(pixels, depth, shipped.width, warps, stages)
            if tile != shipped:
                label = f"{name.lower()}_{pixels}x{depth}/{warps}_warps/{stages}_stages"
                trials.append(Trial(label, {name: tile}, is_equal=False))

    def refined() -> Tensors:
        return (refine(weights, selection, made.logits, made.low, made.coarse, made.gate)[:count],)

    yield from compared(Operation("refine_tile", of_refinement, refined, timer.captured, trials))


def compared(operation: Operation) -> Iterator[Found]:
    """Rows of trials, against what is shipped; one that is wrong is not timed, nor one that cannot be launched."""
    wanted, wrong = [each.clone() for each in operation.promised(operation.work())], []
    shipped = operation.timed(operation.work)
    yield single(f"variants/{operation.name}@shipped", shipped)
    for trial in operation.trials:
        name = f"variants/{operation.name}@{trial.name}"
        try:
            with changed(operation.module, **trial.constants):
                found = operation.promised(operation.work())
                if not all(_same(*pair, trial.is_equal) for pair in zip(found, wanted, strict=True)):
                    wrong.append(f"{name}: other results than those of the shipped launches")
                    continue
                times = operation.timed(operation.work)
        except Exception as error:  # too much shared memory, or too many registers
            yield f"{name}: not measured, {(str(error) or type(error).__name__).splitlines()[0]}"
            continue
        yield against(name, times, shipped, "the same bits" if trial.is_equal else "the same but for rounding")
    if wrong:
        raise Wrong("; ".join(wrong))


@contextmanager
def changed(module: ModuleType, **constants: Any) -> Iterator[None]:
    """Other constants in a module, for a while."""
    kept = {name: getattr(module, name) for name in constants}
    try:
        for name, value in constants.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(module, name, value)


def _same(found: torch.Tensor, wanted: torch.Tensor, is_equal: bool) -> bool:
    if is_equal or not wanted.is_floating_point():
        return torch.equal(found, wanted)
    return bool((found - wanted).abs().max() <= 5e-3 * wanted.abs().max())  # half precision between five layers


def _promised(selection: Selection) -> Tensors:
    """What a selection promises; rows only as far as the counts."""
    rows = [selection.rows[layer, :count] for layer, count in enumerate(selection.counts.tolist())]
    return [selection.slots, selection.counts, selection.left_out, selection.flagged, *rows]
