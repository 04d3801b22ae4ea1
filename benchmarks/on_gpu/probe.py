"""What is installed on a machine, as far as the other stages need it, and whether a kernel runs there."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.timing import Wrong
from errseg_rt.system.stamp import version_of

# Modules that stages cannot do without; those that only some of the product needs.
NEEDED = (
    "cv2",
    "hypothesis",
    "numba",
    "onnx",
    "onnxruntime",
    "pytest",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "typer",
)
WELCOME = ("av", "matplotlib", "onnxscript", "pycuda", "tensorrt")
_SANITIZERS = ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer")


def look(device: torch.device) -> Iterator[Found]:
    """Versions, what is missing, and the flags that decide what fp32 means."""
    cudnn = torch.backends.cudnn
    yield (
        f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"cuDNN {cudnn.version()}, triton {version_of('triton')}"
    )
    yield f"TF32 is {'on' if cudnn.allow_tf32 else 'off'} in cuDNN as torch leaves it"
    yield cuda_core_fault() or f"cuda-core {version_of('cuda-core')}"
    yield f"compute-sanitizer: {sanitizer() or 'not installed'}"
    absent = [name for name in WELCOME if find_spec(name) is None]
    if absent:
        yield f"without {', '.join(absent)}"
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Wrong(f"stages need what is not installed: {', '.join(missing)}")


def compiled() -> Iterator[Found]:
    """Whether numba compiles for the NumPy that is installed: references on the CPU are its code."""
    from errseg_rt.kernels import select, select_reference

    logits = np.random.default_rng(0).standard_normal((9, 13)).astype(np.float32)
    if not np.array_equal(select(logits, 0.5).counts, select_reference(logits, 0.5).counts):
        raise Wrong("select on the CPU is not its definition")
    yield f"numba {version_of('numba')} compiles, NumPy {np.__version__}"


def launched(device: torch.device) -> Iterator[Found]:
    """Whether Triton compiles and launches a kernel."""
    from errseg_rt.kernels import preprocess, preprocess_reference

    frame = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    colors = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    found = preprocess(torch.from_numpy(frame).to(device), (13, 17), (13, 17), **colors)
    wanted = preprocess_reference(frame, (13, 17), (13, 17), **colors)
    if not np.allclose(found.cpu().numpy(), wanted, rtol=0, atol=1e-5):
        raise Wrong("preprocess on the GPU is not its definition")
    yield "a kernel runs"


def cuda_core_fault() -> str | None:
    """What is wrong with cuda-core; None where nothing is. Before 1.0 its events were other ones."""
    version = version_of("cuda-core")
    if version is None:
        return "cuda-core is not installed: pip install 'cuda-core[cu13]>=1'"
    if int(version.split(".")[0]) < 1:
        return f"cuda-core {version} is too old: pip install 'cuda-core[cu13]>=1'"
    return None


def sanitizer() -> str | None:
    """Path of compute-sanitizer; None where it is not installed."""
    found = shutil.which("compute-sanitizer")
    return found or next((path for path in _SANITIZERS if Path(path).is_file()), None)
