"""A whole training, stage after stage, each resumed where it was killed."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from errseg_rt.datasets import LabelledFrames
from errseg_rt.errors import DataError
from errseg_rt.evaluation.error_maps import BASELINES, DETAIL, P_EP
from errseg_rt.evaluation.instance_scores import InstanceScores
from errseg_rt.frames.reading import Reading
from errseg_rt.networks.cascade import BRANCH_FIELDS, Cascade
from errseg_rt.networks.registry import GIVEN
from errseg_rt.system import progress
from errseg_rt.training.batches import check_batches, check_shares
from errseg_rt.training.checkpoint import load_cascade, save_cascade
from errseg_rt.training.claim import (
    RECIPE,
    Inputs,
    check_recipe,
    claim,
    input_differences,
    listed,
    recipe_differences,
)
from errseg_rt.training.data import CropStream, RenderedData, rendered_views
from errseg_rt.training.evaluation import evaluate
from errseg_rt.training.fit import fit as fit_stage
from errseg_rt.training.folds import Fold, folds
from errseg_rt.training.frozen import NETWORK, FrozenNetwork
from errseg_rt.training.initial_weights import load_semantic_weights
from errseg_rt.training.inputs import SCORED_RENDERED, look_at_splits, open_splits
from errseg_rt.training.logit_adjustment import adjust_logits, class_rarity
from errseg_rt.training.outputs import FOLDS, RESULT, TAPS, check_outputs
from errseg_rt.training.recipe import STAGES, Recipe
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.sized import SizedFrames, instances_of
from errseg_rt.training.stages import STAGE_TRAININGS, Crops
from errseg_rt.training.taps import FrozenBatch, TapStore, all_views
from errseg_rt.training.temper import temper

T = TypeVar("T", bound=nn.Module)

track = partial(progress.track, logged=True)  # trainings last, and run where nobody looks on
_NORM_FRAMES = 48  # frames whose mean statistics a frozen norm keeps
# What recipes have in common whose semantic branch is the same, whose kept taps are, and whose error branch is.
_SEMANTIC = (
    *(f"cascade.{name}" for name in BRANCH_FIELDS["semantic"]),
    "data",
    "initial",
    "input",
    "augment",
    "semantic",
    "bootstrap",
    "box_loss.joint",
)
_TAPS = (*_SEMANTIC, "views", "cross_fit", "taps", "cascade.grid_stride")
_ERROR = (
    *_TAPS,
    *(f"cascade.{name}" for name in BRANCH_FIELDS["error"]),
    "seed",
    "error_loss",
    "error",
    "error_frozen",
)
_ENDED_AGAIN = "remove it, and the stage ends again from its last checkpoint"
_MADE_AGAIN = "remove it, and it is made again of the trained branches"


def train(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    init: Path | None = None,
    command: str = "",
    *,
    also: Path | None = None,
    network: FrozenNetwork | None = None,
    shared: Path | None = None,
    devices: int = 1,
    precision: str = "32-true",
    score_rendered: int = 60,
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> Path:
    """Train a cascade by a recipe; a killed training goes on when called again.

    Args:
        recipe: What to do.
        data: What `open_dataset` takes, with a part to learn from and one to score on, as a folder with `train/` and
            `val/`; None: rendered scenes only.
        out: Folder of the checkpoints, logs and results.
        init: Weights to start the semantic branch from, as `load_semantic_weights` takes them.
        command: The command that was given, for the record.
        also: Folder of further frames to learn from, as `open_splits` takes it.
        network: A network of the user's that is the semantic branch, frozen; None: the recipe names one.
        shared: Folder of a training whose semantic branch is used, and whose folds, kept taps and error-prediction
            branch are where the recipe wants the same.
        devices: Number of devices that share each batch.
        precision: Lightning's name of the arithmetic, such as `32-true` or `bf16-mixed`.
        score_rendered: Rendered frames that the finished cascade is scored on, 60 at most; 0: none.
        reading: What is taken of the files of `data`.

    Returns:
        Path of `cascade.safetensors` in `out`; that of a finished training is left as it is.

    Raises:
        DataError: Data, weights or `out` cannot be used, all of which is told before the first step; `out` holds
            another training or a damaged file; `shared` is of another semantic branch; or a loss became NaN.
    """
    if score_rendered < 0:
        raise DataError(f"score_rendered: wanted 0 or more frames, got {score_rendered}")
    if network is None and recipe.cascade.semantic in GIVEN:
        raise DataError(f"recipe {recipe.name} trains the branches of a network of yours: give it by --network")
    if network is not None and init is not None:
        raise DataError("--init is for networks that are trained; the weights of --network are in its file")
    if network is None and not recipe.semantic.iterations and init is None and shared is None:
        raise DataError(f"recipe {recipe.name} takes the semantic branch as it is given: give its weights by --init")
    splits = open_splits(data, recipe, reading, also)
    dealt = folds(splits.learned_names, recipe.cross_fit)
    _check_views(recipe, len(splits.learned), len(splits.also), dealt)
    check_shares(recipe, devices)
    # What Lightning says is about its own settings; the loss and the bar say how the training goes.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(recipe.seed, verbose=False)
    torch.set_float32_matmul_precision("high")
    cascade = _laid_out(Cascade(recipe.cascade, network))
    if init is not None:
        load_semantic_weights(cascade, init, recipe.initial_rows, learns=recipe.semantic.iterations > 0)
    if shared is not None:
        _check_shared(shared, recipe)
    check_outputs(out)
    check_recipe(out, recipe)
    seen = look_at_splits(splits, recipe, init, track, None if network is None else network.note.sha256)
    learned, rendered = seen.learned, rendered_views(recipe, seen.learned)
    check_batches(recipe, [*learned.sizes, *rendered.sizes], devices, network)
    if shared is not None:
        _check_shared(shared, recipe, seen.inputs)
    result = out / RESULT
    is_finished = result.exists()
    claim(out, recipe, seen.inputs, is_finished=is_finished)
    if is_finished:
        load_cascade(result, mend=_MADE_AGAIN)
        return result
    if network is not None:
        network.save(out / NETWORK)
    start = copy.deepcopy(cascade.semantic.state_dict())
    fit = partial(fit_stage, recipe=recipe, devices=devices, precision=precision)
    _semantic(cascade, shared or out, partial(fit, "semantic", frames=learned), is_joint=recipe.box_loss.joint > 0)

    taps = shared if shared is not None and _is_common(shared, recipe, _TAPS) else out
    store = _store(recipe, cascade, learned, seen.also, rendered, dealt, start, taps, fit) if recipe.views else None
    for stage in STAGES[1:]:
        if stage == "detail" and recipe.method.trust < 1:
            temper(cascade.error, recipe.method.trust)
        done = out / f"{stage}.safetensors"
        if shared is not None and stage.startswith("error") and _is_common(shared, recipe, _ERROR):
            done = shared / done.name if (shared / done.name).exists() else done
        if done.exists():
            _take(cascade, _stage_result(done, cascade, stage.removesuffix("_frozen")), stage)
        elif recipe.stage(stage).iterations:
            if stage.endswith("_frozen"):
                freeze(cascade, stage.removesuffix("_frozen"), recipe, learned, store)
            fit(stage, cascade=cascade, frames=learned, out=out, store=store)
            save_cascade(done, cascade, {"recipe": recipe.name, "stage": stage})
    if recipe.method.adjustment:
        members = None if recipe.merge is None else recipe.merge.members
        rarity = class_rarity(learned, recipe.cascade.classes, members)
        adjust_logits(cascade.detail, rarity, recipe.method.adjustment)
    count = min(score_rendered, SCORED_RENDERED) if recipe.can_render else 0
    sets = {"held_out": seen.held, "val": seen.val, "rendered": RenderedData(count, beside=learned.sizes)}
    notes = _notes(cascade.eval(), recipe, sets)
    save_cascade(result, cascade, {**notes, "init": init.name if init else None, "command": command})
    return result


def _check_views(recipe: Recipe, frames: int, also: int, dealt: Sequence[Fold]) -> None:
    """Raises DataError where the branches, or the semantic branch of a fold, would have no frame to learn from."""
    if recipe.views and not frames + also + recipe.views.rendered:
        raise DataError(f"recipe {recipe.name} learns from views of frames: give --data, or set views.rendered")
    if frames and not all(fold.learned for fold in dealt):
        raise DataError(
            f"{frames} frames are too few for {len(dealt)} folds with {recipe.cross_fit.gap} frames left out at either "
            "side; lower cross_fit.folds, cross_fit.blocks or cross_fit.gap, or give more frames"
        )


def _check_shared(shared: Path, recipe: Recipe, inputs: Inputs | None = None) -> None:
    """Raises DataError unless the folder's semantic branch is the one that the recipe wants, of the same inputs."""
    if not (shared / RECIPE).is_file():
        raise DataError(f"{shared}: not the folder of a training (no {RECIPE}); --shared wants another's --out")
    joint = (*(f"cascade.{name}" for name in BRANCH_FIELDS["localization"]), "box_loss")
    parts = (*_SEMANTIC, *joint) if recipe.box_loss.joint else _SEMANTIC
    differing = input_differences(shared, inputs) if inputs else recipe_differences(shared, recipe, parts)
    if differing or not (shared / "semantic.safetensors").is_file():
        raise DataError(
            f"{shared}: its semantic branch cannot be shared ({listed(differing) or 'it is not trained yet'}); "
            "give the folder of a recipe with the same data and semantic branch"
        )


def _is_common(shared: Path, recipe: Recipe, parts: Sequence[str]) -> bool:
    """Whether some parts of a recipe are those of the training in another folder."""
    return not recipe_differences(shared, recipe, parts)


def _laid_out(module: T) -> T:
    """The module, its weights in the layout in which they are trained: sums in another order round otherwise."""
    laid_out: T = cast(Any, module).to(memory_format=torch.channels_last)
    return laid_out


def _take(cascade: Cascade, done: Cascade, stage: str) -> None:
    """Take the branch that a stage has trained, with its norms as they are there."""
    branch = stage.removesuffix("_frozen")
    setattr(cascade, branch, _laid_out(done.get_submodule(branch)))
    frozen = f"{branch}_frozen"
    if hasattr(done.config, frozen):
        cascade.config = replace(cascade.config, **{frozen: getattr(done.config, frozen)})


def _stage_result(path: Path, cascade: Cascade, branch: str) -> Cascade:
    """What a stage has written, of which a branch shall be taken."""
    done, _ = load_cascade(path, mend=_ENDED_AGAIN)
    if any(getattr(done.config, name) != getattr(cascade.config, name) for name in BRANCH_FIELDS[branch]):
        raise DataError(f"{path}: holds another {branch} branch than the recipe wants; {_ENDED_AGAIN}")
    return done


def _semantic(cascade: Cascade, root: Path, fit: Callable[..., None], *, is_joint: bool) -> None:
    """Train the semantic branch of a cascade in `root`, or take it from there, and boxes that it has learned with."""
    done = root / "semantic.safetensors"
    if done.exists():
        result = _stage_result(done, cascade, "semantic")
        cascade.semantic.load_state_dict(result.semantic.state_dict())
        if is_joint:
            _take(cascade, _stage_result(done, cascade, "localization"), "localization")
        return
    fit(cascade=cascade, out=root)
    save_cascade(done, cascade, {"stage": "semantic"})


def _store(
    recipe: Recipe,
    cascade: Cascade,
    learned: SizedFrames,
    also: int,
    rendered: RenderedData,
    dealt: Sequence[Fold],
    start: dict[str, Tensor],
    root: Path,
    fit: Callable[..., None],
) -> TapStore:
    """Taps of the frames to learn from, each seen by the semantic branch of its fold, and of rendered ones."""
    merge = recipe.merge
    frames = learned.followed_by(rendered if merge is None else rendered.relabelled(merge.to_truth))
    frames = frames.weighed(range(len(learned) - also, len(learned)), recipe.data.also)
    seen_by = [cascade] * len(frames)
    short = replace(recipe, semantic=replace(recipe.semantic, iterations=recipe.cross_fit.iterations))
    for number, fold in enumerate(dealt):
        member = _laid_out(Cascade(recipe.cascade))
        member.semantic.load_state_dict(start)
        folder = root / FOLDS / str(number)
        once = partial(fit, "semantic", recipe=short, frames=learned.subset(fold.learned))
        _semantic(member, folder, once, is_joint=recipe.box_loss.joint > 0)
        for index in fold.held:
            seen_by[index] = member.eval()
    store = TapStore(root / TAPS, frames, seen_by.__getitem__, recipe.input)
    cascade.eval()
    store.fill(all_views(cast(ViewsConfig, recipe.views)), track)
    return store


def freeze(
    cascade: Cascade, branch: str, recipe: Recipe, learned: LabelledFrames, store: TapStore | None = None
) -> None:
    """Make the norms of a branch constants: the mean of what frames spread over the data, or crops of them, give.

    Args:
        cascade: Changed in place, and brought into eval mode.
        branch: `"error"` or `"detail"`.
        recipe: Its crops and seed.
        learned: Frames to draw crops from, where there is no store.
        store: Kept taps of whole frames.
    """
    if store is not None:
        spread = range(0, len(store), max(1, len(store) // _NORM_FRAMES))
        count, batches = len(spread), cast(Iterable[FrozenBatch | Crops], map(store.read, spread))
    else:
        crops = CropStream(learned, recipe, STAGES.index(f"{branch}_frozen"), 0, _NORM_FRAMES)
        count, batches = len(crops), DataLoader(crops, batch_size=1)
    training = STAGE_TRAININGS[branch](cascade, recipe, learned)

    def run() -> None:
        for batch in track(batches, f"statistics of the {branch} branch", count):
            image, taps, _ = training.frozen(batch)
            cascade.error(image, taps)
            cascade.detail(taps)

    cascade.eval().freeze_norms(branch, run)


def _notes(cascade: Cascade, recipe: Recipe, sets: Mapping[str, LabelledFrames]) -> dict[str, Any]:
    """Scores, the calibrations and the provenance of a finished training."""
    things = recipe.cascade.things
    scored, found = {}, {}
    for name, frames in sets.items():
        if not len(frames):
            continue
        if things and instances_of(frames) is not None:
            found[name] = InstanceScores(len(recipe.classes), things)
        scored[name] = evaluate(cascade, recipe.deployed, frames, track, f"score on {name}", instances=found.get(name))
    try:
        fitted = scored["held_out"].calibrations()
    except ValueError as error:
        raise DataError(f"the frames kept back for calibration: {error}; give frames with more labels") from error
    metrics = {name: evaluation.to_dict(recipe.label_classes) for name, evaluation in scored.items()}
    for name, instances in found.items():
        metrics[name]["instances"] = instances.to_dict(recipe.classes)
    return {
        "recipe": asdict(recipe),
        "calibration": asdict(fitted[P_EP]),
        **({"detail_calibration": asdict(fitted[DETAIL])} if DETAIL in fitted else {}),
        "baseline_calibrations": {name: asdict(fitted[name]) for name in BASELINES},
        "metrics": metrics,
        "finished": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
    }
