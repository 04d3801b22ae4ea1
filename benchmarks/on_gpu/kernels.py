"""Each kernel, and the path behind the front graph, against torch: checked first, then timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from benchmarks.on_gpu.timing import Ceilings, Timer, Times, Wrong
from benchmarks.report import Row
from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.kernels import Geometry, fuse_labels, fuse_labels_reference, preprocess, refine, select
from errseg_rt.kernels.preprocess import preprocess_reference
from errseg_rt.kernels.refine import DeviceWeights, RefineWeights, launches, refine_reference
from errseg_rt.kernels.select import Selection, select_reference, supports_reference
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.fold import fold_norms
from errseg_rt.scenes import StreetScene

SHARES = (0.03, 0.05, 0.1, 0.2)
HALF = torch.float16
THRESHOLD = 0.7


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        frame: Height and width, as the network takes them (aligned corners).
        classes: Of the labels.
        width: Channels of the detail branch.
        low: Channels of its low-level features.
    """

    frame: tuple[int, int] = (1025, 2049)
    classes: int = 19
    width: int = 144
    low: int = 256

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return -(-self.frame[0] // 4), -(-self.frame[1] // 4)

    @property
    def geometry(self) -> Geometry:
        """A frame that is taken as it is."""
        return Geometry(self.grid, self.frame, self.frame, self.frame, True)


@dataclass(frozen=True)
class Stage:
    """Stage 3 of a detail branch with random weights: what is labelled, and with what."""

    detail: DetailBranch
    weights: RefineWeights
    logits: torch.Tensor  # [K, h, w]
    low: torch.Tensor  # [Cl, h, w], channels last
    coarse: torch.Tensor  # [C, h8, w8]
    gate: torch.Tensor  # [C]


def error_logits(size: Size) -> npt.NDArray[np.float32]:
    """High along the outlines of a rendered street's classes, as an error-prediction branch's are."""
    labels = StreetScene(7, *size.frame).frame(0).labels[::4, ::4]
    edges = np.zeros(size.grid, np.uint8)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    distance = cv2.distanceTransform(1 - edges, cv2.DIST_L2, 5)
    noise = np.random.default_rng(0).random(size.grid)
    return np.asarray(2 - distance + 0.1 * noise, np.float32)


def threshold_of(error_logit: npt.NDArray[np.float32], share: float) -> float:
    """The t that flags a share of the pixels."""
    return float(1 / (1 + np.exp(-np.quantile(error_logit.astype(np.float64), 1 - share))))


def logits_of(size: Size, sharpness: float) -> npt.NDArray[np.float32]:
    """Of a rendered street, blurred as a network's answer at stride 4 is, `[K, h, w]`."""
    labels = StreetScene(0, *size.frame).frame(0).labels[::4, ::4]
    rng = np.random.default_rng(int(10 * sharpness))
    planes = []
    for label in range(size.classes):
        noise = cv2.GaussianBlur(rng.standard_normal(size.grid, np.float32), (0, 0), 2.0)
        planes.append(10 * cv2.GaussianBlur((labels == label).astype(np.float32), (0, 0), 1 / sharpness) + noise)
    return np.stack(planes)


def stage(size: Size, device: torch.device) -> Stage:
    """Random weights and features."""
    torch.manual_seed(0)
    detail = DetailBranch(_taps(size), size.width, residual=True, frozen=True).eval()
    torch.nn.init.normal_(detail.head.weight, std=0.1)
    state = {f"detail.{name}": tensor.numpy() for name, tensor in detail.state_dict().items()}
    weights = refine_weights(state, "the benchmark", residual=True, align_corners=True)
    fold_norms(detail)
    height, width = size.grid
    generator = torch.Generator().manual_seed(0)
    low = torch.randn((1, size.low, height, width), generator=generator).to(device, HALF)
    coarse = torch.randn((size.width, (height + 1) // 2, (width + 1) // 2), generator=generator)
    return Stage(
        detail.to(device, HALF, memory_format=torch.channels_last).requires_grad_(False),
        weights,
        torch.from_numpy(logits_of(size, 0.7)).to(device, HALF),
        low.to(memory_format=torch.channels_last)[0],
        coarse.to(device, HALF),
        torch.rand(size.width, generator=generator).to(device, HALF),
    )


def _taps(size: Size) -> Any:
    """What a detail branch asks of a semantic network: its channel counts, of which stage 3 sees one."""
    counts = {"mid_channels": 8, "deep_channels": 8, "high_channels": 8, "low_channels": size.low}
    return SimpleNamespace(classes=size.classes, align_corners=True, **counts)


def eager_fusion(size: Size, semantic: torch.Tensor, detail: torch.Tensor, flagged: torch.Tensor) -> torch.Tensor:
    """What one writes with torch: select, softmax, interpolate, argmax."""
    probabilities = torch.where(flagged, detail.softmax(0), semantic.softmax(0))
    return interpolate(probabilities[None], size=size.frame, mode="bilinear", align_corners=True)[0].argmax(0)


def fusion(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Row]:
    """fuse_labels in half precision, against torch eager and torch.compile."""
    semantic, detail = (torch.from_numpy(logits_of(size, sharp)).to(HALF) for sharp in (0.7, 1.4))
    error_logit = error_logits(size)
    flagged = error_logit > np.quantile(error_logit, 0.9)
    index = np.where(flagged, flagged.cumsum().reshape(size.grid) - 1, -1).astype(np.int32)
    rows = detail[:, torch.from_numpy(flagged)].T.contiguous()
    wanted = fuse_labels_reference(semantic.numpy(), rows.numpy(), index, size.geometry).labels
    on_device = [tensor.to(timer.device) for tensor in (semantic, rows, torch.from_numpy(index))]

    def ours() -> torch.Tensor:
        return fuse_labels(*on_device, size.geometry).labels

    labels = ours().cpu().numpy()
    differs = float((labels != wanted).mean())
    if differs > 1e-5:  # ties within rounding
        raise Wrong(f"fuse_labels: {differs:.2e} of the labels differ from the definition's")
    times = timer.captured(ours)
    moved = semantic.nbytes + rows.nbytes + index.nbytes + size.frame[0] * size.frame[1]
    # Two passes of about 6 operations at 4 corners, and interpolation of what is no uniform cell, a tenth or so.
    operations = size.classes * (12 * 4 * size.grid[0] * size.grid[1] + 0.1 * 6 * size.frame[0] * size.frame[1])
    note = f"{size.frame[0]}x{size.frame[1]}, {size.classes} classes, fp16, equal to the definition but {differs:.0e}"
    yield _roofline("fuse_labels", moved, operations, times, ceilings)
    dense = [tensor.to(timer.device) for tensor in (semantic, detail, torch.from_numpy(flagged))]

    def eager(semantic: torch.Tensor, detail: torch.Tensor, flagged: torch.Tensor) -> torch.Tensor:
        return eager_fusion(size, semantic, detail, flagged)

    baselines: dict[str, Callable[..., torch.Tensor]] = {"torch_eager": eager}
    if timer.device.type == "cuda":
        baselines["torch_compile"] = torch.compile(eager)
    for name, function in baselines.items():
        theirs = timer.captured(partial(function, *dense))
        bar = "; bars: at most 40 us, at least 8 times" if name == "torch_compile" else ""
        yield _against(f"fuse_labels/gpu_vs_{name}", times, theirs, note + bar)


def preprocessing(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Row]:
    """Preprocess against what one writes with torch."""
    frame = StreetScene(3, *size.frame).frame(0).frame
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
    times = timer.captured(ours)
    yield _roofline("preprocess", frame.nbytes + 2 * wanted.size, 2 * wanted.size, times, ceilings)
    yield _against("preprocess/gpu_vs_torch_eager", times, timer.captured(theirs), "fp16")


def refinement(size: Size, timer: Timer, ceilings: Ceilings) -> Iterator[Row]:
    """Select + refine on flagged pixels against cuDNN's dense stage 3, and the path behind the front graph."""
    _check_refinement(size, timer)
    made, error_logit = stage(size, timer.device), error_logits(size)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    on_device = torch.from_numpy(error_logit).to(timer.device)
    dense = partial(_dense, made)
    whole, dense_times = dense(), timer.captured(dense)
    row_work = made.weights.row_work
    dense_work = size.grid[0] * size.grid[1] * sum(row_work)
    yield _roofline("refine_dense_cudnn", made.low.nbytes + 2 * whole.numel(), 2 * dense_work, dense_times, ceilings)
    for share in SHARES:
        threshold = threshold_of(error_logit, share)

        def selected(threshold: float = threshold) -> Selection:
            return select(on_device, threshold, row_work=row_work)

        def refined(selection: Selection) -> torch.Tensor:
            return refine(weights, selection, made.logits, made.low, made.coarse, made.gate)

        def both(selected: Callable[[], Selection] = selected) -> torch.Tensor:
            return refined(selected())

        def post_front(selected: Callable[[], Selection] = selected) -> torch.Tensor:
            selection = selected()
            where = selection.slots[2].view(size.grid)
            return fuse_labels(made.logits, refined(selection), where, size.geometry).labels

        selection = selected()
        agreement = _check_selection(selection, error_logit, threshold, row_work, refined(selection), whole)
        counts = selection.counts.tolist()
        work = sum(count * each for count, each in zip(counts, row_work, strict=True)) / dense_work
        at = f"{share:.0%}"
        note = (
            f"{size.grid[0]}x{size.grid[1]}, C={size.width}, {size.low} low channels, fp16, channels last; F1 is "
            f"{counts[0] / whole[0].numel():.0%} of the grid, {work:.1%} of the work, {agreement:.3%} of flagged "
            "labels as dense"
        )
        bar = "; bar: at least 2.5 times, aiming at 4" if share == 0.05 else ""
        select_times, refine_times = timer.captured(selected), timer.captured(partial(refined, selection))
        yield _single(f"select/gpu@{at}", select_times, f"{size.grid[0]}x{size.grid[1]}")
        yield _single(f"select/gpu_with_budget@{at}", timer.captured(
            partial(select, on_device, threshold, row_work=row_work, budget=int(0.5 * work * dense_work))
        ), "half of the work that the flagged pixels would take")  # fmt: skip
        yield _against(f"refine/gpu_select_and_refine@{at}", timer.captured(both), dense_times, note + bar)
        yield _against(
            f"refine/gpu_vs_gather_and_matmul@{at}",
            refine_times,
            timer.captured(_gathered(made, weights, selection, counts, refined(selection))),
            "theirs knows the counts and has its tables of neighbours: an engine of Gather and MatMul at its best",
        )
        yield _roofline(f"refine@{at}", _moved(made, counts), 2 * work * dense_work, refine_times, ceilings)
        yield _single(
            f"cascade/gpu_post_front@{at}",
            timer.captured(post_front),
            "select, refine and fuse_labels in one CUDA graph",
        )


def tiles(size: Size, timer: Timer) -> Iterator[Row]:
    """Other tiles of refinement's convolutions, at 5 % flagged: what the launch constants are chosen by."""
    made, error_logit = stage(size, timer.device), error_logits(size)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    selection = select(torch.from_numpy(error_logit).to(timer.device), threshold_of(error_logit, 0.05))
    kept = launches.SMALL, launches.LARGE
    try:
        for pixels, depth, warps, stages in (
            (64, 64, 4, 2), (64, 64, 4, 3), (64, 64, 4, 4), (64, 128, 4, 3), (128, 64, 4, 3), (128, 64, 8, 2),
            (128, 64, 8, 3), (128, 64, 8, 4), (128, 128, 8, 2), (128, 128, 8, 3), (256, 64, 8, 3),
        ):  # fmt: skip
            for name in ("SMALL", "LARGE"):
                launches.SMALL, launches.LARGE = kept
                tile = launches.Tile(pixels, depth, launches.LARGE.width, warps, stages)
                setattr(launches, name, tile)
                label = f"refine/tile_{name.lower()}@{pixels}x{depth}/{warps}_warps/{stages}_stages"
                try:
                    times = timer.captured(
                        lambda: refine(weights, selection, made.logits, made.low, made.coarse, made.gate)
                    )
                except Exception as error:  # too much shared memory, or too many registers
                    print(f"{label}: not measured, {str(error).splitlines()[0]}")
                    continue
                is_shipped = tile == kept[name == "LARGE"]
                yield _single(label, times, "as it is shipped" if is_shipped else "")
    finally:
        launches.SMALL, launches.LARGE = kept


def _check_refinement(size: Size, timer: Timer) -> None:
    """Hold refine against the definition, with all its channels, on a grid that NumPy is done with in seconds."""
    small = replace(size, frame=(min(size.frame[0], 129), min(size.frame[1], 193)))
    made, flagged = stage(small, timer.device), error_logits(small)
    flagged = flagged > np.quantile(flagged, 0.9)
    logit = torch.where(torch.from_numpy(flagged), 1.0, -1.0).to(timer.device)
    weights = DeviceWeights.of(made.weights, timer.device, HALF)
    operands = (made.logits, made.low, made.coarse, made.gate)
    rows = refine(weights, select(logit, 0.5), *operands)[: int(flagged.sum())]
    arrays = (tensor.float().cpu().contiguous().numpy() for tensor in operands)
    wanted = refine_reference(made.weights, supports_reference(flagged), *arrays)
    difference = float(np.abs(rows.float().cpu().numpy() - wanted).max() / np.abs(wanted).max())
    if difference > 5e-3:  # half precision between five layers
        raise Wrong(f"refine: rows differ from the definition by {difference:.1e} of the largest")


def _check_selection(
    selection: Selection,
    error_logit: npt.NDArray[np.float32],
    threshold: float,
    row_work: tuple[int, int, int],
    rows: torch.Tensor,
    whole: torch.Tensor,
) -> float:
    """Hold select against the definition, and sparse against dense; the share of flagged labels that are alike."""
    wanted = select_reference(error_logit, threshold, row_work=row_work)
    same = selection.counts.tolist() == wanted.counts.tolist()
    for layer, count in enumerate(wanted.counts):
        found = selection.rows[layer, :count].cpu().numpy()
        same = same and np.array_equal(found, wanted.support(layer + 1))
    if not same:
        raise Wrong("select: the supports differ from the definition's")
    flagged = torch.from_numpy(wanted.support(3)).long().to(rows.device)
    agreement = float((rows[: len(flagged)].argmax(1) == whole.flatten(1)[:, flagged].argmax(0)).float().mean())
    if agreement < 0.999:
        raise Wrong(f"refine: only {agreement:.3%} of the flagged labels are those of the dense stage")
    return agreement


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


def _single(name: str, times: Times, note: str = "") -> Row:
    quantiles = (1e3 * times.low, 1e3 * times.middle, 1e3 * times.high)
    return Row(name, 1e3 * times.middle, "us", quantiles=quantiles, note=note)


def _against(name: str, ours: Times, theirs: Times, note: str) -> Row:
    ratios = (theirs.low / ours.high, theirs.middle / ours.middle, theirs.high / ours.low)
    return Row(name, 1e3 * ours.middle, "us", 1e3 * theirs.middle, ratios[1], ratios, note)


def _roofline(name: str, moved: float, operations: float, times: Times, ceilings: Ceilings) -> Row:
    share, ceiling = ceilings.share(moved, operations, times.middle)
    note = (
        f"of the {ceiling}; {moved / 1e6:.1f} MB, {operations / 1e9:.2f} GFLOP, {1e3 * times.middle:.1f} us: "
        f"{moved / times.middle / 1e6:.0f} GB/s, {operations / times.middle / 1e9:.1f} TFLOP/s"
    )
    return Row(f"roofline/{name}", 100 * share, "%", note=note)
