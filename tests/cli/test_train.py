"""`errseg-rt train`, from a recipe and a folder of frames to the weights of a cascade."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

RECIPE = """
seed = 1
threshold = 0.7
[cascade]
semantic = "squeezenas"
error_width = 4
detail_width = 4
[data]
classes = "camvid"
void = [11]
[input]
plus_one = true
[augment]
crop = [33, 49]
[semantic]
iterations = 1
batch = 2
rate = 1e-3
checkpoint_every = 1
[error]
iterations = 1
batch = 2
rate = 1e-3
checkpoint_every = 1
[detail]
iterations = 1
batch = 2
rate = 1e-3
checkpoint_every = 1
"""


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    from errseg_rt.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def assert_one_line(code, err, *parts):
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path):
    """Twenty random frames to learn from, and two to score on."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 2)):
        for name in ("images", "labels"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
        for index in range(count):
            frame, labels = rng.integers(0, 256, (40, 56, 3), np.uint8), rng.integers(0, 12, (40, 56), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / part / "images" / f"{index:02d}.png"), frame)
            cv2.imwrite(str(tmp_path / "data" / part / "labels" / f"{index:02d}.png"), labels)
    return tmp_path / "data"


@pytest.fixture
def process_settings():
    import torch

    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_train_writes_the_weights_of_a_cascade(capsys, monkeypatch, recipe, data, tmp_path, process_settings):
    from errseg_rt.training import data as training_data
    from errseg_rt.training import loop
    from errseg_rt.training.checkpoint import load_cascade

    monkeypatch.setattr(training_data, "_SCENE_SIZE", (40, 56))
    monkeypatch.setattr(loop, "_RENDERED_FRAMES", 1)
    training_data._street.cache_clear()
    out, other = tmp_path / "out", tmp_path / "other"
    code, printed, _ = run(capsys, "train", recipe, "--data", data, "-o", out, "--seed", 7)
    assert code == 0
    assert f"{out}/cascade.safetensors: make a bundle of it with errseg-rt export" in " ".join(printed.split())
    first, notes = load_cascade(out / "cascade.safetensors")
    assert (notes["recipe"]["name"], notes["recipe"]["seed"]) == ("tiny", 7)
    assert {name: scores["frames"] for name, scores in notes["metrics"].items()} == {
        "held_out": 5,
        "val": 2,
        "rendered": 1,
    }
    changes = ("--set", "seed=9", "--set", "method.learn='everywhere'", "--set", "detail.iterations=2")
    code, *_ = run(
        capsys, "train", recipe, "--data", data, "-o", other, *changes, "--shared", out, "--precision", "bf16-mixed"
    )
    training_data._street.cache_clear()
    assert code == 0
    second, notes = load_cascade(other / "cascade.safetensors")
    settings = notes["recipe"]
    assert (settings["seed"], settings["method"]["learn"], settings["detail"]["iterations"]) == (9, "everywhere", 2)
    assert not (other / "semantic.safetensors").exists()
    for name, tensor in first.semantic.state_dict().items():
        assert second.semantic.state_dict()[name].equal(tensor)


def test_faults_of_options_are_one_line(capsys, recipe, data, tmp_path):
    start = ("train", recipe, "--data", data, "-o", tmp_path / "out")
    code, _, err = run(capsys, *start, "--set", "detail.iteration=2")
    assert_one_line(code, err, "tiny.toml: StageConfig has no field iteration; it has batch")
    code, _, err = run(capsys, *start, "--shared", tmp_path)
    assert_one_line(code, err, "not the folder of a training", "--shared wants another's --out")
    code, _, err = run(capsys, *start, "--devices", 4)
    assert_one_line(code, err, "the batches of semantic, error, detail cannot be shared evenly by 4 devices")
    code, _, err = run(capsys, *start, "--devices", 0)
    assert code == 2
    assert "--devices" in err
    code, _, err = run(capsys, *start, "--precision", "nonsense")
    assert code == 2
    assert "'nonsense' is none of 32-true, 16-mixed" in " ".join(err.split())


def test_unknown_recipe(capsys, tmp_path):
    code, out, err = run(capsys, "train", "kitti", "-o", tmp_path / "out")
    assert_one_line(code, err, "no recipe is called 'kitti': choose from ", "camvid, ", "or give a .toml file")
    assert out == ""


def test_recipe_file_that_is_missing_or_wrong(capsys, recipe, tmp_path):
    code, _, err = run(capsys, "train", tmp_path / "absent.toml", "-o", tmp_path / "out")
    assert_one_line(code, err, "absent.toml: no such file")
    recipe.write_text(RECIPE.replace("batch = 2", "batch = 0", 1))
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert_one_line(code, err, "tiny.toml", "must be positive")


def test_missing_data_folder(capsys, recipe, tmp_path):
    code, _, err = run(capsys, "train", recipe, "--data", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert_one_line(code, err, "nowhere: no such folder")


def test_missing_initial_weights(capsys, recipe, tmp_path):
    code, _, err = run(capsys, "train", recipe, "--init", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert_one_line(code, err, "w.pth: no such file")


def test_interrupt_is_no_fault(capsys, monkeypatch, recipe, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("errseg_rt.training.loop.train", interrupted)
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert code == 130
    assert "Traceback" not in err


def test_training_that_is_not_installed(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setitem(sys.modules, "errseg_rt.training.loop", None)
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert_one_line(code, err, "training is not installed", "pip install 'errseg-rt[train]'")
