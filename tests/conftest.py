"""Fixtures that several tests share, and what becomes of tests that need what a machine may lack."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.cli.app import main
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import SceneFrame, StreetScene

# Frame, content, input and grid of frames on a grid, small and odd of size.
GEOMETRIES = {
    "padded": Geometry((9, 11), (33, 41), (30, 37), (30, 37), align_corners=True),
    "enlarged": Geometry((9, 11), (36, 44), (31, 40), (21, 27), align_corners=False),
    "shrunk": Geometry((6, 8), (21, 29), (20, 26), (43, 50), align_corners=True),
}


def _let_torchvision_load() -> None:
    """Define the operators that torchvision asks for at its import.

    Registries have it built for CUDA, whose own operators do not load beside a torch for CPUs. torchmetrics imports it
    wherever it is installed, and no training would run.
    """
    if find_spec("torchvision") is None or find_spec("torch") is None:
        return
    import torch

    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # it is there
                torch.library.define(
                    f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


_let_torchvision_load()


@lru_cache
def gpu_fault() -> str | None:
    """Why there is no GPU for tests; None where there is one. Asked of the driver alone, which needs no library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "an NVIDIA driver, but no device"
    return None


def _export_untraced() -> None:
    """Have coverage look away while torch exports, which makes tens of millions of calls.

    Until Python 3.12, whatever runs under a tracer takes half as long again. What is exported runs elsewhere, too.
    """
    torch = sys.modules.get("torch")
    if torch is None or sys.gettrace() is None or hasattr(torch.onnx.export, "__wrapped__"):
        return
    export = torch.onnx.export

    @wraps(export)
    def untraced(*given: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return export(*given, **options)
        finally:
            sys.settrace(tracer)

    torch.onnx.export = untraced


def pytest_runtest_setup(item: pytest.Item) -> None:
    _export_untraced()
    if item.get_closest_marker("gpu") is None or gpu_fault() is None:
        return
    if os.environ.get("ERRSEG_REQUIRE_GPU") == "1":
        pytest.fail(f"ERRSEG_REQUIRE_GPU=1 promises a GPU: {gpu_fault()}", pytrace=False)
    pytest.skip(f"needs an NVIDIA GPU: {gpu_fault()}")


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return GEOMETRIES[request.param]


@pytest.fixture
def padded() -> Geometry:
    return GEOMETRIES["padded"]


@pytest.fixture(scope="session")
def scene() -> StreetScene:
    return StreetScene(seed=7, height=96, width=128)


@pytest.fixture(scope="session")
def rendered(scene: StreetScene) -> SceneFrame:
    return scene.frame(0)


@pytest.fixture
def frame(rendered: SceneFrame) -> npt.NDArray[np.uint8]:
    return rendered.frame.copy()


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """The embedded bundle; a test that changes its runtime opens its own."""
    with Runtime(threads=1) as opened:
        yield opened


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A copy of the embedded bundle's folder, to be damaged."""
    return Path(shutil.copytree(Bundle.open("camvid").folder, tmp_path / "bundle"))


@pytest.fixture
def manifest() -> Manifest:
    """A valid manifest that names no files."""
    return Manifest(
        name="tiny",
        classes=CAMVID,
        input=InputSpec(scale=1.5, enlarge_up_to=5000, multiple=8),
        align_corners=False,
        threshold=0.7,
        lowest_threshold=0.3,
        calibration=Calibration((-2.0, 0.0, 3.0), (0.01, 0.2, 0.9)),
        cascade={"semantic": "squeezenas", "classes": 11},
        provenance={"data": "none"},
        metrics={"camvid": {"miou": 0.5}},
    )


@pytest.fixture
def tiny_bundle(manifest: Manifest, tmp_path: Path) -> Path:
    """Folder of a bundle whose files are whole but no graphs: enough for what is checked before an engine loads."""
    files = {"graphs/front.onnx": b"front" * 100, "graphs/refine.onnx": b"refine", "weights.safetensors": b"weights"}
    return write_bundle(tmp_path / "tiny", manifest, files).folder


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and all that went to stdout and stderr, also from within libraries."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def kernels_are_compiled() -> None:
    """So that no test finds a line on stderr that says so."""
    with Runtime(threads=1) as opened:
        opened.warm_up()


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kernels_are_compiled: None
) -> Callable[..., Outcome]:
    """Runs `errseg-rt` with some arguments in this process."""
    monkeypatch.setenv("COLUMNS", "300")  # wide enough that no table breaks its lines

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Outcome(int(stop.value.code or 0), printed.out, printed.err)

    return run


def data_folder(name: str, part: str) -> Path:
    root = os.environ.get("ERRSEG_DATA")
    if not root:
        pytest.skip(f"needs {name}: the environment variable ERRSEG_DATA is not set")
    folder = Path(root) / name
    if not (folder / part).is_dir():
        pytest.skip(f"needs {name}: there is no {folder / part}")
    return folder


@pytest.fixture(scope="session")
def camvid_val() -> Path:
    """Folder with the `images` and `labels` of CamVid's validation part."""
    return data_folder("camvid", "val/images") / "val"


@pytest.fixture(scope="session")
def cityscapes() -> Path:
    """Folder that holds `leftImg8bit/train/aachen`."""
    return data_folder("cityscapes", "leftImg8bit/train/aachen")
