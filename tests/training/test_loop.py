"""A whole training, small enough for a test: its result, its records, and going on after a kill."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.datasets import FolderData
from errseg_rt.errors import DataError
from errseg_rt.training import fit, loop
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.folds import folds, hold_out
from errseg_rt.training.loop import train
from errseg_rt.training.recipe import STAGES, CascadeConfig
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.recipe_files import parse_recipe
from errseg_rt.training.recipe_learning import CrossFitConfig, MethodConfig, StageConfig
from errseg_rt.training.stages import STAGE_TRAININGS, StageTraining
from errseg_rt.training.taps import TapStore
from tests.training.conftest import assert_same_training, assert_same_weights

pytestmark = pytest.mark.usefixtures("small_scenes", "process_settings", "small_network", "on_cpu")
OF_CLASSES = STAGES[:-1]
"""Stages of a cascade without instances; of the last one see test_instances_loop.py."""


@pytest.fixture(scope="module")
def recipe(recipe, small_network):
    return replace(recipe, cascade=replace(recipe.cascade, semantic="small"))


@pytest.fixture(scope="module")
def cross_fitted(cross_fitted, small_network):
    return replace(cross_fitted, cascade=replace(cross_fitted.cascade, semantic="small"))


@pytest.fixture
def steps(monkeypatch):
    """What a training does, step by step, and where it is killed.

    It lists stage and step of every training step, and frame and view of all taps that are computed. `interrupt` holds
    steps, stages whose result, and views whose taps a kill prevents.
    """

    class Steps(list):
        interrupt = ()

        def come_to(self, *here):
            if here in self.interrupt:
                raise KeyboardInterrupt
            self.append(here)

    taken = Steps()
    step, save, compute = StageTraining.training_step, loop.save_cascade, TapStore._compute

    def place(folder, stage):
        return f"fold{folder.name}" if folder.parent.name == "folds" else stage

    def recorded(training, batch, batch_index):
        taken.come_to(place(Path(training.trainer.default_root_dir), training.name), training.global_step)
        return step(training, batch, batch_index)

    def saved(path, *rest):
        if place(path.parent, path.stem) in taken.interrupt:
            raise KeyboardInterrupt
        return save(path, *rest)

    def computed(store, index, view):
        taken.come_to("taps", index, *view)
        return compute(store, index, view)

    monkeypatch.setattr(StageTraining, "training_step", recorded)
    monkeypatch.setattr(loop, "save_cascade", saved)
    monkeypatch.setattr(TapStore, "_compute", computed)
    return taken


@pytest.fixture(scope="module")
def finished(recipe, small_scenes, process_settings, on_cpu, tmp_path_factory):
    """A training by crops of rendered scenes."""
    out = tmp_path_factory.mktemp("finished")
    return train(recipe, None, out, command="errseg-rt train tiny")


@pytest.fixture(scope="module")
def fitted(cross_fitted, drive, small_scenes, process_settings, on_cpu, tmp_path_factory):
    """A training by kept views of frames, each seen by the semantic branch of its fold."""
    return train(cross_fitted, drive, tmp_path_factory.mktemp("fitted"))


def test_training_writes_weights_scores_and_calibration(finished, recipe):
    cascade, notes = load_cascade(finished)
    assert finished.name == "cascade.safetensors"
    assert cascade.config == replace(recipe.cascade, error_frozen=True, detail_frozen=True)
    assert all(tensor.isfinite().all() for tensor in cascade.state_dict().values())
    assert notes["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert (notes["command"], notes["init"], notes["torch"]) == ("errseg-rt train tiny", None, torch.__version__)
    assert Calibration(*map(tuple, notes["calibration"].values())).logits
    assert set(notes["baseline_calibrations"]) == {"max_softmax", "entropy", "margin"}
    is_flagged = notes["metrics"]["held_out"]["flagged"] > 0
    assert ("detail_calibration" in notes) == is_flagged
    if is_flagged:
        assert Calibration.from_dict(notes["detail_calibration"]).logits
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
    done = set()
    for stage in OF_CLASSES:
        after, notes = load_cascade(finished.parent / f"{stage}.safetensors")
        assert notes["stage"] == stage
        moved = {
            name
            for (name, branch), old in zip(after.named_children(), before.children(), strict=True)
            if any((a != b).any() for a, b in zip(branch.parameters(), old.parameters(), strict=True))
        }
        trained = stage.removesuffix("_frozen")
        assert trained in moved <= {*done, trained}
        done.add(trained)
        assert getattr(after.config, f"{trained}_frozen", False) is stage.endswith("_frozen")


def test_stages_go_on_from_the_one_before(finished):
    # Learning on with frozen norms is a few small steps from what was learned with the others.
    for branch in ("error", "detail"):
        plain, frozen = (load_cascade(finished.parent / f"{branch}{end}.safetensors")[0] for end in ("", "_frozen"))
        for (name, before), after in zip(
            plain.get_submodule(branch).named_parameters(), frozen.get_submodule(branch).parameters(), strict=True
        ):
            assert (before - after).abs().max() <= 2.1e-3, name  # two steps of Adam at 1e-3
    assert_same_weights(finished, finished.parent / "detail_frozen.safetensors")


def test_finished_training_is_not_done_again(finished, recipe, steps):
    written = finished.stat().st_mtime_ns
    assert train(recipe, None, finished.parent) == finished
    assert steps == []
    assert finished.stat().st_mtime_ns == written


OTHER_RECIPES = {
    "seed: 3 there, 4 here": {"seed": 4},
    "threshold: 0.7 there, 0.5 here": {"threshold": 0.5},
    'name: "tiny" there, "other" here': {"name": "other"},
    "views: nothing there, a section here": {"views": ViewsConfig(rendered=1)},
}


@pytest.mark.parametrize(("how", "change"), OTHER_RECIPES.items(), ids=OTHER_RECIPES)
def test_folder_of_another_recipe_is_refused(finished, recipe, how, change):
    message = re.escape(f"{finished.parent}: holds another training ({how}); give another --out, or remove the folder")
    with pytest.raises(DataError, match=f"^{message}$"):
        train(replace(recipe, **change), None, finished.parent)
    assert json.loads((finished.parent / "recipe.json").read_text()) == json.loads(json.dumps(asdict(recipe)))


def test_folder_of_other_inputs_is_refused(finished, recipe, drive, tmp_path):
    torch.save(load_cascade(finished)[0].semantic.state_dict(), tmp_path / "w.pth")
    others = [(drive, None, "train: f000 and 19 more new"), (None, tmp_path / "w.pth", "--init: other weights")]
    for data, init, how in others:
        with pytest.raises(DataError, match=rf"holds another training \({how}\); give another --out"):
            train(recipe, data, finished.parent, init)


def kill_at(points, steps, *arguments):
    """Train, killed at each point in turn, and then to the end."""
    handler = signal.getsignal(signal.SIGINT)
    for point in points:
        steps.interrupt = {point}
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)
        assert signal.getsignal(signal.SIGINT) is handler
        assert not (arguments[2] / "cascade.safetensors").exists()
    steps.interrupt = ()
    return train(*arguments)


def test_interrupted_training_goes_on_bit_for_bit(finished, recipe, steps, tmp_path):
    # After a checkpoint, before a stage's first, with a stage's result unwritten, and at the step after a checkpoint.
    points = [
        ("semantic", 3), ("error", 1), "error", ("error_frozen", 1), "error_frozen", ("detail", 2),
        ("detail_frozen", 0),
    ]  # fmt: skip
    resumed = kill_at(points, steps, recipe, None, tmp_path)
    taken = {stage: [step for name, step in steps if name == stage] for stage in OF_CLASSES}
    assert taken == {
        "semantic": [0, 1, 2, 2, 3],
        "error": [0, 0, 1],
        "error_frozen": [0, 0, 1],
        "detail": [0, 1, 2, 3],
        "detail_frozen": [0, 1],
    }
    assert_same_training(resumed, finished)


def test_interrupted_cross_fitting_goes_on_bit_for_bit(fitted, cross_fitted, drive, steps, tmp_path):
    points = [
        ("fold0", 1), "fold0", ("fold1", 0), ("taps", 4, 1.5, False), ("error", 1), "error", ("error_frozen", 0),
        ("detail", 3), ("detail_frozen", 1),
    ]  # fmt: skip
    resumed = kill_at(points, steps, cross_fitted, drive, tmp_path)
    taken = {name: [step for at, step, *_ in steps if at == name] for name in ("fold0", "fold1", *OF_CLASSES)}
    assert taken == {
        "semantic": [0, 1, 2, 3],
        "fold0": [0, 0, 1],
        "fold1": [0, 1],
        "error": [0, 0, 1],
        "error_frozen": [0, 1],
        "detail": [0, 1, 2, 2, 3],
        "detail_frozen": [0, 0, 1],
    }
    computed = [here for here in steps if here[0] == "taps"]
    assert len(computed) == len(set(computed)) == 7 * 4  # six frames and a rendered one, in two scales, mirrored or not
    assert_same_training(resumed, fitted)


def frames_to_learn_from(drive):
    frames = FolderData(drive / "train", 11, void=[11])
    return frames.subset(hold_out(len(frames))[0])


def test_kept_taps_are_those_of_the_fold_that_did_not_see_the_frame(fitted, cross_fitted, drive, tmp_path):
    frames = frames_to_learn_from(drive)
    kept = TapStore(fitted.parent / "taps", frames, lambda _: load_cascade(fitted)[0], cross_fitted.input)
    for number, fold in enumerate(folds(frames.names, cross_fitted.cross_fit)):
        member, _ = load_cascade(fitted.parent / "folds" / str(number) / "semantic.safetensors")
        member.to(memory_format=torch.channels_last)  # with weights laid out otherwise, sums round otherwise
        computed = TapStore(tmp_path / str(number), frames, lambda _, member=member: member, cross_fitted.input)
        for index in range(len(frames)):
            taps, own = kept.read(index).taps, computed.read(index).taps
            assert all(map(torch.equal, taps, own)) is (index in fold.held)


def test_a_fold_learns_from_the_frames_that_it_does_not_hold(cross_fitted, drive, monkeypatch, tmp_path):
    asked = {}

    def idle(stage, recipe, cascade, frames, out, store=None, **_):
        asked[out.name if stage == "semantic" else stage] = recipe.semantic.iterations, frames

    monkeypatch.setattr(loop, "fit_stage", idle)
    train(cross_fitted, drive, tmp_path / "whole")
    frames = frames_to_learn_from(drive)
    for number, fold in enumerate(folds(frames.names, cross_fitted.cross_fit)):
        iterations, learned = asked[str(number)]
        assert iterations == cross_fitted.cross_fit.iterations
        assert learned.names == [frames.names[index] for index in fold.learned]
        assert not set(learned.names) & {frames.names[index] for index in fold.held}
    for name in ("whole", "error", "detail_frozen"):
        iterations, learned = asked[name]
        assert iterations == cross_fitted.semantic.iterations
        assert learned.names == frames.names


@pytest.mark.parametrize("stage", OF_CLASSES)
def test_loss_that_is_not_finite_is_named(recipe, monkeypatch, tmp_path, stage):
    training = STAGE_TRAININGS[stage]
    loss = training.loss
    poison = lambda self, batch: loss(self, batch) * (float("nan") if self.global_step == 1 else 1)  # noqa: E731
    monkeypatch.setattr(training, "loss", poison)
    idle = {name: StageConfig(0) for name in OF_CLASSES if name not in ("semantic", stage)}
    one = {"semantic": replace(recipe.semantic, iterations=2)}
    branch = stage.removesuffix("_frozen")
    message = rf"{branch} branch: the loss became nan at step 1 \(batch 1 of epoch 0\); lower its rate, 0.001"
    with pytest.raises(DataError, match=message):
        train(replace(recipe, **{**one, **idle}), None, tmp_path)
    assert not (tmp_path / f"{stage}.safetensors").exists()


def test_full_disk_leaves_the_last_checkpoint_and_the_training_goes_on(finished, recipe, monkeypatch, steps, tmp_path):
    # Of the first stage's two checkpoints the second, and the result of the next stage.
    write, write_bytes, written = torch.save, Path.write_bytes, []

    def save(checkpoint, path, *rest):
        written.append(path)
        if len(written) < 2:
            return write(checkpoint, path, *rest)
        path.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(OSError, match="No space left"):
            train(recipe, None, tmp_path)
    last = tmp_path / "semantic" / "last.ckpt"
    assert [path.name for path in last.parent.iterdir()] == [last.name]
    assert torch.load(last, weights_only=True)["global_step"] == 2

    results = []

    def fill_the_disk(path, data):
        results.extend([path] if path.suffix == ".safetensors" else [])
        if len(results) < 2:
            return write_bytes(path, data)
        write_bytes(path, data[:99])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            train(recipe, None, tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["semantic.safetensors"]
    assert not list(tmp_path.glob(".*tmp*"))
    assert_same_training(train(recipe, None, tmp_path), finished)
    assert [step for name, step in steps if name == "semantic"] == [0, 1, 2, 3, 2, 3]
    assert [step for name, step in steps if name == "error"] == [0, 1]


def test_a_semantic_branch_that_is_not_trained_is_the_one_given(finished, recipe, steps, tmp_path):
    torch.save(load_cascade(finished)[0].semantic.state_dict(), tmp_path / "w.pth")
    given = replace(recipe, semantic=StageConfig(0), error_frozen=StageConfig(0), detail_frozen=StageConfig(0))
    result = train(given, None, tmp_path / "out", init=tmp_path / "w.pth")
    assert_same_weights(result, tmp_path / "out" / "detail.safetensors")
    assert_same_weights(result, finished, "semantic.")
    assert {name for name, _ in steps} == {"error", "detail"}
    cascade, notes = load_cascade(result)
    assert (cascade.config.error_frozen, cascade.config.detail_frozen) == (False, False)
    assert notes["init"] == "w.pth"
    with pytest.raises(DataError, match="takes the semantic branch as it is given: give its weights by --init"):
        train(given, None, tmp_path / "other")


def test_shared_semantic_branch_taps_and_error_branch_are_not_made_again(fitted, cross_fitted, drive, steps, tmp_path):
    method = MethodConfig(selector="everywhere", learn="everywhere", fusion="average")
    other = replace(cross_fitted, name="other", threshold=0.3, method=method)
    result = train(other, drive, tmp_path, shared=fitted.parent)
    assert {name for name, *_ in steps} == {"detail", "detail_frozen"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "cascade.safetensors", "detail", "detail.safetensors", "detail_frozen", "detail_frozen.safetensors", "logs",
        "inputs.json", "recipe.json",
    }  # fmt: skip
    for branch in ("semantic.", "error."):
        assert_same_weights(result, fitted, branch)
    _, notes = load_cascade(result)
    assert notes["recipe"]["name"] == "other"


def test_an_error_branch_is_shared_by_other_detail_branches(fitted, cross_fitted, drive, steps, tmp_path):
    other = replace(cross_fitted, cascade=replace(cross_fitted.cascade, detail_width=8), detail_frozen=StageConfig(0))
    result = train(other, drive, tmp_path, shared=fitted.parent)
    assert {name for name, *_ in steps} == {"detail"}
    assert_same_weights(result, fitted, "error.")


def test_what_differs_is_made_anew(fitted, cross_fitted, drive, steps, tmp_path):
    # Another seed learns branches of its own from the shared taps; other folds give taps of their own.
    idle = {name: StageConfig(0) for name in ("detail", "detail_frozen")}
    train(replace(cross_fitted, seed=8, **idle), drive, tmp_path / "seed", shared=fitted.parent)
    assert [here for here, *_ in steps] == ["error"] * 2 + ["error_frozen"] * 2
    steps.clear()
    whole = replace(cross_fitted, cross_fit=CrossFitConfig(), views=ViewsConfig(flip=False), **idle)
    train(whole, drive, tmp_path / "folds", shared=fitted.parent)
    assert [here for here, *_ in steps] == ["taps"] * 6 + ["error"] * 2 + ["error_frozen"] * 2
    assert len(list((tmp_path / "folds" / "taps").iterdir())) == 6
    for out in ("seed", "folds"):
        assert_same_weights(tmp_path / out / "cascade.safetensors", fitted, "semantic.")


def test_the_trained_detail_branch_is_adjusted_to_rare_classes(fitted, cross_fitted, drive, tmp_path):
    other = replace(cross_fitted, name="other", method=MethodConfig(adjustment=0.5))
    result = train(other, drive, tmp_path, shared=fitted.parent)
    trained, adjusted = (load_cascade(path)[0] for path in (tmp_path / "detail_frozen.safetensors", result))
    moved = (adjusted.detail.head.bias - trained.detail.head.bias).detach()
    assert moved.min() > 0  # by the rarest class's rarity where a class does not occur
    assert moved.max() > moved.min()
    torch.testing.assert_close(adjusted.detail.head.weight, trained.detail.head.weight, rtol=0, atol=0)


OTHERS = {
    "data.rendered: 0.0 there, 0.5 here": {"data": {"rendered": 0.5}},
    "input.scale: 1.0 there, 2.0 here": {"input": {"scale": 2.0}},
    "augment.rotation: 5.0 there, 1.0 here; semantic.rate: 0.001 there, 1.0 here": {
        "augment": {"rotation": 1.0},
        "semantic": {"rate": 1.0},
    },
    "bootstrap.probability: 0.0 there, 0.5 here": {"bootstrap": {"probability": 0.5}},
}


@pytest.mark.parametrize(("differing", "changes"), OTHERS.items(), ids=OTHERS)
def test_shared_folder_of_another_semantic_branch_is_refused(finished, recipe, tmp_path, differing, changes):
    other = replace(recipe, **{part: replace(getattr(recipe, part), **values) for part, values in changes.items()})
    with pytest.raises(DataError, match=rf"its semantic branch cannot be shared \({differing}\); give the folder of"):
        train(other, None, tmp_path, shared=finished.parent)


def test_shared_folder_of_other_inputs_is_refused(finished, recipe, drive, tmp_path):
    with pytest.raises(DataError, match=r"its semantic branch cannot be shared \(train: f000 and 19 more new\)"):
        train(recipe, drive, tmp_path, shared=finished.parent)


def test_shared_folder_of_another_network_is_refused(finished, recipe, tmp_path):
    other = replace(recipe, cascade=CascadeConfig("pspnet-resnet50", 11, 4, 4))
    with pytest.raises(DataError, match=r'branch cannot be shared \(cascade\.semantic: "small" there, "psp.*" here\)'):
        train(other, None, tmp_path, shared=finished.parent)


def test_shared_folder_that_is_none_or_not_ready_is_refused(finished, recipe, tmp_path):
    with pytest.raises(DataError, match=r"not the folder of a training .*--shared wants another's --out"):
        train(recipe, None, tmp_path / "out", shared=tmp_path)
    (tmp_path / "recipe.json").write_text((finished.parent / "recipe.json").read_text())
    with pytest.raises(DataError, match=r"its semantic branch cannot be shared \(it is not trained yet\)"):
        train(recipe, None, tmp_path / "out", shared=tmp_path)


@pytest.mark.parametrize("views", [None, ViewsConfig(rendered=2)], ids=["crops", "views"])
def test_mixed_precision(recipe, finished, tmp_path, views):
    result = train(replace(recipe, views=views), None, tmp_path, precision="bf16-mixed")
    found, wanted = (load_cascade(path)[0].state_dict() for path in (result, finished))
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype
        assert tensor.isfinite().all()
    moved = (found["semantic.head.weight"] - wanted["semantic.head.weight"]).abs().max()
    assert 0 < moved < 8e-3  # four steps of Adam at 1e-3, to either side


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("views", [None, ViewsConfig(rendered=2)], ids=["crops", "views"])
def test_training_on_a_gpu(recipe, finished, monkeypatch, tmp_path, views, precision):
    monkeypatch.setattr(fit, "Trainer", Trainer)
    result = train(replace(recipe, views=views), None, tmp_path, precision=precision)
    found, wanted = (load_cascade(path)[0].state_dict() for path in (result, finished))
    assert found.keys() == wanted.keys()
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that may have touched a GPU cannot be forked")
def test_two_processes_learn_what_one_does(finished, recipe, monkeypatch, tmp_path):
    # Forked, which spares them the imports. The loss of this stage is a mean over the images: no other is the same for
    # halves of a batch, whose valid pixels differ in number.
    monkeypatch.setattr(fit, "Trainer", partial(Trainer, strategy="ddp_fork", accelerator="cpu"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a pool of threads does not survive a fork
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    idle = {name: StageConfig(0) for name in ("error_frozen", "detail", "detail_frozen")}
    recipe = replace(recipe, error=replace(recipe.error, iterations=4, batch=4), **idle)
    two = train(recipe, None, tmp_path / "two", shared=finished.parent, devices=2)
    torch.set_num_threads(threads)
    monkeypatch.undo()
    one = train(recipe, None, tmp_path / "one", shared=finished.parent)
    found, wanted = (load_cascade(path)[0].error.state_dict() for path in (two, one))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4)


def test_batches_that_devices_cannot_share_are_refused(recipe, tmp_path):
    uneven = replace(recipe, detail=replace(recipe.detail, batch=3), error=replace(recipe.error, batch=5))
    with pytest.raises(DataError, match="the batches of error, detail cannot be shared evenly by 2 devices"):
        train(uneven, None, tmp_path / "out", devices=2)
    assert not (tmp_path / "out").exists()


def test_missing_data(recipe, tmp_path):
    with pytest.raises(DataError, match=r"absent: no such folder"):
        train(recipe, tmp_path / "absent", tmp_path / "out")


def test_too_few_frames_to_keep_some_back(recipe, tmp_path, write_folder, steps):
    write_folder(tmp_path / "train", 10)
    with pytest.raises(DataError, match="10 training frames are too few"):
        train(recipe, tmp_path, tmp_path / "out")
    assert steps == []


def test_too_few_frames_for_the_folds(cross_fitted, drive, tmp_path, steps):
    wide = replace(cross_fitted, cross_fit=replace(cross_fitted.cross_fit, gap=3))
    with pytest.raises(DataError, match="6 frames are too few for 2 folds with 3 frames left out at either side"):
        train(wide, drive, tmp_path)
    assert steps == []


def test_views_of_nothing_are_refused(recipe, tmp_path, steps):
    with pytest.raises(DataError, match=r"tiny learns from views of frames: give --data, or set views\.rendered"):
        train(replace(recipe, views=ViewsConfig()), None, tmp_path)
    assert steps == []


def test_missing_initial_weights(recipe, tmp_path):
    with pytest.raises(DataError, match=r"w\.pth: no such file; --init wants"):
        train(recipe, None, tmp_path / "out", init=tmp_path / "w.pth")


@pytest.mark.parametrize("views", [None, ViewsConfig(scales=(1.0,), flip=False)], ids=["crops", "views"])
def test_merged_classes_beside_the_networks_own_are_learned_and_scored(recipe, write_folder, tmp_path, views):
    merge = {"ground": ("road", "pavement"), "sky": ("sky",), "thing": ("car", "pole", "sign")}
    data = replace(recipe.data, merge=merge, void=(), also=0.5)
    method = MethodConfig(adjustment=0.1)
    coarse = replace(recipe, data=data, views=views, method=method, semantic=replace(recipe.semantic, iterations=2))
    for index, (split, count) in enumerate({"train": 20, "val": 2}.items()):
        write_folder(tmp_path / "data" / split, count, classes=3, seed=index)
    write_folder(tmp_path / "also", 2, size=(64, 48), seed=5)
    result = train(coarse, tmp_path / "data", tmp_path / "out", also=tmp_path / "also", score_rendered=0)
    cascade, notes = load_cascade(result)
    assert cascade.config.classes == 11
    assert list(notes["metrics"]["val"]["fused"]["iou"]) == ["ground", "sky", "thing"]
    assert 0 < notes["metrics"]["held_out"]["errors"]["rate"] < 1
    assert Calibration.from_dict(notes["calibration"]).probabilities
    with pytest.raises(DataError, match=r"holds another training \(also: f000 and 1 more gone\)"):
        train(coarse, tmp_path / "data", tmp_path / "out", score_rendered=0)
    # What was learned may be exported: its recipe is read back from the notes.
    assert parse_recipe("tiny", {key: value for key, value in notes["recipe"].items() if key != "name"}).merge.sets
