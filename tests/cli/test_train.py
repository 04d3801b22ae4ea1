"""`errseg-rt train`, from a recipe and a folder of frames to the weights of a cascade."""

from __future__ import annotations

import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

from tests.networks.tensorflow.writer import write_checkpoint

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


def test_a_recipe_s_own_network_is_imported_and_said(capsys, tmp_path, monkeypatch):
    (tmp_path / "net_of_mine.py").write_text("raise OSError('never mind')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE.replace('"squeezenas"', '"net_of_mine:make"'), encoding="utf-8")
    code, out, err = run(capsys, "train", recipe, "--out", tmp_path / "out")
    assert_one_line(
        code, err, "net_of_mine:make: cannot be imported (OSError: never mind); its folder must be one of PYTHO"
    )
    assert out == f"{recipe}: imports net_of_mine:make, as cascade.semantic names it\n"


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


def test_train_writes_the_weights_of_a_cascade(capsys, recipe, data, tmp_path, process_settings):
    from errseg_rt.training.checkpoint import load_cascade

    out, other = tmp_path / "out", tmp_path / "other"
    first_run = ("train", recipe, "--data", data, "-o", out, "--seed", 7, "--score-rendered", 1)
    code, printed, err = run(capsys, *first_run)
    assert code == 0
    assert f"{out}/cascade.safetensors: make a bundle of it with errseg-rt export" in " ".join(printed.split())
    assert "finished already" not in printed
    assert "score on rendered: 0/1" in err.splitlines()
    first, notes = load_cascade(out / "cascade.safetensors")
    assert (notes["recipe"]["name"], notes["recipe"]["seed"]) == ("tiny", 7)
    assert {name: scores["frames"] for name, scores in notes["metrics"].items()} == {
        "held_out": 5,
        "val": 2,
        "rendered": 1,
    }
    changes = ("--set", "seed=9", "--set", "method.learn='everywhere'", "--set", "detail.iterations=2")
    shared = ("--shared", out, "--precision", "bf16-mixed", "--score-rendered", 0)
    code, *_ = run(capsys, "train", recipe, "--data", data, "-o", other, *changes, *shared)
    assert code == 0
    second, second_notes = load_cascade(other / "cascade.safetensors")
    settings = second_notes["recipe"]
    assert (settings["seed"], settings["method"]["learn"], settings["detail"]["iterations"]) == (9, "everywhere", 2)
    assert "rendered" not in second_notes["metrics"]
    assert not (other / "semantic.safetensors").exists()
    for name, tensor in first.semantic.state_dict().items():
        assert second.semantic.state_dict()[name].equal(tensor)

    # A finished training says so, and tells what changed since.
    code, printed, _ = run(capsys, *first_run)
    assert code == 0
    again = f"finished already on {notes['finished']}; remove {out} to train again, or give another --out"
    assert printed.splitlines()[0] == f"{out / 'cascade.safetensors'}: {again}"
    label = data / "train" / "labels" / "06.png"
    label.write_bytes((data / "train" / "labels" / "05.png").read_bytes())
    code, printed, err = run(capsys, *first_run)
    assert (code, printed) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {out}: holds another training (train: 06 with other labels); give ")


def test_an_empty_checkpoint_is_a_damaged_file_and_no_interrupt(capsys, recipe, data, tmp_path, process_settings):
    out = tmp_path / "out"
    (out / "semantic").mkdir(parents=True)
    (out / "semantic" / "last.ckpt").write_bytes(b"")
    code, printed, err = run(capsys, "train", recipe, "--data", data, "-o", out)
    assert (code, printed) == (2, "")
    assert err.splitlines()[-1] == f"error: {out}/semantic/last.ckpt: empty; remove it to start the stage anew"
    assert "Aborted" not in err


def test_one_bad_frame_of_val_is_told_before_anything_is_trained(capsys, recipe, data, tmp_path, process_settings):
    label = data / "val" / "labels" / "01.png"
    cv2.imwrite(str(label), np.full((40, 56), 77, np.uint8))
    code, printed, err = run(capsys, "train", recipe, "--data", data, "-o", tmp_path / "out")
    assert (code, printed) == (2, "")
    lines = err.splitlines()
    assert lines[-1].startswith(f"error: 1 of the 2 frames of {data}, val cannot be used: {label}: label ids [77]")
    assert not any(line.startswith("train ") for line in lines)


@pytest.fixture
def asked(monkeypatch):
    """The recipes and the readings with which trainings are begun, none of which is."""
    found = []

    def begun(recipe, data, out, *_, reading, **__):
        found.append((recipe.data, reading))
        return out / "cascade.safetensors"

    monkeypatch.setattr("errseg_rt.training.loop.train", begun)
    return found


def test_options_of_labelled_data_are_those_of_evaluate(capsys, asked, recipe, data, tmp_path):
    from errseg_rt.frames.reading import Reading

    start = ("train", recipe, "--data", data, "-o", tmp_path / "out")
    for more in (
        (),
        ("--max-pixels", 5000, "--allow-damaged", "--ignore-orientation"),
        ("--first-id", 1),
        ("--first-id", 1, "--set", "data.void=[0, 200]"),
        ("--label-map", tmp_path / "it's.json"),
    ):
        assert run(capsys, *start, *more)[0] == 0
    meanings = [(each.first_id, each.void, each.label_map) for each, _ in asked]
    assert meanings == [
        *[(None, (11,), None)] * 2,
        (1, None, None),
        (1, (0, 200), None),
        (None, None, str(tmp_path / "it's.json")),
    ]
    assert [reading for _, reading in asked] == [Reading(), Reading(5000, True, True), *[Reading()] * 3]


def test_options_of_labelled_data_that_are_none(capsys, monkeypatch, asked, recipe, data, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    start = ("train", recipe, "-o", tmp_path / "out")
    code, _, err = run(capsys, *start, "--first-id", 1)
    assert code == 2
    assert "Invalid value for '--first-id' and '--label-map': are for labelled frames: give --data." in err
    code, _, err = run(capsys, *start, "--data", data, "--max-pixels", 0)
    assert code == 2
    assert "Invalid value for '--max-pixels': max_pixels must be a whole number of at least 1, got 0." in err
    code, _, err = run(capsys, *start, "--data", data, "--first-id", 1, "--label-map", "palette")
    assert_one_line(code, err, "data.label_map: wanted none beside void or first_id")
    assert asked == []


def test_what_ids_mean_is_looked_at_before_anything_is_trained(capsys, recipe, data, tmp_path, process_settings):
    (tmp_path / "map.json").write_text('{"0": "void", "1": "road"}')
    start = ("train", recipe, "--data", data, "-o", tmp_path / "out")
    code, printed, err = run(capsys, *start, "--label-map", tmp_path / "map.json")
    assert (code, printed) == (2, "")
    lines = err.splitlines()
    assert lines[-1].startswith(f"error: 20 of the 20 frames of {data}, train and 2 of the 2 frames of {data}, val can")
    assert "are neither classes nor void; map.json knows [0, 1, 255]" in lines[-1]
    assert not any(line.startswith("train ") for line in lines)
    code, _, err = run(capsys, *start, "--label-map", "labelIds")
    assert_one_line(code, err, "the label map labelIds has 19 classes, but 11 are wanted")


def test_a_batch_of_one_is_told_before_anything_is_trained(capsys, recipe, data, tmp_path, process_settings):
    network = ("--set", "cascade.semantic='pspnet-resnet50'", "--set", "semantic.batch=1")
    code, printed, err = run(capsys, "train", recipe, "--data", data, "-o", tmp_path / "out", *network)
    assert (code, printed) == (2, "")
    wanted = "error: semantic.batch / devices must be 2 or more for pspnet-resnet50 with inputs of 33x49, got 1 / 1 ("
    assert err.splitlines()[-1].startswith(wanted)


def test_faults_of_options_are_one_line(capsys, recipe, data, tmp_path):
    start = ("train", recipe, "--data", data, "-o", tmp_path / "out")
    code, _, err = run(capsys, *start, "--set", "detail.iteration=2")
    assert_one_line(code, err, "tiny.toml: detail.iteration: no such field; did you mean iterations?")
    code, _, err = run(capsys, *start, "--set", "augment.flip=False")
    assert_one_line(code, err, "error: --set augment.flip=False: not TOML (", "in lower case")
    code, _, err = run(capsys, *start, "--set", "augment.crop=[33.0, 49]")
    assert_one_line(code, err, "tiny.toml: augment.crop: wanted 2 whole numbers, got [33.0, 49]")
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
    assert_one_line(code, err, "tiny.toml: semantic.batch: wanted 1 or more, got 0")


def test_missing_data_folder(capsys, recipe, tmp_path):
    code, _, err = run(capsys, "train", recipe, "--data", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert_one_line(code, err, "nowhere: no such folder")


def test_missing_initial_weights(capsys, recipe, tmp_path):
    code, _, err = run(capsys, "train", recipe, "--init", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert_one_line(code, err, "w.pth: no such file")


def test_a_tensorflow_checkpoint_of_another_network(capsys, recipe, tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", {"xception_65/entry_flow/conv1_1/weights": np.ones((3, 3, 3, 2), "f4")})
    for name in ("model.ckpt", "model.ckpt.index"):
        code, _, err = run(capsys, "train", recipe, "--init", tmp_path / name, "-o", tmp_path / "out")
        assert_one_line(code, err, f"{name}: does not fit the semantic network, squeezenas of")
        assert "missing encoder." in err
        assert "unexpected xception_65/entry_flow/conv1_1/weights" in err
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    code, _, err = run(capsys, "train", recipe, "--init", tmp_path / "model.ckpt", "-o", tmp_path / "out")
    assert_one_line(code, err, "model.ckpt.data-00000-of-00001: cannot be read (No such file")


def test_interrupt_is_no_fault(capsys, monkeypatch, recipe, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("errseg_rt.training.loop.train", interrupted)
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert code == 130
    assert "Traceback" not in err


class Broken(ModuleType):
    def __getattr__(self, name):
        raise RuntimeError("operator torchvision::nms\ndoes not exist")


def test_training_that_does_not_load(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setitem(sys.modules, "errseg_rt.training.loop", Broken("loop"))
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert_one_line(
        code, err, "training does not load here (operator torchvision::nms does not exist); install a torch"
    )


def test_training_that_is_not_installed(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setitem(sys.modules, "errseg_rt.training.loop", None)
    code, _, err = run(capsys, "train", recipe, "-o", tmp_path / "out")
    assert_one_line(code, err, "training is not installed", "pip install 'errseg-rt[train]'")
