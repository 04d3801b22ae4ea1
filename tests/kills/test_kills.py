"""Commands that are killed at any moment leave whole files or none, and can be run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.scenes import StreetScene

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

MOMENTS = 20
AGAIN = 1
SIZE = (48, 64)
STAGE = {"iterations": 1, "batch": 2, "rate": 1e-3, "checkpoint_every": 1}
RECIPE = {
    "seed": 3,
    "threshold": 0.7,
    "cascade": {"semantic": "squeezenas", "classes": 11, "error_width": 4, "detail_width": 4},
    "data": {"classes": "camvid"},
    "input": {"scale": 0.5},
    "augment": {"crop": [65, 65]},
    "semantic": STAGE,
    "error": STAGE,
    "detail": STAGE,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with labelled frames, a bundle, and a training's result."""
    torch = pytest.importorskip("torch")
    for package in ("lightning", "onnx"):
        pytest.importorskip(package)
    from errseg_rt.networks import Cascade, CascadeConfig
    from errseg_rt.training.checkpoint import save_cascade

    folder, scene = tmp_path_factory.mktemp("start"), StreetScene(5, *SIZE)
    for name in ("images", "labels"):
        (folder / "data" / name).mkdir(parents=True)
    for index in range(2):
        view = scene.frame(25 * index)
        cv2.imwrite(str(folder / "data" / "images" / f"{index}.png"), view.frame)
        cv2.imwrite(str(folder / "data" / "labels" / f"{index}.png"), view.labels)
    shutil.copytree(Bundle.open("camvid").folder, folder / "old")
    notes = {
        "recipe": {"name": "tiny", **RECIPE},
        "calibration": {"logits": [-1.0, 1.0], "probabilities": [0.1, 0.9]},
        "metrics": {},
        "command": "errseg-rt train tiny",
        "finished": "2030-01-02",
        "torch": "2.99",
    }
    torch.manual_seed(0)
    save_cascade(folder / "cascade.safetensors", Cascade(CascadeConfig(**RECIPE["cascade"])).eval(), notes)
    return folder


def killed(start: Path, tmp_path: Path, *arguments: str) -> Path:
    """Run and kill a command; the folder in which its runs lie."""
    spec = tmp_path / "spec.json"
    runs = tmp_path / "runs"
    wanted = {"arguments": arguments, "start": str(start), "runs": str(runs), "moments": MOMENTS, "again": AGAIN}
    spec.write_text(json.dumps({**wanted, "seed": 0}), encoding="utf-8")
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killing.py")), str(spec)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    logs = {path.stem: path.read_text() for path in runs.glob("*.log")}
    assert set(answer["codes"].values()) == {0}, (answer, logs)
    assert answer["touches"] >= 2
    return runs


def files_of(folder: Path) -> dict[str, Path]:
    """Files by their paths, but for temporary ones: those are hidden."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)}


def assert_whole(path: Path) -> None:
    """Fails where a file is not what its name says."""
    check = CHECKS.get(path.suffix)
    if check is not None:
        check(path)


def _png(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"IEND\xaeB`\x82"), path
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None, path


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))
    if path.name == MANIFEST:
        Bundle.open(path.parent)


def _csv(path: Path) -> None:
    assert path.read_text(encoding="utf-8").endswith("\n"), path


def _safetensors(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        assert file.keys(), path


def _onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


def _checkpoint(path: Path) -> None:
    import torch

    torch.load(path, weights_only=True)


CHECKS: dict[str, Callable[[Path], None]] = {
    ".png": _png,
    ".json": _json,
    ".csv": _csv,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
    ".ckpt": _checkpoint,
}


ONE_THREAD = ("--threads", "1")
CHECKED = ("--frames", "data/images")
BUILD = ("build-engine", "old", "--engine", "onnxruntime", "--precision", "int8", "--bar", "0.01", "--frames", "data")
COMMANDS = {
    "segment": ("segment", "data", "-o", "out", *ONE_THREAD),
    "evaluate": ("evaluate", "camvid", "--data", "data", "--json", "a.json", "--csv", "a.csv", *ONE_THREAD),
    "calibrate": ("calibrate", "camvid", "--data", "data", "-o", "old", "--json", "a.json", *ONE_THREAD),
    "export": ("export", "cascade.safetensors", "-o", "old", *CHECKED),
    "build": BUILD,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_left_is_whole(command: str, start: Path, tmp_path: Path) -> None:
    runs = killed(start, tmp_path, *COMMANDS[command])
    wanted, before = files_of(runs / "whole"), files_of(start)
    for number in range(MOMENTS):
        found = files_of(runs / f"{number:02d}")
        assert found.keys() <= wanted.keys() | before.keys()
        for path in found.values():
            assert_whole(path)
        Bundle.open(runs / f"{number:02d}" / "old")
        if number < AGAIN:
            assert found.keys() == wanted.keys()
            assert all(found[name].read_bytes() == wanted[name].read_bytes() for name in found if ".png" in name)
