"""What do shapes of the branches cost, in the front graph over the semantic branch alone, and in refinement?

    python -m benchmarks.branch_shapes

Front graphs of the embedded bundle's network with branches of several shapes, their weights drawn at random, in ONNX
Runtime on one thread, all in turn on the same input; and selection with refinement by stages 3 of several shapes, along
the boundaries of a rendered street. Processor time, so that other programs do not lengthen it. What a shape is worth
has to be trained: `docs/benchmarks.md` has it beside these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import refine as of_refinement
from benchmarks.plain_network import semantic_graph
from benchmarks.report import Row, finish, spread
from errseg_rt import Runtime
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.graphs import export_graphs
from errseg_rt.kernels import refine, select
from errseg_rt.networks import Cascade
from errseg_rt.training.recipe_files import load_recipe

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "as the paper": {"error_kernels": (3, 3, 3), "error_context": "high", "detail_kernels": (3, 3, 3)},
    "error 1,3,3": {"error_kernels": (1, 3, 3), "error_context": "high", "detail_kernels": (3, 3, 3)},
    "error 1,3,3, mid": {"error_kernels": (1, 3, 3), "error_context": "mid", "detail_kernels": (3, 3, 3)},
    "error 1,3,1, mid": {"error_kernels": (1, 3, 1), "error_context": "mid", "detail_kernels": (3, 3, 3)},
    "error 1,1,1, mid": {"error_kernels": (1, 1, 1), "error_context": "mid", "detail_kernels": (3, 3, 3)},
    "error 1,3,1, mid, detail 1,3,3": {"error_kernels": (1, 3, 1), "error_context": "mid", "detail_kernels": (1, 3, 3)},
    "error 1,3,1, mid, detail 1,3,1": {"error_kernels": (1, 3, 1), "error_context": "mid", "detail_kernels": (1, 3, 1)},
}
"""Fields of `CascadeConfig`, by what they are called."""
SIZES = {(545, 721): 25, (1025, 2049): 8}
"""Inputs, and how often each is run."""
STAGES3 = ((3, 3, 3), (1, 3, 3), (1, 3, 1), (3, 1, 1), (1, 1, 1))
"""Kernels of stage 3, the first of which the others are held against."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, rest = parser.parse_known_args()
    with Runtime("camvid") as runtime:
        graphs = {"semantic": semantic_graph(runtime), **{name: front_graph(shape) for name, shape in SHAPES.items()}}
    engines = {name: OnnxRuntimeEngine(graph, name, threads=1) for name, graph in graphs.items()}
    rows = [row for size, rounds in SIZES.items() for row in over_semantic(engines, size, rounds)]
    finish([*rows, *refinement()], "branch_shapes", rest)


def front_graph(shape: Mapping[str, Any]) -> bytes:
    """The front graph of the embedded bundle's recipe with this shape."""
    recipe = load_recipe("camvid")
    config = replace(recipe.cascade, error_frozen=True, detail_frozen=True, **shape)
    torch.manual_seed(0)
    return export_graphs(Cascade(config), recipe.input, ("front",))["front"]


def over_semantic(engines: Mapping[str, OnnxRuntimeEngine], size: tuple[int, int], rounds: int) -> list[Row]:
    """Processor time of each shape over that of the semantic branch in the same round, in percent."""
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 2):
        for name, engine in engines.items():
            start = time.process_time()
            engine.run({"image": image})
            taken[name].append(time.process_time() - start)
    times: dict[str, npt.NDArray[np.float64]] = {name: np.array(each[2:]) for name, each in taken.items()}
    where = f"{size[0]}x{size[1]}"
    note = f"semantic branch alone {1000 * np.median(times['semantic']):.0f} ms"
    return [
        spread(f"branch_shapes/over_semantic@{where}/{name}", 100 * (times[name] / times["semantic"] - 1), "%", note)
        for name in SHAPES
    ]


def refinement(rounds: int = 25) -> Iterator[Row]:
    """Processor time of selection and refinement by each stage 3 over that of 3, 3, 3 in the same round, in percent."""
    rng = np.random.default_rng(0)
    masks = {f"{mask.mean():.0%}": mask for pattern, mask in of_refinement.masks(rng) if pattern == "boundary"}
    case = of_refinement.CASES[1]
    operands = of_refinement.operands(case, rng)
    stages = [of_refinement.drawn(replace(case, kernels=kernels))[1] for kernels in STAGES3]
    for share, mask in masks.items():
        error_logit = np.where(mask, np.float32(1), np.float32(-1))
        taken = np.empty((rounds + 2, len(stages)))
        for times in taken:
            for n, weights in enumerate(stages):
                start = time.process_time()
                refine(weights, select(error_logit, 0.5, layers=weights.layers), *operands)
                times[n] = time.process_time() - start
        for kernels, times in zip(STAGES3[1:], taken[2:, 1:].T, strict=True):
            name = f"branch_shapes/refinement@{share}/{','.join(map(str, kernels))}"
            yield spread(name, 100 * times / taken[2:, 0], "%", f"3,3,3 {1000 * np.median(taken[2:, 0]):.1f} ms")


if __name__ == "__main__":
    main()
