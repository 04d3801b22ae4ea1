"""What does a frame cost with each semantic network, branch by branch, on the CPU?

    python -m benchmarks.networks
    python -m benchmarks.networks --only squeezenas deeplabv3plus-resnet50 --repeats 5

A 1025x2049 frame with 19 classes, weights at random, graphs by ONNX Runtime, on one thread, in the processor's time;
each network in a process of its own. Rows of networks that are not measured again stay; `docs/networks.png` is drawn
from all of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.refine import Stage3, masks
from benchmarks.report import RESULTS, Row, spread
from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.kernels import Geometry, fuse_labels, refine, select
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.networks.registry import SEMANTIC_NETWORKS
from errseg_rt.networks.taps import Taps
from errseg_rt.places.driver import gpu_name
from errseg_rt.scenes import StreetScene
from errseg_rt.system.stamp import machine_stamp
from errseg_rt.training.recipe_files import load_recipe

SIZE, CLASSES = (1025, 2049), 19
FLAGGED = 0.05
PLOT = Path(__file__).parents[1] / "docs" / "networks.png"
RECIPES = {"squeezenas": "camvid", "efficientvit-b0": "camvid", "light-unet": "nuclei"}
"""Whose widths of branches a network gets; the paper's, else."""
PAPER = {"semantic": 0.38, "error": 0.05, "detail_dense": 0.28}
"""Seconds on its GPU (Gong et al. 2021, section 5.2.3)."""
SHOWN = ("error", "detail_dense", "detail_sparse", "fusion")

Array = npt.NDArray[np.float32]


class Semantic(nn.Module):
    """The semantic branch, its logits on the grid."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, image: Tensor) -> Taps:
        """An image `[1, 3, H, W]` to taps."""
        return self.cascade.taps(image)


class ErrorPart(nn.Module):
    """The error-prediction branch."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, image: Tensor, logits: Tensor, low: Tensor, mid: Tensor, high: Tensor) -> Tensor:
        """Image and taps to the error logit."""
        error_logit: Tensor = self.cascade.error(image, Taps(logits, low, mid, high, high))
        return error_logit


class Decoder(nn.Module):
    """Stages 1 and 2 of the detail branch."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__()
        self.cascade = cascade

    def forward(self, mid: Tensor, deep: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Taps to what stage 3 needs."""
        coarse, gate = self.cascade.detail.decode(Taps(high, mid, mid, deep, high))  # type: ignore[operator]
        return coarse, gate


def build(name: str) -> Cascade:
    """A cascade with the network of that name, and weights at random that keep activations near 1."""
    config = load_recipe(RECIPES.get(name, "cityscapes-deeplabv3plus")).cascade
    config = replace(config, semantic=name, classes=CLASSES, things=(), error_frozen=True, detail_frozen=True)
    torch.manual_seed(0)
    cascade = Cascade(config).eval()
    norms = [module for module in cascade.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:  # else they shrink from layer to layer, until the processor computes with denormal numbers
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        cascade.semantic(torch.randn(2, 3, 129, 257))
    return cascade.eval()


def counts(name: str, config: CascadeConfig) -> dict[str, tuple[float, float]]:
    """Millions of parameters and billions of multiply-adds of each branch, on a frame that is not computed."""
    with torch.device("meta"):
        cascade = Cascade(config).eval()
        image = torch.empty(1, 3, *SIZE)

    def billions(run: Callable[[], Any]) -> tuple[float, Any]:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            done = run()
        return counter.get_total_flops() / 2e9, done

    def millions(module: nn.Module) -> float:
        return sum(weight.numel() for weight in module.parameters()) / 1e6

    semantic, taps = billions(lambda: cascade.taps(image))
    error, _ = billions(lambda: cascade.error(image, taps))
    detail, _ = billions(lambda: cascade.detail(taps))
    parts = {"semantic": semantic, "error": error, "detail_dense": detail}
    modules = {"semantic": cascade.semantic, "error": cascade.error, "detail_dense": cascade.detail}
    return {part: (millions(modules[part]), work) for part, work in parts.items()}  # type: ignore[arg-type]


def measure(name: str, repeats: int) -> list[Row]:
    """Rows of one network."""
    torch.set_num_threads(1)
    cascade = build(name)
    config = cascade.config
    parts = counts(name, config)
    image = _image()
    semantic = _engine(Semantic(cascade), {"image": torch.zeros(1, 3, 97, 129)}, tuple(Taps._fields))
    with torch.no_grad():
        sample: Mapping[str, Tensor] = {"image": torch.zeros(1, 3, 97, 129)}
        sample = {**sample, **cascade.taps(sample["image"])._asdict()}
        coarse, gate = cascade.detail.decode(Taps(*(sample[tap] for tap in Taps._fields)))  # type: ignore[operator]
    sample = {**sample, "coarse": coarse, "gate": gate}

    def engine(module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> OnnxRuntimeEngine:
        return _engine(module, {tap: sample[tap] for tap in inputs}, outputs)

    error = engine(ErrorPart(cascade), ("image", "logits", "low", "mid", "high"), ("error_logit",))
    decoder = engine(Decoder(cascade), ("mid", "deep", "high"), ("coarse", "gate"))
    dense = engine(Stage3(cascade.detail), ("logits", "low", "coarse", "gate"), ("detail_logits",))  # type: ignore[arg-type]
    weights = refine_weights(
        {name: value.numpy() for name, value in cascade.state_dict().items()},
        "the benchmark",
        residual=config.residual,
        align_corners=cascade.semantic.align_corners,
    )
    del cascade
    ran = {"image": image, **semantic.run({"image": image})}
    ran |= decoder.run({tap: ran[tap] for tap in decoder.inputs})
    grid = ran["logits"].shape[2:]
    # Errors lie along the boundaries of a rendered street, whatever a network with such weights says.
    (mask,) = (
        mask for pattern, mask in masks(np.random.default_rng(0), grid) if (pattern, f"{mask.mean():.0%}") == _PATTERN
    )
    logit = np.where(mask, 2.0, -2.0).astype(np.float32)
    geometry = Geometry(grid, SIZE, SIZE, SIZE, align_corners=True)
    logits, low, coarse_map = (np.ascontiguousarray(ran[tap][0]) for tap in ("logits", "low", "coarse"))
    gate_row = np.ascontiguousarray(ran["gate"].reshape(-1))

    def decode() -> None:
        decoder.run({tap: ran[tap] for tap in decoder.inputs})

    def detail_dense() -> Array:
        decode()
        return np.asarray(dense.run({tap: ran[tap] for tap in dense.inputs})["detail_logits"][0])

    def detail_sparse() -> tuple[Any, Array]:
        decode()
        selection = select(logit, 0.5, layers=weights.layers)
        return selection, refine(weights, selection, logits, low, coarse_map, gate_row, threads=1)

    selection, rows = detail_sparse()
    away = float(np.abs(rows - detail_dense()[:, mask].T).max())
    if away > 1e-2 * max(1.0, float(np.abs(rows).max())):
        raise RuntimeError(f"{name}: sparse and dense detail logits differ by {away}; nothing was timed")
    where = selection.slots[2].reshape(grid)
    runs: dict[str, Callable[[], Any]] = {
        "semantic": lambda: semantic.run({"image": image}),
        "error": lambda: error.run({tap: ran[tap] for tap in error.inputs}),
        "detail_dense": detail_dense,
        "detail_sparse": detail_sparse,
        "fusion": lambda: fuse_labels(logits, rows, where, geometry, threads=1),
    }
    times = _in_turn(runs, repeats)
    found = []
    for part, laps in times.items():
        share = statistics.median(laps) / statistics.median(times["semantic"])
        note = f"{SIZE[0]}x{SIZE[1]}, one thread, {repeats} runs; {share:.2%} of the semantic branch"
        if part == "detail_sparse":
            note += f"; {mask.mean():.1%} flagged"
        if part in parts:
            note += "; {:.3f} M parameters, {:.2f} G multiply-adds".format(*parts[part])
        found.append(spread(f"networks/{part}@{name}", np.asarray(laps), "ms", note))
    for part, (parameters, work) in parts.items():
        found.append(Row(f"networks/{part}/parameters@{name}", parameters, "M"))
        found.append(Row(f"networks/{part}/multiply_adds@{name}", work, "G"))
    return found


_PATTERN = ("boundary", f"{FLAGGED:.0%}")


def _in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of the processor for each, one after the other, so that a drift of the machine hits all."""
    times: dict[str, list[float]] = {part: [] for part in runs}
    for index in range(repeats + 1):
        for part, run in runs.items():
            start = time.process_time()
            run()
            if index:  # the first one allocates
                times[part].append(1000 * (time.process_time() - start))
    return times


def _engine(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> OnnxRuntimeEngine:
    """A module as a graph, with the sizes of its inputs left open."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # the exporter's, about itself
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(
            dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC) if tensor.shape[2:] != (1, 1) else None
            for tensor in inputs.values()
        ),
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    assert program is not None
    return OnnxRuntimeEngine(program.model_proto.SerializeToString(), "graph", threads=1)


def _image() -> Array:
    frame = StreetScene(0, *SIZE).frame(0).frame
    scaled = cv2.dnn.blobFromImage(frame, 1 / 58, mean=(118, 118, 118), swapRB=True)
    return np.ascontiguousarray(scaled, np.float32)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Stacked bars in units of the semantic branch's time: the paper's, and each network's, dense and sparse."""
    import matplotlib.pyplot as plt

    times: dict[str, dict[str, float]] = {}
    for row in rows:
        part, _, name = row["name"].removeprefix("networks/").partition("@")
        if "/" not in part:
            times.setdefault(name, {})[part] = row["value"] / 1000
    bars = [("the paper, on its GPU", PAPER, ("error", "detail_dense"))]
    for name, parts in sorted(times.items(), key=lambda item: item[1]["semantic"]):
        bars.append((f"{name}, dense", parts, ("error", "detail_dense", "fusion")))
        bars.append((f"{name}, {FLAGGED:.0%} flagged", parts, ("error", "detail_sparse", "fusion")))
    colors = {
        "semantic": "tab:gray", "error": "tab:red", "detail_dense": "tab:blue", "detail_sparse": "tab:cyan",
        "fusion": "tab:green",
    }  # fmt: skip
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.28 * len(bars)), layout="constrained")
    for label, parts, shown in bars:
        left = 0.0
        for part in ("semantic", *shown):
            width = parts[part] / parts["semantic"]
            axes.barh(label, width, left=left, color=colors[part])
            left += width
        axes.text(left, label, f" {sum(parts[part] for part in ('semantic', *shown)):.2f} s", va="center", fontsize=8)
    for part, color in colors.items():
        axes.barh([bars[0][0]], 0, color=color, label=part.replace("_", ", "))
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    axes.set_xlabel(f"time of a {SIZE[0]}x{SIZE[1]} frame, in units of the semantic branch's")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure and write; the exit code is the number of networks that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(SEMANTIC_NETWORKS), default=sorted(SEMANTIC_NETWORKS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "networks.json")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        (name,) = args.only
        args.json.write_text(json.dumps([asdict(row) for row in measure(name, args.repeats)]), encoding="utf-8")
        return 0
    failed = 0
    for name in args.only:
        rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"] if args.json.is_file() else []
        part = args.json.with_suffix(".part")
        command = [sys.executable, "-m", "benchmarks.networks", "--here", "--only", name, "--json", str(part)]
        if subprocess.run([*command, "--repeats", str(args.repeats)], check=False).returncode:
            print(f"{name}: failed", flush=True)
            failed += 1
            continue
        found = json.loads(part.read_text(encoding="utf-8"))
        part.unlink()
        for row in found:
            print(f"{row['name']}: {row['value']:.4g} {row['unit']}  {row['note']}", flush=True)
        rows = [row for row in rows if not row["name"].endswith(f"@{name}")] + found
        content = {"machine": machine_stamp(gpu_name()), "rows": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if args.json == RESULTS / "networks.json":
        draw(json.loads(args.json.read_text(encoding="utf-8"))["rows"], PLOT)
    return failed


if __name__ == "__main__":
    sys.exit(main())
