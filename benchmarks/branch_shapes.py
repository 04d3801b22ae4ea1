"""What do shapes of the branches cost in the front graph, over the semantic branch alone?

    python -m benchmarks.branch_shapes

Front graphs of the embedded bundle's network with branches of several shapes, their weights drawn at random, in ONNX
Runtime on one thread, all in turn on the same input: processor time, so that other programs do not lengthen it. What a
shape is worth has to be trained: `docs/benchmarks.md` has it beside these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.plain_network import semantic_graph
from benchmarks.report import Row, finish, spread
from errseg_rt import Runtime
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.graphs import export_graphs
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


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, rest = parser.parse_known_args()
    with Runtime("camvid") as runtime:
        graphs = {"semantic": semantic_graph(runtime), **{name: front_graph(shape) for name, shape in SHAPES.items()}}
    engines = {name: OnnxRuntimeEngine(graph, name, threads=1) for name, graph in graphs.items()}
    finish(
        [row for size, rounds in SIZES.items() for row in over_semantic(engines, size, rounds)], "branch_shapes", rest
    )


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


if __name__ == "__main__":
    main()
