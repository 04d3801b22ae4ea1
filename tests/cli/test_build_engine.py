"""`errseg-rt build-engine`: int8 for onnxruntime from end to end, and what it says of mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.engines import fitting
from errseg_rt.errors import EngineError
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene

pytest.importorskip("onnx")

from errseg_rt.export.engines.builds import better_than


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with their labels."""
    folder, scene = tmp_path_factory.mktemp("frames"), StreetScene(5, 96, 128)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(4):
        view = scene.frame(25 * index)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), view.frame)
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), view.labels)
    return folder


def build(cli, out: Path, frames: Path, *more: str):
    return cli(
        "build-engine", "camvid", "--engine", "onnxruntime", "--frames", frames, "--out", out, "--bar", "0.9", *more
    )


def test_int8_from_end_to_end(cli, tmp_path: Path, frames: Path) -> None:
    done = build(cli, tmp_path / "b", frames, "--json")
    assert (done.code, done.err) == (0, "")
    (answer,) = json.loads(done.out)
    assert answer["is_new"] is True
    report = answer["report"]
    assert (report["frames"], report["bar"], report["pixels"]) == (2, 0.9, 2 * 96 * 128)
    assert set(report["branches"]) == {"semantic", "error", "detail", "fused"}
    for name, branch in report["branches"].items():
        assert 0.9 <= branch["agreement"] <= 1
        assert (branch["largest"] is None) == (name == "fused")
        assert 0 < branch["miou"] <= 1
    assert report["branches"]["semantic"]["largest"] > 0
    (engine,) = Bundle.open(tmp_path / "b").engines.all()
    assert json.loads(engine.read("report.json")) == report
    assert Bundle.open(tmp_path / "b").manifest == Bundle.open("camvid").manifest

    again = build(cli, tmp_path / "b", frames)
    assert again.code == 0
    assert "already there" in again.out
    for word in ("labels equal, %", "semantic", "mIoU fp32, %"):
        assert word in again.out
    ours, theirs = (f"{report[name]:.1f} ms" for name in ("milliseconds", "reference_milliseconds"))
    assert f"median time of a frame: {theirs} in fp32 with onnxruntime on the CPU, {ours}\n" in again.out

    frame = cv2.imread(str(frames / "images" / "0.png"))
    with Runtime(tmp_path / "b", precision="int8", threads=1) as int8, Runtime(tmp_path / "b", threads=1) as fp32:
        a, b = int8.segment(frame), fp32.segment(frame)
    assert (a.labels == b.labels).mean() >= 0.9
    assert not np.array_equal(a.error_probability, b.error_probability)


def test_under_the_bar_nothing_is_built(cli, tmp_path: Path, frames: Path) -> None:
    done = build(cli, tmp_path / "b", frames, "--bar", "1")
    assert done.code == 2
    assert "onnxruntime in int8 loses too many labels on 2 frames: " in done.err
    advice = "try fp32, which needs no building, frames like your own, or a lower bar"
    assert f"where 100.00% are wanted; nothing was built: {advice}" in done.err
    assert done.err.count("\n") == 1
    assert Bundle.open(tmp_path / "b").engines.all() == []


@pytest.mark.parametrize(
    ("given", "precision"),
    [((), "fp16"), (("--precision", "int8", "--shape", "97x129", "--shape", "97x129..193x257"), "int8")],
)
def test_without_a_gpu_it_says_at_once_what_to_run_where_there_is_one(
    cli, tmp_path: Path, monkeypatch, given: tuple[str, ...], precision: str
) -> None:
    def none(index: int = 0) -> None:
        raise EngineError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr("errseg_rt.export.engines.builds.find_gpu", none)
    done = cli("build-engine", "camvid", *given, "--out", tmp_path / "my street")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "there is none here (there is no NVIDIA driver on this machine)" in done.err
    command = shlex.split(done.err.partition("that has it, run ")[2])
    shapes = [word for word in given if "x" in word] or ["1024x2048"]
    assert command[:5] == ["errseg-rt", "build-engine", "camvid", "--precision", precision]
    assert [command[at + 1] for at, word in enumerate(command) if word == "--shape"] == shapes
    assert command[-2:] == ["--out", str(tmp_path / "my street")]
    assert not (tmp_path / "my street").exists(), "a bundle was copied for nothing"


@pytest.mark.parametrize(
    ("engine", "precision", "words"),
    [
        ("onnxruntime", "int8", "fp32, which needs no building"),
        ("tensorrt", "int8", "fp16 or bf16"),
        ("tensorrt", "fp16", "bf16"),
        ("tensorrt", "bf16", "fp16"),
        ("tensorrt", "fp32", "another engine"),
    ],
)
def test_what_is_advised_the_engine_has(engine: str, precision: str, words: str) -> None:
    assert better_than(engine, precision) == words


def test_an_engine_of_a_processor_with_vnni_is_stale_without(bundle_copy: Path, monkeypatch) -> None:
    """Though both bear one name: its parity was earned with other sums."""
    bundle = Bundle.open(bundle_copy)
    monkeypatch.setattr(fitting, "instruction_sets", lambda: "x86_64 avx512-vnni")
    front = bundle.read("graphs/front.onnx")
    bundle.engines.put(fitting.key_here(bundle, "onnxruntime", "int8"), "any", {}, {"front.onnx": front})
    Runtime(bundle_copy, precision="int8", threads=1).close()
    monkeypatch.setattr(fitting, "instruction_sets", lambda: "x86_64 avx2")
    with pytest.raises(EngineError, match="instruction sets x86_64 avx512-vnni where this is x86_64 avx2"):
        Runtime(bundle_copy, precision="int8", threads=1)


def test_a_precision_that_was_not_built(bundle_copy: Path) -> None:
    with pytest.raises(
        EngineError, match="no onnxruntime engine in int8 has been built; build it: errseg-rt build-engine"
    ):
        Runtime(bundle_copy, precision="int8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp8"], "'fp8' is none of fp32, fp16, bf16, int8"),
        (["--shape", "big"], "'big' is neither HxW nor"),
        (["--bar", "2"], "2.0 is no share"),
        (["--engine", "onnxruntime", "--shape", "9x9"], "onnxruntime takes any size"),
    ],
)
def test_wrong_arguments(cli, arguments, message) -> None:
    done = cli("build-engine", "camvid", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "onnxruntime", "--precision", "fp16"], "onnxruntime is not built in fp16: choose from int8"),
        (["--engine", "onnxruntime", "--precision", "fp32"], "fp32 needs no building"),
        (["--engine", "openvino", "--precision", "int8"], "openvino is not built in int8"),
    ],
)
def test_what_cannot_be_built(cli, bundle_copy: Path, arguments, message) -> None:
    done = cli("build-engine", bundle_copy, *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (bundle_copy / "engines").exists()


def test_out_must_be_free(cli, tmp_path: Path, tiny_bundle: Path, frames: Path) -> None:
    done = build(cli, tiny_bundle, frames)
    assert done.code == 2
    assert f"{tiny_bundle}: holds another bundle; give another folder" in done.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    done = build(cli, tmp_path / "mine", frames)
    assert done.code == 2
    assert MANIFEST in done.err
