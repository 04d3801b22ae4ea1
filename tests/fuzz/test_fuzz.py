"""Files of every kind with faults in them: each is taken, or is one line that names it.

`ERRSEG_FUZZ_MINUTES=60 pytest tests/fuzz` goes on with other faults for an hour.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.bundle.manifest import FileRecord
from errseg_rt.errors import ErrsegError
from errseg_rt.scenes import StreetScene
from tests.fuzz.mutations import Rng, changed, damaged, mistyped

MINUTES = float(os.environ.get("ERRSEG_FUZZ_MINUTES", "0"))
KINDS = 12  # tests below, which share the minutes
SIZE = (32, 48)
FORMATS = (".bmp", ".gif", ".jpg", ".png", ".tif", ".webp")


def rounds(kind: int, count: int) -> Iterator[tuple[str, Rng]]:
    """A name and a generator for each case: `count` of them, or as many as there is time for."""
    end, number = time.monotonic() + 60 * MINUTES / KINDS, 0
    while number < count or time.monotonic() < end:
        yield f"{number:06d}", np.random.default_rng([kind, number])
        number += 1


@pytest.fixture(scope="module")
def view():
    return StreetScene(5, *SIZE).frame(0)


def assert_taken_or_one_line(done, *names: str) -> None:
    """Exit code 0, or 2 and one line on stderr that holds one of the names."""
    assert done.code in (0, 2), done
    if done.code == 2:
        lines = done.err.splitlines()
        assert len(lines) == 1, done
        assert lines[0].startswith("error: "), done
        assert any(name in lines[0] for name in names), done


@contextmanager
def faults_naming(name: str) -> Iterator[None]:
    """Takes a fault, which must name a file, and any end without one."""
    fault = None
    try:
        yield
    except ErrsegError as error:
        fault = str(error)
    assert fault is None or name in fault


@pytest.mark.parametrize("suffix", FORMATS)
def test_image_files(cli, tmp_path: Path, view, suffix: str) -> None:
    """Of a batch, each file is done or named."""
    whole = cv2.imencode(suffix, view.frame)[1].tobytes()
    (tmp_path / "in").mkdir()
    for name, rng in rounds(FORMATS.index(suffix), 50):
        (tmp_path / "in" / f"{name}{suffix}").write_bytes(damaged(whole, rng))
    done = cli("segment", tmp_path / "in", "-o", tmp_path / "out", "--threads", "1", "--max-pixels", "100000")
    assert done.code in (0, 2)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    inputs = {str(path) for path in (tmp_path / "in").iterdir()}
    assert {frame["input"] for frame in summary["frames"]} | {fault["input"] for fault in summary["failed"]} == inputs
    lines = done.err.splitlines()
    assert len(lines) == len(summary["failed"]) > 0
    for line, fault in zip(lines, summary["failed"], strict=True):
        assert line.startswith("error: ")
        assert Path(fault["input"]).name in line


def test_label_files(cli, tmp_path: Path, view) -> None:
    whole = cv2.imencode(".png", view.labels)[1].tobytes()
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    names = ["whole"]
    (tmp_path / "data" / "labels" / "whole.png").write_bytes(whole)
    for name, rng in rounds(6, 30):
        (tmp_path / "data" / "labels" / f"{name}.png").write_bytes(damaged(whole, rng))
        names.append(name)
    for name in names:
        cv2.imwrite(str(tmp_path / "data" / "images" / f"{name}.png"), view.frame)
    done = cli("evaluate", "camvid", "--data", tmp_path / "data", "--threads", "1", "--json", tmp_path / "a.json")
    assert done.code in (0, 2)
    answer = json.loads((tmp_path / "a.json").read_text())
    assert sorted([frame["name"] for frame in answer["per_frame"]] + list(answer["failed"])) == sorted(names)
    assert [line for line in done.err.splitlines() if line.startswith("error: frame ")][len(answer["failed"]) :] == []
    assert all(f"frame {name} " in done.err for name in answer["failed"])


def test_manifests(cli, bundle_copy: Path, tmp_path: Path, view) -> None:
    """Some of its values are no longer what a cascade needs; so are those of the calibration, which it holds."""
    path = bundle_copy / MANIFEST
    whole = path.read_bytes()
    cv2.imwrite(str(tmp_path / "frame.png"), view.frame)
    for name, rng in rounds(7, 150):
        path.write_bytes(mistyped(whole, rng))
        done = cli("segment", tmp_path / "frame.png", "-o", tmp_path / name, "-b", bundle_copy, "--threads", "1")
        assert_taken_or_one_line(done, str(bundle_copy), "frame.png")


def test_calibrations(bundle_copy: Path) -> None:
    path = bundle_copy / MANIFEST
    table = json.loads(path.read_bytes())
    for _, rng in rounds(8, 150):
        path.write_text(json.dumps({**table, "calibration": changed(table["calibration"], rng)}))
        with faults_naming(str(path)):
            values = Bundle.open(bundle_copy).manifest.calibration(np.linspace(-9, 9, 50).astype(np.float32))
            assert np.isfinite(values).all()
            assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("name", ["graphs/front.onnx", "graphs/refine.onnx", "weights.safetensors"])
def test_files_of_a_bundle(bundle_copy: Path, name: str, tmp_path: Path, view) -> None:
    """Damaged, they are found by their SHA-256; where that fits, by what loads them, in a process of its own."""
    path, whole = bundle_copy / name, (bundle_copy / name).read_bytes()
    number = 9 + ("front" in name) + 2 * ("refine" in name)
    manifest = Bundle.open(bundle_copy).manifest
    for case, rng in rounds(number, 20):
        data = damaged(whole, rng)
        path.write_bytes(data)
        if data != whole:
            with pytest.raises(ErrsegError, match=Path(name).name):
                Bundle.open(bundle_copy)
        fitting = replace(manifest, files={**manifest.files, name: FileRecord.of(data)})
        shutil.copytree(bundle_copy, tmp_path / "cases" / case)
        (tmp_path / "cases" / case / MANIFEST).write_text(fitting.to_json())
    cv2.imwrite(str(tmp_path / "frame.png"), view.frame)
    done = subprocess.run(
        [sys.executable, "-c", OPENING, str(tmp_path / "cases"), str(tmp_path / "frame.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    ends = dict(line.split(" ", 1) for line in done.stdout.split("\n")[:-1])
    assert set(ends) == {path.name for path in (tmp_path / "cases").iterdir()}
    faults = {case: end for case, end in ends.items() if not end.startswith(("taken", "EngineError", "BundleError"))}
    assert not faults


OPENING = """
import sys
from pathlib import Path
import cv2
from errseg_rt import Runtime
frame = cv2.imread(sys.argv[2])
for case in sorted(Path(sys.argv[1]).iterdir()):
    print(case.name, end=" ", flush=True)
    try:
        with Runtime(case, threads=1, threshold=0.1) as runtime:
            runtime.segment(frame)
        print("taken", flush=True)
    except Exception as error:
        print(type(error).__name__, " ".join(str(error).split()), flush=True)
"""


def test_recipes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from errseg_rt.training.recipe_files import load_recipe

    shipped = Path(sys.modules[load_recipe.__module__].__file__).parent / "recipes"
    texts = [path.read_bytes() for path in sorted(shipped.glob("*.toml"))]
    path = tmp_path / "mine.toml"
    for _, rng in rounds(10, 300):
        path.write_bytes(mistyped(texts[int(rng.integers(len(texts)))], rng))
        with faults_naming("mine.toml"):
            load_recipe(str(path))


def test_weights_and_checkpoints(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from errseg_rt.networks import Cascade, CascadeConfig
    from errseg_rt.training.checkpoint import load_cascade, save_cascade
    from errseg_rt.training.initial_weights import load_semantic_weights

    cascade = Cascade(CascadeConfig(semantic="squeezenas", classes=11, error_width=4, detail_width=4))
    save_cascade(tmp_path / "cascade.safetensors", cascade, {"note": 1})
    torch.save(cascade.semantic.state_dict(), tmp_path / "semantic.pth")
    weights = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    loads: dict[str, Callable[[Path], object]] = {
        "cascade.safetensors": load_cascade,
        "semantic.pth": lambda path: load_semantic_weights(cascade, path, ()),
    }
    for _, rng in rounds(11, 25):
        for path, whole in weights.items():
            path.write_bytes(damaged(whole, rng))
            with faults_naming(path.name):
                loads[path.name](path)
