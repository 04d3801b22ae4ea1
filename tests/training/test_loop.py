"""A whole training, small enough for a test: its result, its records, and going on after a kill."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, replace

import pytest
import torch

from errseg_rt.calibration import Calibration
from errseg_rt.errors import DataError
from errseg_rt.training import loop
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.loop import train
from errseg_rt.training.recipe import STAGES
from errseg_rt.training.stages import STAGE_TRAININGS, StageTraining

pytestmark = pytest.mark.usefixtures("small_scenes", "process_settings")


@pytest.fixture
def steps(monkeypatch):
    """Stage and step of every training step; `interrupt` holds steps, and stages' results, that a kill prevents."""

    class Steps(list):
        interrupt = ()

    taken = Steps()
    step = StageTraining.training_step

    def recorded(training, batch, batch_index):
        here = (training.name, training.global_step)
        if here in taken.interrupt:
            raise KeyboardInterrupt
        taken.append(here)
        return step(training, batch, batch_index)

    def saved(path, *rest):
        if path.stem in taken.interrupt:
            raise KeyboardInterrupt
        return save(path, *rest)

    save = loop.save_cascade
    monkeypatch.setattr(StageTraining, "training_step", recorded)
    monkeypatch.setattr(loop, "save_cascade", saved)
    return taken


@pytest.fixture(scope="module")
def finished(recipe, small_scenes, process_settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return train(recipe, None, out, command="errseg-rt train tiny")


def test_training_writes_weights_scores_and_calibration(finished, recipe):
    cascade, notes = load_cascade(finished)
    assert finished.name == "cascade.safetensors"
    assert cascade.config == recipe.cascade
    assert all(tensor.isfinite().all() for tensor in cascade.state_dict().values())
    assert notes["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert (notes["command"], notes["init"], notes["torch"]) == ("errseg-rt train tiny", None, torch.__version__)
    assert Calibration(*map(tuple, notes["calibration"].values())).logits
    assert notes["metrics"].keys() == {"held_out", "rendered"}
    for scores in notes["metrics"].values():
        assert scores["frames"] == 2
        assert 0 <= scores["flagged"] <= 1
        for which in ("semantic", "fused"):
            assert 0 <= scores[which]["miou"] <= scores[which]["accuracy"] <= 1
            assert tuple(scores[which]["iou"]) == recipe.classes.names


def test_every_stage_moves_its_branch_and_keeps_the_others(finished, recipe):
    loop.seed_everything(recipe.seed, verbose=False)
    before = loop.Cascade(recipe.cascade)
    for index, stage in enumerate(STAGES):
        after, notes = load_cascade(finished.parent / f"{stage}.safetensors")
        assert notes == {"recipe": recipe.name, "stage": stage}
        moved = {
            name: any((a != b).any() for a, b in zip(branch.parameters(), old.parameters(), strict=True))
            for (name, branch), (_, old) in zip(after.named_children(), before.named_children(), strict=True)
        }
        assert moved == {name: name in STAGES[: index + 1] for name in STAGES}


def test_finished_training_is_not_done_again(finished, recipe, steps):
    written = finished.stat().st_mtime_ns
    assert train(recipe, None, finished.parent) == finished
    assert steps == []
    assert finished.stat().st_mtime_ns == written


@pytest.mark.parametrize("change", [{"seed": 4}, {"threshold": 0.5}, {"name": "other"}], ids=str)
def test_folder_of_another_recipe_is_refused(finished, recipe, change):
    with pytest.raises(DataError, match="holds a training of another recipe or seed; give another --out"):
        train(replace(recipe, **change), None, finished.parent)
    assert json.loads((finished.parent / "recipe.json").read_text()) == json.loads(json.dumps(asdict(recipe)))


def test_interrupted_training_goes_on_bit_for_bit(finished, recipe, steps, tmp_path):
    # After a checkpoint, before a stage's first, with a stage's result unwritten, and at the step after a checkpoint.
    handler = signal.getsignal(signal.SIGINT)
    for point in (("semantic", 3), ("error", 1), "error", ("detail", 2)):
        steps.interrupt = {point}
        with pytest.raises(KeyboardInterrupt):
            train(recipe, None, tmp_path)
        assert signal.getsignal(signal.SIGINT) is handler
        assert not (tmp_path / "cascade.safetensors").exists()
    steps.interrupt = set()
    resumed = train(recipe, None, tmp_path)
    semantic, error, detail = (lambda *taken, name=name: [(name, step) for step in taken] for name in STAGES)
    assert steps == [
        *semantic(0, 1, 2),
        *semantic(2, 3) + error(0),
        *error(0, 1),
        *detail(0, 1),
        *detail(2, 3),
    ]
    (cascade, notes), (wanted, wanted_notes) = load_cascade(resumed), load_cascade(finished)
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(cascade.state_dict()[name], tensor, rtol=0, atol=0)
    assert notes["calibration"] == wanted_notes["calibration"]
    assert notes["metrics"] == wanted_notes["metrics"]


@pytest.mark.parametrize("stage", ["semantic", "error"])
def test_loss_that_is_not_finite_is_named(recipe, monkeypatch, tmp_path, stage):
    loss = STAGE_TRAININGS[stage].loss
    monkeypatch.setattr(
        STAGE_TRAININGS[stage],
        "loss",
        lambda self, *batch: loss(self, *batch) * (float("nan") if self.global_step == 1 else 1),
    )
    message = rf"{stage} branch: the loss became nan at step 1 \(batch 1 of epoch 0\); lower its rate, 0.001"
    with pytest.raises(DataError, match=message):
        train(recipe, None, tmp_path)
    assert not (tmp_path / f"{stage}.safetensors").exists()


def test_missing_data(recipe, tmp_path):
    with pytest.raises(DataError, match=r"train.images: no such folder"):
        train(recipe, tmp_path / "absent", tmp_path / "out")


def test_too_few_frames_to_keep_some_back(recipe, tmp_path, write_folder, steps):
    write_folder(tmp_path / "train", 10)
    with pytest.raises(DataError, match="train: 10 frames are too few"):
        train(recipe, tmp_path, tmp_path / "out")
    assert steps == []


def test_missing_initial_weights(recipe, tmp_path):
    with pytest.raises(DataError, match=r"w\.pth: no such file; --init wants"):
        train(recipe, None, tmp_path / "out", init=tmp_path / "w.pth")
