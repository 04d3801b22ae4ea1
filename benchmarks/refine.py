"""How near does sparse refinement come to the ideal: the dense stage's time, over the share of its work?

    python -m benchmarks.refine

Stage 3 of a detail branch as the paper's (C = 144, 256 low-level channels, 19 classes) and as the embedded bundle's, on
the grid of a 1025x2049 frame, against the same stage dense in ONNX Runtime: NCHW features in, logits out. A row without
a pattern's name holds the pattern that comes out worst, with the paper's stage.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.report import Row, compare, finish
from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.kernels.refine import refine
from errseg_rt.kernels.refine.weights import RefineWeights
from errseg_rt.kernels.refine.work import share_of_work
from errseg_rt.kernels.select import supports_reference
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.scenes import StreetScene

GRID = (257, 513)
SHARES = (0.03, 0.05, 0.1, 0.2)
SEED = 0


@dataclass(frozen=True)
class Case:
    """A detail branch, and what of a semantic network it reads."""

    name: str
    width: int
    low_channels: int
    classes: int
    kernels: tuple[int, int, int] = (3, 3, 3)
    mid_channels: int = 8
    deep_channels: int = 8
    high_channels: int = 8
    align_corners: bool = True


CASES = (Case("C=144", 144, 256, 19), Case("C=32", 32, 24, 11, (1, 3, 1)))


class Stage3(torch.nn.Module):
    """The dense stage as a graph of its own."""

    def __init__(self, detail: DetailBranch) -> None:
        super().__init__()
        self.detail = detail

    def forward(
        self, logits: torch.Tensor, low: torch.Tensor, coarse: torch.Tensor, gate: torch.Tensor
    ) -> torch.Tensor:
        """Detail logits of every grid pixel."""
        return self.detail.refine(logits, low, coarse, gate)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    args, rest = parser.parse_known_args()
    rows = [row for case in CASES for row in measure(case, args.pairs)]
    finish([*worst(rows, CASES[0]), *rows], "refine", rest)


def worst(rows: list[Row], case: Case) -> Iterator[Row]:
    """Of each share of flagged pixels, the pattern that comes out worst."""
    for share in SHARES:
        name = f"refine/share_of_ideal@{share:.0%}"
        patterns = [row for row in rows if row.name.startswith(f"{name}/") and row.name.endswith(case.name)]
        yield replace(min(patterns, key=lambda row: row.value), name=name)


def measure(case: Case, pairs: int) -> Iterator[Row]:
    """Rows of one case: each pattern and share of flagged pixels."""
    rng, threads = np.random.default_rng(SEED), os.cpu_count() or 1
    detail, weights = drawn(case)
    logits, low, coarse, gate = operands(case, rng)
    feeds = {"logits": logits[None], "low": low[None], "coarse": coarse[None], "gate": gate[None, :, None, None]}
    dense = _dense(detail, feeds)
    whole = dense.run(feeds)["detail_logits"][0]
    for pattern, mask in masks(rng):
        selection = supports_reference(mask, weights.layers)
        rows = refine(weights, selection, logits, low, coarse, gate, threads=threads)
        difference = float(np.abs(rows - whole[:, mask].T).max())
        if difference > 1e-3:
            raise SystemExit(f"{case.name}, {pattern}: sparse differs from dense by {difference}; nothing is timed")
        work = share_of_work(weights, selection)
        timed = compare(
            "",
            lambda selection=selection: refine(weights, selection, logits, low, coarse, gate, threads=threads),  # type: ignore[misc]
            lambda: dense.run(feeds),
            pairs=pairs,
        )
        assert timed.ratio is not None
        assert timed.quantiles is not None
        share = 100 * work * timed.ratio
        note = (
            f"{pattern}; {timed.value:.1f} ms against {timed.baseline:.1f} ms dense, {timed.ratio:.2f} times faster; "
            f"{work:.1%} of the work; largest difference {difference:.1e}"
        )
        low_end, middle, high_end = (100 * work * ratio for ratio in timed.quantiles)
        name = f"refine/share_of_ideal@{mask.mean():.0%}/{pattern}/{case.name}"
        yield Row(name, share, "%", quantiles=(low_end, middle, high_end), note=note)


def _dense(detail: DetailBranch, feeds: dict[str, npt.NDArray[np.float32]]) -> OnnxRuntimeEngine:
    inputs = tuple(torch.from_numpy(array) for array in feeds.values())
    names = {"input_names": list(feeds), "output_names": ["detail_logits"]}
    program = torch.onnx.export(Stage3(detail).eval(), inputs, dynamo=True, verbose=False, **names)
    assert program is not None
    return OnnxRuntimeEngine(program.model_proto.SerializeToString(), "refine")


def drawn(case: Case) -> tuple[DetailBranch, RefineWeights]:
    """A detail branch whose weights are drawn at random, and its stage 3."""
    torch.manual_seed(SEED)
    kernels = ((3, 3, 3), case.kernels)
    detail = DetailBranch(case, case.width, residual=True, frozen=True, kernels=kernels).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(detail.head.weight)
    state = {f"detail.{name}": tensor.numpy() for name, tensor in detail.state_dict().items()}
    return detail, refine_weights(state, residual=True, align_corners=case.align_corners, where="the benchmark")


def operands(case: Case, rng: np.random.Generator) -> list[npt.NDArray[np.float32]]:
    """Logits, low-level features, stage 2's output and gate, as `refine` takes them, of noise."""
    height, width = GRID
    coarse = (case.width, (height + 1) // 2, (width + 1) // 2)
    shapes = ((case.classes, *GRID), (case.low_channels, *GRID), coarse, (case.width,))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def masks(rng: np.random.Generator, grid: tuple[int, int] = GRID) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Seeded masks of a grid: what is nearest to class boundaries of a rendered street, in blobs, or anywhere."""
    labels = StreetScene(7, *grid).frame(0).labels
    edges = np.zeros(grid, np.uint8)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    noise = rng.random(grid)
    scores = {
        "boundary": -cv2.distanceTransform(1 - edges, cv2.DIST_L2, 5) + 1e-3 * noise,
        "clustered": cv2.GaussianBlur(noise, (0, 0), 12),
        "scattered": noise,
    }
    for pattern, score in scores.items():
        for share in SHARES:
            yield pattern, score > np.quantile(score, 1 - share)


if __name__ == "__main__":
    main()
