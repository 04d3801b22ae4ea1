"""A training that was killed, damaged or changed under its feet: it goes on exactly, or says why it cannot."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from errseg_rt.errors import DataError
from errseg_rt.networks import SEMANTIC_NETWORKS
from errseg_rt.training import loop, stages
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.claim import claim
from errseg_rt.training.inputs import look_at_splits, open_splits
from errseg_rt.training.loop import train
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.recipe_learning import CrossFitConfig, StageConfig
from errseg_rt.training.stages import StageTraining
from tests.training.conftest import SmallNetwork, assert_same_training, assert_same_weights

pytestmark = pytest.mark.usefixtures("small_scenes", "process_settings", "small_network", "on_cpu")


@pytest.fixture(scope="module")
def recipe(cross_fitted, small_network):
    """All there is: folds, kept taps of whole frames beside rendered ones, every stage."""
    return replace(cross_fitted, cascade=replace(cross_fitted.cascade, semantic="small"))


@pytest.fixture(scope="module")
def finished(recipe, drive, small_scenes, process_settings, on_cpu, tmp_path_factory):
    return train(recipe, drive, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copied(finished, tmp_path):
    """The same training, to be damaged."""
    return shutil.copytree(finished.parent, tmp_path / "copied")


@pytest.fixture
def own(drive, tmp_path):
    """The same data, to be changed."""
    return shutil.copytree(drive, tmp_path / "own")


def killed_at(number, *arguments):
    """Train in a process that dies at its nth step or in the midst of writing its nth file; how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left, write = [number], Path.write_bytes

    def counted(call):
        def come_to(*args, **kwargs):
            left[0] -= 1
            if not left[0]:
                for path in args:
                    if isinstance(path, Path) and path.name.startswith(
                        "."
                    ):  # what takes a file's place once it is whole
                        write(path, b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return come_to

    try:
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        cv2.setNumThreads(0)
        writers = (Path, "write_bytes"), (Path, "write_text"), (torch, "save"), (os, "replace")
        for owner, name in ((StageTraining, "training_step"), *writers):
            setattr(owner, name, counted(getattr(owner, name)))
        train(*arguments)
    finally:
        os._exit(1)


@pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="a process is to be forked, and killed"
)
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_was_not(finished, recipe, drive, tmp_path):
    moments = random.Random(7)
    for _ in range(6):
        status = killed_at(moments.randint(1, 60), recipe, drive, tmp_path)
        assert os.WIFSIGNALED(status), "it ended before its time"
        assert not (tmp_path / "cascade.safetensors").exists()
    assert_same_training(train(recipe, drive, tmp_path), finished)
    assert_same_weights(tmp_path / "semantic.safetensors", finished.parent / "semantic.safetensors")
    wanted = {path.name: path.read_bytes() for path in (finished.parent / "taps").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "taps").iterdir()} == wanted


@pytest.fixture
def steps(monkeypatch):
    """Stage and number of every step that is taken."""
    taken, step = [], StageTraining.training_step
    monkeypatch.setattr(
        StageTraining, "training_step", lambda self, *of: taken.append((self.name, self.global_step)) or step(self, *of)
    )
    return taken


def reopened(folder, *results):
    """A finished training, from which some results were taken, so that their stages go on."""
    for name in (*results, "cascade"):
        (folder / f"{name}.safetensors").unlink()
    return folder


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def hole(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 255 for byte in content[middle : middle + 64])
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


STAGES = ("semantic", "folds/0/semantic", "folds/1/semantic", "error", "error_frozen", "detail", "detail_frozen")
DAMAGES = {"half": half, "hole": hole, "empty": emptied, "text": lambda path: path.write_text("x" * 500)}


@pytest.mark.parametrize(("stage", "damage"), list(zip(STAGES, itertools.cycle(DAMAGES.values()))), ids=STAGES)
def test_a_damaged_checkpoint_is_named(copied, recipe, drive, steps, stage, damage):
    damage(reopened(copied, stage) / stage / "last.ckpt")
    message = rf"{stage}/last\.ckpt: (empty|damaged).*; remove it to start the stage anew$"
    with pytest.raises(DataError, match=message) as caught:
        train(recipe, drive, copied)
    assert str(caught.value).isprintable()
    assert steps == []


@pytest.mark.parametrize("stage", ["folds/1/semantic", "detail"])
def test_a_stage_begins_anew_without_its_checkpoint(copied, recipe, drive, finished, stage, steps):
    (reopened(copied, stage) / stage / "last.ckpt").unlink()
    assert_same_training(train(recipe, drive, copied), finished)
    assert [step for _, step in steps] == list(range(len(steps)))
    assert {name for name, _ in steps} == {Path(stage).name}


def test_a_checkpoint_of_another_network_is_named(copied, recipe, drive):
    last = reopened(copied, "error") / "error" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, last)
    with pytest.raises(DataError, match=r"error/last\.ckpt: a checkpoint of another network; remove it to start the"):
        train(recipe, drive, copied)


@pytest.mark.parametrize(("stage", "damage"), list(zip(STAGES, itertools.cycle([half, emptied, hole]))), ids=STAGES)
def test_a_damaged_result_of_a_stage_is_named(copied, recipe, drive, stage, damage):
    damage(reopened(copied) / f"{stage}.safetensors")
    message = rf"{stage}\.safetensors: damaged, .*; remove it, and the stage ends again from its last checkpoint$"
    with pytest.raises(DataError, match=message):
        train(recipe, drive, copied)


def test_results_are_made_again_of_the_last_checkpoints(copied, recipe, drive, finished, steps):
    reopened(copied, "folds/0/semantic", "error_frozen")
    assert_same_training(train(recipe, drive, copied), finished)
    assert steps == []


def test_a_stage_of_another_network_is_named(copied, recipe, drive):
    result = reopened(copied) / "error.safetensors"
    other, _ = load_cascade(result)
    other.config = replace(other.config, error_width=8)
    other.error = loop.Cascade(other.config).error
    loop.save_cascade(result, other, {})
    with pytest.raises(
        DataError, match=r"error\.safetensors: holds another error branch than the recipe wants; remove"
    ):
        train(recipe, drive, copied)


def test_a_damaged_cascade_is_not_taken_for_a_finished_one(copied, recipe, drive, finished, steps):
    half(copied / "cascade.safetensors")
    with pytest.raises(
        DataError, match=r"cascade\.safetensors: damaged, .*; remove it, and it is made again of the trained"
    ):
        train(recipe, drive, copied)
    (copied / "cascade.safetensors").unlink()
    assert_same_training(train(recipe, drive, copied), finished)
    assert steps == []


def test_damaged_taps_are_named_before_the_branches_learn(copied, recipe, drive, finished, steps):
    reopened(copied, "error", "error_frozen", "detail", "detail_frozen")
    path = sorted((copied / "taps").iterdir())[-1]
    hole(path)
    with pytest.raises(DataError, match=rf"{path.name}: damaged .*; remove it, and it is computed again"):
        train(recipe, drive, copied)
    assert steps == []
    path.unlink()
    assert_same_training(train(recipe, drive, copied), finished)


def relabel(root, split="train", index=3):
    """Some rows of one label get other classes."""
    path = sorted((root / split / "labels").iterdir())[index]
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[:20] = (labels[:20] + 1) % 11
    cv2.imwrite(str(path), labels)
    return path.stem


@pytest.mark.parametrize("is_finished", [False, True], ids=["killed", "finished"])
def test_mended_labels_are_no_old_training(copied, recipe, own, is_finished, steps):
    train(recipe, own, copied)  # elsewhere, and with new dates, but the same
    if not is_finished:
        reopened(copied, "error", "detail")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    name = relabel(own)
    with pytest.raises(
        DataError, match=rf"holds another training \(train: {name} with other labels\); give another --out"
    ):
        train(recipe, own, copied)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert steps == []


def test_taps_are_not_shared_with_other_labels(finished, recipe, own, tmp_path):
    name = relabel(own)
    with pytest.raises(DataError, match=rf"semantic branch cannot be shared \(train: {name} with other labels\)"):
        train(recipe, own, tmp_path / "out", shared=finished.parent)


def test_other_frames_to_score_on_are_scored_once_that_is_asked_for(copied, recipe, own, finished, steps):
    name = relabel(own, "val", 1)
    with pytest.raises(
        DataError, match=rf"finished, and scored on other frames \(val: {name} with other labels\); remove"
    ):
        train(recipe, own, copied)
    (copied / "cascade.safetensors").unlink()
    (_, new), (_, old) = (load_cascade(path) for path in (train(recipe, own, copied), finished))
    assert steps == []
    assert new["metrics"]["val"] != old["metrics"]["val"]
    assert new["metrics"]["held_out"] == old["metrics"]["held_out"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are texts here")
def test_names_that_are_no_utf_8_are_names(recipe, own, tmp_path):
    for kind in ("images", "labels"):
        os.rename(own / "train" / kind / "f003.png", os.fsencode(own / "train" / kind) + b"/f\xe9.png")
    inputs = look_at_splits(open_splits(own, recipe), recipe, None, lambda items, *_: items).inputs
    assert "f\udce9" in inputs.train
    for _ in range(2):
        claim(tmp_path, recipe, inputs, is_finished=False)


BAD = {"learned": ("train", 3), "in_a_gap": ("train", 4), "held_out": ("train", 19), "val": ("val", 1)}


@pytest.mark.parametrize(("split", "index"), BAD.values(), ids=BAD)
def test_one_bad_frame_is_told_before_the_first_step(recipe, own, tmp_path, steps, split, index):
    path = sorted((own / split / "labels").iterdir())[index]
    cv2.imwrite(str(path), np.full((64, 96), 77, np.uint8))
    message = rf"1 of the \d+ frames of {own}, {split} cannot be used: {path}: label ids \[77\]"
    with pytest.raises(DataError, match=message):
        train(recipe, own, tmp_path / "out")
    assert steps == []
    assert list((tmp_path / "out").iterdir()) == []  # once it is mended, nothing is in the way


@pytest.mark.parametrize(("part", "indices"), [("to learn from", range(20)), ("kept back", [3, 7, 11, 15, 19])])
def test_labels_that_are_all_void_are_told_before_the_first_step(recipe, own, tmp_path, steps, part, indices):
    for index, path in enumerate(sorted((own / "train" / "labels").iterdir())):
        if index in indices:
            cv2.imwrite(str(path), np.full((64, 96), 11, np.uint8))
    with pytest.raises(DataError, match=rf"frames {part}.*: all labels are void"):
        train(recipe, own, tmp_path / "out")
    assert steps == []


def test_a_training_that_an_older_version_began_goes_on(copied, recipe, drive, finished, steps):
    reopened(copied, "detail")
    for name, unknown in (("recipe.json", ("bootstrap", "bundle_threshold")), ("inputs.json", ("train", "val"))):
        table = json.loads((copied / name).read_text())
        (copied / name).write_text(json.dumps({key: table[key] for key in table if key not in unknown}))
    assert_same_training(train(recipe, drive, copied), finished)
    assert "train" in json.loads((copied / "inputs.json").read_text())


def test_rendered_frames_need_not_be_scored(copied, recipe, drive, finished):
    for count, wanted in ((1, 1), (0, None)):
        (copied / "cascade.safetensors").unlink()
        _, notes = load_cascade(train(recipe, drive, copied, score_rendered=count))
        assert notes["metrics"].get("rendered", {}).get("frames") == wanted
    assert notes["calibration"] == load_cascade(finished)[1]["calibration"]
    with pytest.raises(DataError, match="score_rendered: wanted 0 or more frames, got -1"):
        train(recipe, drive, copied, score_rendered=-1)


def test_a_log_has_a_line_for_what_goes_on_and_no_codes(recipe, drive, tmp_path, capfd):
    train(recipe, drive, tmp_path)
    err = capfd.readouterr().err
    lines = err.splitlines()
    for line in (
        f"look at {drive}, train: 0/20", "train semantic: 0/4", "taps of the frozen branch: 0/7",
        "train error: 0/2", "statistics of the error branch: 0/4", "train detail_frozen: 0/2", "score on val: 0/2",
        "score on rendered: 0/2",
    ):  # fmt: skip
        assert lines.count(line) == 1, line
    assert sum(line.startswith("train semantic: ") for line in lines) == 2 * 3  # start and end, of the folds too
    assert all(line.isprintable() for line in lines)
    assert "\r" not in err


class Drawing(SmallNetwork):
    """A network that draws random numbers as it learns."""

    def __init__(self, classes):
        super().__init__(classes)
        self.low.append(torch.nn.Dropout(0.5))


def test_a_network_with_dropout_goes_on_exactly(recipe, drive, tmp_path, monkeypatch):
    monkeypatch.setitem(SEMANTIC_NETWORKS, "drawing", Drawing)
    idle = {name: StageConfig(0) for name in ("error", "error_frozen", "detail", "detail_frozen")}
    cascade = replace(recipe.cascade, semantic="drawing")
    recipe = replace(recipe, cascade=cascade, views=None, cross_fit=CrossFitConfig(), **idle)
    whole = train(recipe, drive, tmp_path / "whole", score_rendered=0)
    step = StageTraining.training_step

    def killed(training, *of):
        if training.global_step == 3:
            raise KeyboardInterrupt
        return step(training, *of)

    monkeypatch.setattr(stages.StageTraining, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, drive, tmp_path / "killed", score_rendered=0)
    monkeypatch.setattr(stages.StageTraining, "training_step", step)
    torch.rand(100)
    assert_same_weights(train(recipe, drive, tmp_path / "killed", score_rendered=0), whole)


@pytest.fixture
def mixed(tmp_path):
    """Landscapes, portraits as files, and portraits that only the EXIF tag of a landscape's file makes."""
    rng = np.random.default_rng(3)
    sizes = [(64, 96), (96, 64), (40, 56), (64, 96)]
    for split, count in (("train", 24), ("val", 3)):
        for kind in ("images", "labels"):
            (tmp_path / "mixed" / split / kind).mkdir(parents=True)
        for index in range(count):
            size = sizes[index % 4]
            frame, labels = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 11, size, np.uint8)
            folder = tmp_path / "mixed" / split
            if index % 4 == 3:
                turned = cv2.rotate(labels, cv2.ROTATE_90_CLOCKWISE)
                (folder / "images" / f"{index:02d}.jpg").write_bytes(turned_jpeg(frame))
                cv2.imwrite(str(folder / "labels" / f"{index:02d}.png"), turned)
            else:
                cv2.imwrite(str(folder / "images" / f"{index:02d}.png"), frame)
                cv2.imwrite(str(folder / "labels" / f"{index:02d}.png"), labels)
    return tmp_path / "mixed"


def turned_jpeg(frame):
    """A JPEG with EXIF orientation 6: to be shown turned by 90 degrees."""
    jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff + jpeg[2:]


def test_frames_of_several_sizes_and_orientations_train_together(recipe, mixed, tmp_path, monkeypatch):
    views = ViewsConfig(scales=(0.75, 1.0), flip=True, rendered=4)
    recipe = replace(recipe, views=views, data=replace(recipe.data, rendered=0.25), error=StageConfig(8, 3, 1e-3, 0, 2))
    whole = train(recipe, mixed, tmp_path / "whole")
    cascade, notes = load_cascade(whole)
    assert all(tensor.isfinite().all() for tensor in cascade.state_dict().values())
    assert notes["metrics"]["val"]["frames"] == 3
    assert json.loads((whole.parent / "inputs.json").read_text())["rendered"] == [[40, 56], [64, 96], [96, 64]]
    step, sizes = StageTraining.training_step, set()

    def killed(training, batch, index):
        if (training.name, training.global_step) == ("error", 5):
            raise KeyboardInterrupt
        if training.name != "semantic":
            sizes.add(tuple(batch.image.shape[2:]))
        return step(training, batch, index)

    monkeypatch.setattr(StageTraining, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, mixed, tmp_path / "killed")
    monkeypatch.setattr(StageTraining, "training_step", step)
    assert len(sizes) >= 3
    assert_same_training(train(recipe, mixed, tmp_path / "killed"), whole)


def test_rendered_streets_alone_teach_their_own_classes_alone(recipe, tmp_path):
    other, classes = replace(recipe.cascade, classes=19), replace(recipe.data, classes="cityscapes", void=())
    cityscapes = replace(recipe, cascade=other, data=classes, views=None, cross_fit=CrossFitConfig())
    with pytest.raises(DataError, match="rendered scenes have the classes of camvid; give --data"):
        train(cityscapes, None, tmp_path / "out")


def test_batches_are_looked_at_before_the_first_step(recipe, drive, tmp_path, steps):
    alone = replace(recipe, cascade=replace(recipe.cascade, semantic="pspnet-resnet50"))
    alone = replace(alone, semantic=replace(recipe.semantic, batch=1))
    with pytest.raises(DataError, match=r"semantic\.batch / devices must be 2 or more for pspnet-resnet50 with inp"):
        train(alone, drive, tmp_path / "out")
    assert steps == []
