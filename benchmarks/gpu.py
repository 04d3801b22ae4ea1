"""Everything there is to measure on an NVIDIA GPU, in one command; one JSON and one plot.

    python benchmarks/gpu.py

Every result is held against its definition before it is timed, and a wrong one is not timed. What cannot be measured on
a machine (TensorRT that is not installed, energy that the driver does not tell) is named with its reason. Without a GPU
there is nothing to measure: one line, and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and Path(sys.path[0]).name == "benchmarks":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # that folder's `select` would hide Python's

import argparse
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import util
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import RESULTS, Row
from errseg_rt.system.stamp import machine_stamp, version_of

PARTS = ("kernels", "frame", "ahead", "tiles")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; the exit code is 2 without a GPU, and 1 where a result was wrong or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json", help="the plot lies beside it")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=["kernels", "frame", "ahead"],
                        help="tiles: other launch constants of refinement")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=100, help="frames that are timed one by one")
    args = parser.parse_args(arguments)
    fault = why_not(args.device)
    if fault:
        print(f"benchmarks/gpu.py: nothing was measured: {fault}")
        return 2
    import torch

    from benchmarks.on_gpu.cascade import Plan
    from benchmarks.on_gpu.kernels import Size
    from benchmarks.on_gpu.timing import Timer
    from errseg_rt import Runtime

    torch.backends.cudnn.benchmark = True  # the best of its algorithms, for the baselines as for the engine
    device = torch.device(args.device)
    timer = Timer(torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index))
    has_tensorrt = util.find_spec("tensorrt") is not None
    rows, failed = measure(args.only, timer, Size(), Plan(repeats=args.repeats), Runtime, has_tensorrt=has_tensorrt)
    write(args.json, rows, failed, {**machine_stamp(None), "gpu": stamp(timer.device)})
    return bool(failed)


def why_not(device: str) -> str | None:
    """Why there is no GPU to measure on; None where there is one."""
    try:
        import torch
    except ImportError as error:
        return f"torch is not installed ({error})"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no NVIDIA GPU here"
    if util.find_spec("triton") is None:
        return "triton is not installed, which the kernels are written in"
    index = torch.device(device).index or 0
    return None if index < torch.cuda.device_count() else f"there is no {device}"


def measure(
    parts: Sequence[str], timer: Any, size: Any, plan: Any, open_runtime: Callable[..., Any], *, has_tensorrt: bool
) -> tuple[list[Row], list[str]]:
    """Rows of some parts, and in words what failed or was wrong; the others are measured all the same."""
    from benchmarks.on_gpu import ahead, cascade, kernels
    from benchmarks.on_gpu.timing import measure_ceilings
    from errseg_rt.engines.open import open_engine
    from errseg_rt.options import Options

    rows: list[Row] = []
    failed: list[str] = []
    options = Options("torch", device="cuda", precision="fp16")

    def take(name: str, part: Callable[[], Iterator[Row]]) -> None:
        print(f"== {name}", flush=True)
        try:
            for row in part():
                rows.append(row)
                print(in_words(row), flush=True)
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{name}: {error}")

    small = {} if timer.device.type == "cuda" else {"size": 1 << 16, "side": 32}
    ceilings = measure_ceilings(timer, **small)
    rows += [
        Row("gpu/copy_bandwidth", ceilings.copy / 1e6, "GB/s", note="read and written, within the GPU's memory"),
        Row("gpu/matrix_rate", ceilings.matrix / 1e9, "TFLOP/s", note="fp16, float32 sums"),
    ]
    if "kernels" in parts:
        take("preprocess", lambda: kernels.preprocessing(size, timer, ceilings))
        take("fuse_labels", lambda: kernels.fusion(size, timer, ceilings))
        take("select and refine", lambda: kernels.refinement(size, timer, ceilings))
    if "tiles" in parts:
        take("tiles", lambda: kernels.tiles(size, timer))
    if "frame" in parts:
        with TemporaryDirectory() as folder:

            def frame() -> Iterator[Row]:
                bundle = cascade.make_bundle(Path(folder) / "bundle", plan, timer.device, with_graphs=has_tensorrt)
                frame_ms = {}
                for row in cascade.measure(bundle, plan, timer.device, open_runtime, has_tensorrt=has_tensorrt):
                    if row.name.startswith("frame/"):
                        frame_ms[row.name.removeprefix("frame/")] = row.value
                    yield row
                engine = open_engine(bundle, "front", options, open_torch(timer.device))
                yield from cascade.overhead(bundle, plan, engine, timer, frame_ms)

            take("whole frames", frame)
    if "ahead" in parts:
        with TemporaryDirectory() as folder:

            def without_torch() -> Iterator[Row]:
                bundle, gpu = cascade.make_bundle(Path(folder) / "bundle", plan, timer.device), open_torch(timer.device)
                front, stage3 = (open_engine(bundle, graph, options, gpu) for graph in ("front", "refine"))
                yield from ahead.measure(bundle, plan, (front, stage3), gpu, open_cuda_core)

            take("kernels compiled ahead", without_torch)
    return rows, failed


def open_torch(device: Any) -> Any:
    """A GPU by torch."""
    from errseg_rt.places.torch_gpu import TorchGpu

    return TorchGpu(device)


def open_cuda_core(index: int, cubins: Any) -> Any:
    """The same GPU by cuda-core."""
    from errseg_rt.places.cuda_core_gpu import CudaCoreGpu

    return CudaCoreGpu(index, cubins)


def stamp(device: Any) -> dict[str, Any]:
    """What the figures were taken on."""
    import torch
    import triton

    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_GB": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "tensorrt": version_of("tensorrt"),
    }


def in_words(row: Row) -> str:
    """One line."""
    against = "" if row.ratio is None else f"  {row.ratio:.2f} x better than {row.baseline:.4g} {row.unit}"
    return f"{row.name}: {row.value:.4g} {row.unit}{against}{row.note and f'  ({row.note})'}"


def write(path: Path, rows: Sequence[Row], failed: Sequence[str], where: dict[str, Any]) -> None:
    """The JSON, and a plot beside it."""
    content = {"machine": where, "failed": list(failed), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot(rows, where, path.with_suffix(".png"))
    print(f"{path}: {len(rows)} rows" + (f"; failed: {'; '.join(failed)}" if failed else ""))


def plot(rows: Sequence[Row], where: dict[str, Any], path: Path) -> None:
    """Left: times better than the baseline. Right: milliseconds of a frame. Below: shares of a ceiling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratios = {row.name: row.ratio for row in rows if row.ratio and not row.name.startswith("frame/")}
    frames = {row.name.removeprefix("frame/"): row.value for row in rows if row.name.startswith("frame/")}
    shares = {row.name.removeprefix("roofline/"): row.value for row in rows if row.name.startswith("roofline/")}
    panels = [
        (ratios, "times faster than the baseline"),
        (frames, "ms a frame, on the GPU"),
        (shares, "% of a ceiling"),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(18, 6), layout="constrained")
    for axis, (values, label) in zip(axes, panels, strict=True):
        axis.barh(list(values), list(values.values()), color="tab:blue")
        axis.invert_yaxis()
        axis.set_xlabel(label)
    figure.suptitle(f"{where['gpu']['name']}, {where['date']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
