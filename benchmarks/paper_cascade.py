"""What does the paper's cascade cost on its own network, DeepLabv3+ with Xception-65, at 1025x2049 on the CPU?

    python -m benchmarks.paper_cascade

Weights at random, widths of the recipe `cityscapes-deeplabv3plus`. Random networks flag noise, so the front graph's
logits and error logits are moved to those of a rendered street, whose 5 % of pixels nearest to a boundary are flagged:
all of the graph is computed as it is. In Gong et al. (2021), section 5.2.3, error prediction and a dense detail branch
add 87 % to the semantic branch. Processor time, of all threads, tells the cost on a machine that others use, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save

from benchmarks.plain_network import semantic_graph
from benchmarks.report import Row, finish, spread
from errseg_rt import Runtime
from errseg_rt.bundle.bundle import WEIGHTS, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.graphs import export_graphs
from errseg_rt.networks.cascade import Cascade
from errseg_rt.scenes import StreetScene
from errseg_rt.training.recipe_files import load_recipe

SIZE = (1025, 2049)
STRIDE = 4
FLAGGED, THRESHOLD = 0.05, 0.7
SEED = 0
MARGIN = 10.0  # between the logits of a street's label and the others

Array = npt.NDArray[np.float32]

_PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
from errseg_rt import Runtime
frame = np.load(sys.argv[2])
with Runtime(sys.argv[1]) as runtime:
    assert runtime.segment(frame).flagged.any()
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])  # KiB
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="how often each is timed, semantic branch and cascade")
    parser.add_argument("--keep", type=Path, help="where the bundle lies from run to run, as exporting takes minutes")
    args, rest = parser.parse_known_args()
    where = f"deeplabv3plus-xception65@{SIZE[0]}x{SIZE[1]}"
    street = StreetScene(SEED, *SIZE).frame(20)
    with TemporaryDirectory() as temporary:
        bundle, frame = args.keep or Path(temporary) / "bundle", Path(temporary) / "frame.npy"
        if not bundle.exists():
            build(bundle, *maps(street.labels))
        np.save(frame, street.frame)
        command = [sys.executable, "-c", _PROGRAM, str(bundle), str(frame)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024 / 1e6
        with Runtime(bundle) as runtime:
            rows = overhead(runtime, street.frame, where, args.pairs)
    note = "peak of a process that segments one frame"
    finish([*rows, Row(f"paper_cascade/memory@{where}", peak, "MB", note=note)], "paper_cascade", rest)


def overhead(runtime: Runtime, frame: npt.NDArray[np.uint8], where: str, pairs: int) -> list[Row]:
    """All that a frame costs beyond its semantic branch, as a share of that, in wall and in processor time."""
    semantic = OnnxRuntimeEngine(semantic_graph(runtime), "semantic")
    image = np.random.default_rng(SEED).standard_normal((1, 3, *SIZE), np.float32)
    alone, whole = [], []
    for index in range(pairs + 1):
        timed = _seconds(lambda: semantic.run({"image": image})), _seconds(lambda: runtime.segment(frame))
        if index:  # the first time, kernels are compiled and memory is taken
            alone.append(timed[0])
            whole.append(timed[1])
    result = runtime.segment(frame)
    laps = ", ".join(f"{lap} {took:.0f} ms" for lap, took in result.timings.items())
    rows = []
    for column, clock in enumerate(("wall", "processor")):
        times = np.array([[each[column] for each in taken] for taken in (alone, whole)])
        said = (
            f"{clock} time, {pairs} pairs: semantic branch alone {np.median(times[0]):.2f} s, whole frame with "
            f"preprocessing {np.median(times[1]):.2f} s; {result.flagged_share:.1%} flagged, work {result.work:.1%} of "
            f"the dense stage; laps of one frame: {laps}"
        )
        rows.append(spread(f"paper_cascade/overhead_{clock}@{where}", 100 * (times[1] / times[0] - 1), "%", said))
    return rows


def _seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def maps(labels: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """Logits `[1, K, h, w]` and error logits `[1, 1, h, w]` of a street, the flagged ones nearest to its boundaries."""
    grid = labels[::STRIDE, ::STRIDE]
    is_edge = cv2.morphologyEx(grid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    distance = cv2.distanceTransform((~is_edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Pixels of an edge are as near as each other: chance says which are flagged first.
    nearness = np.random.default_rng(SEED).random(grid.shape) - distance
    level = np.quantile(nearness, 1 - FLAGGED)
    error = (nearness - level + np.log(THRESHOLD / (1 - THRESHOLD))).astype(np.float32)
    classes = load_recipe("cityscapes-deeplabv3plus").cascade.classes
    logits = MARGIN * (grid % classes == np.arange(classes)[:, None, None])
    return logits[None].astype(np.float32), error[None, None]


def build(folder: Path, logits: Array, error: Array) -> None:
    """A bundle of the paper's cascade, whose front graph gives these logits."""
    recipe = load_recipe("cityscapes-deeplabv3plus")
    torch.manual_seed(SEED)
    cascade = Cascade(replace(recipe.cascade, error_frozen=True, detail_frozen=True))
    _settle(cascade)
    graphs = export_graphs(cascade.eval())
    front = onnx.load_from_string(graphs["front"])
    for name, wanted in (("logits", logits), ("error_logit", error)):
        _move(front, name, wanted)
    manifest = Manifest(
        name="paper",
        classes=recipe.classes,
        input=recipe.input,
        align_corners=True,
        threshold=THRESHOLD,
        lowest_threshold=THRESHOLD,
        calibration=Calibration((0.0, 1.0), (0.0, 1.0)),
        cascade=cascade.config.to_dict(),
    )
    weights = save({name: tensor.contiguous() for name, tensor in cascade.state_dict().items()})
    files = {"graphs/front.onnx": front.SerializeToString(), "graphs/refine.onnx": graphs["refine"], WEIGHTS: weights}
    write_bundle(folder, manifest, files)


def _settle(cascade: Cascade) -> None:
    """Give the norms the statistics of their inputs: else these fade, and processors slow down at denormal numbers."""
    for norm in (module for module in cascade.semantic.modules() if isinstance(module, torch.nn.BatchNorm2d)):  # type: ignore[attr-defined]
        norm.momentum = None
    with torch.no_grad():
        cascade.semantic(torch.randn(2, 3, 129, 257))


def _move(model: onnx.ModelProto, output: str, wanted: Array) -> None:
    """Have an output be what is wanted, whatever is computed for it."""
    graph = model.graph
    raw = f"{output}_computed"
    for node in graph.node:
        node.output[:] = [raw if name == output else name for name in node.output]
        node.input[:] = [raw if name == output else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(wanted, f"{output}_wanted"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), f"{output}_nothing"))
    graph.node.append(helper.make_node("Mul", [raw, f"{output}_nothing"], [f"{output}_gone"]))
    graph.node.append(helper.make_node("Add", [f"{output}_gone", f"{output}_wanted"], [output]))


if __name__ == "__main__":
    main()
