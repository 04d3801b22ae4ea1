"""A whole training, stage after stage, each resumed where it was killed."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from errseg_rt.datasets import LabelledFrames, open_dataset
from errseg_rt.errors import DataError
from errseg_rt.evaluation.error_maps import BASELINES, P_EP
from errseg_rt.networks.cascade import Cascade
from errseg_rt.system.atomic import write_atomically
from errseg_rt.system.progress import track
from errseg_rt.training.checkpoint import load_cascade, save_cascade
from errseg_rt.training.data import CropStream, RenderedData
from errseg_rt.training.evaluation import evaluate
from errseg_rt.training.fit import fit as fit_stage
from errseg_rt.training.folds import Fold, folds, hold_out
from errseg_rt.training.initial_weights import load_semantic_weights
from errseg_rt.training.logit_adjustment import adjust_logits, class_rarity
from errseg_rt.training.recipe import STAGES, Recipe, ViewsConfig
from errseg_rt.training.stages import STAGE_TRAININGS, Crops
from errseg_rt.training.taps import FrozenBatch, TapStore, all_views

T = TypeVar("T", bound=nn.Module)

_INPUTS = "inputs.json"
_RENDERED_FRAMES = 60  # rendered frames scored at the end
_RENDERED_VIEWS_FROM = 500  # first rendered frame that the branches learn from: none that is scored
_NORM_FRAMES = 48  # frames whose mean statistics a frozen norm keeps
# What recipes have in common whose semantic branch is the same, whose kept taps are, and whose error branch is.
_SEMANTIC = ("data", "input", "augment", "semantic", "bootstrap")
_TAPS = (*_SEMANTIC, "views", "cross_fit")
_ERROR = (*_TAPS, "seed", "error_loss", "error", "error_frozen")


def train(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    init: Path | None = None,
    command: str = "",
    *,
    shared: Path | None = None,
    devices: int = 1,
    precision: str = "32-true",
) -> Path:
    """Train a cascade by a recipe; a killed training goes on when called again.

    Args:
        recipe: What to do.
        data: Folder with `train/` and `val/`, each holding `images/` and `labels/`, or the root of Cityscapes or ADE20K
            in their official layout; None: rendered scenes only.
        out: Folder of the checkpoints, logs and results.
        init: Weights to start the semantic branch from.
        command: The command that was given, for the record.
        shared: Folder of a training whose semantic branch is used, and whose folds, kept taps and error-prediction
            branch are where the recipe wants the same.
        devices: Number of devices that share each batch.
        precision: Lightning's name of the arithmetic, such as `32-true` or `bf16-mixed`.

    Returns:
        Path of `cascade.safetensors` in `out`.

    Raises:
        DataError: Data or weights cannot be used, `out` holds the training of another recipe, `shared` is of another
            semantic branch, or a loss became NaN.
    """
    uneven = [stage for stage in STAGES if recipe.stage(stage).iterations and recipe.stage(stage).batch % devices]
    if uneven:
        raise DataError(f"the batches of {', '.join(uneven)} cannot be shared evenly by {devices} devices")
    if not recipe.semantic.iterations and init is None and shared is None:
        raise DataError(f"recipe {recipe.name} takes the semantic branch as it is given: give its weights by --init")
    learned, held, val = _read(data, recipe)
    inputs = _inputs(learned, init)
    _claim(out, recipe, inputs)
    result = out / "cascade.safetensors"
    if result.exists():
        return result
    # What Lightning says is about its own settings; the loss and the bar say how the training goes.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(recipe.seed, verbose=False)
    torch.set_float32_matmul_precision("high")
    common = partial(_common, shared, recipe)
    if shared is not None:
        _check_semantic(shared, recipe, inputs)
    dealt = folds(learned.names, recipe.cross_fit)
    _check_views(recipe, len(learned), dealt)
    fit = partial(fit_stage, recipe=recipe, devices=devices, precision=precision)

    cascade = _laid_out(Cascade(recipe.cascade))
    if init is not None:
        load_semantic_weights(cascade, init, recipe.data.merge)
    start = copy.deepcopy(cascade.semantic.state_dict())
    _semantic(cascade, shared or out, partial(fit, "semantic", frames=learned))

    taps = shared if shared is not None and common(_TAPS) else out
    store = _store(recipe, cascade, learned, dealt, start, taps, fit) if recipe.views else None
    for stage in STAGES[1:]:
        done = out / f"{stage}.safetensors"
        if shared is not None and stage.startswith("error") and common(_ERROR) and (shared / done.name).exists():
            done = shared / done.name
        if done.exists():
            _take(cascade, load_cascade(done)[0], stage)
        elif recipe.stage(stage).iterations:
            if stage.endswith("_frozen"):
                freeze(cascade, stage.removesuffix("_frozen"), recipe, learned, store)
            fit(stage, cascade=cascade, frames=learned, out=out, store=store)
            save_cascade(done, cascade, {"recipe": recipe.name, "stage": stage})
    if recipe.method.adjustment:
        adjust_logits(cascade.detail, class_rarity(learned, recipe.cascade.classes), recipe.method.adjustment)
    notes = _notes(cascade.eval(), recipe, held, val)
    save_cascade(result, cascade, {**notes, "init": init.name if init else None, "command": command})
    return result


def _inputs(learned: LabelledFrames, init: Path | None) -> dict[str, str | None]:
    """What a training starts from, as digests: the names of the frames it learns from, and the initial weights."""
    names, weights = "\n".join(learned.names).encode(), init.read_bytes() if init and init.is_file() else None
    return {
        "frames": hashlib.sha256(names).hexdigest(),
        "init": None if weights is None else hashlib.sha256(weights).hexdigest(),
    }


def _claim(out: Path, recipe: Recipe, inputs: dict[str, str | None]) -> None:
    """Note recipe and inputs in `out`; refuse a folder that holds the training of others."""
    notes = {
        "recipe.json": ("another recipe or seed", asdict(recipe)),
        _INPUTS: ("other data or initial weights", inputs),
    }
    texts = {name: json.dumps(note, indent=2) for name, (_, note) in notes.items()}
    for name, text in texts.items():
        if (out / name).exists() and (out / name).read_text(encoding="utf-8") != text:
            raise DataError(f"{out}: holds a training of {notes[name][0]}; give another --out, or remove it")
    for name, text in texts.items():
        with write_atomically(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _common(shared: Path | None, recipe: Recipe, parts: Sequence[str]) -> bool:
    """Whether some parts of a recipe, and its widths, are those of the training in another folder."""
    return shared is not None and not _differing(shared, recipe, parts)


def _check_semantic(shared: Path, recipe: Recipe, inputs: dict[str, str | None]) -> None:
    """Raises DataError unless the folder's semantic branch is the one that the recipe wants, of the same inputs."""
    differing = _differing(shared, recipe, _SEMANTIC)
    theirs = json.loads((shared / _INPUTS).read_text(encoding="utf-8")) if (shared / _INPUTS).is_file() else inputs
    # Whoever shares a branch need not have what it started from.
    differing += [part for part, digest in inputs.items() if digest is not None and theirs.get(part) != digest]
    if differing or not (shared / "semantic.safetensors").is_file():
        raise DataError(
            f"{shared}: its semantic branch cannot be shared ({', '.join(differing) or 'it is not trained yet'}); "
            "give the folder of a recipe with the same data and semantic branch"
        )


def _differing(shared: Path, recipe: Recipe, parts: Sequence[str]) -> list[str]:
    """Which of some parts of a recipe, and of its shape, are not those of the training in another folder."""
    try:
        theirs = json.loads((shared / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{shared}: not the folder of a training ({error}); --shared wants another's --out") from error
    ours = json.loads(json.dumps(asdict(recipe)))
    shape = ("semantic", "classes") + (("error_width", "residual") if "error" in parts else ())
    differing = [part for part in parts if theirs.get(part) != ours[part]]
    return differing + [f"cascade.{part}" for part in shape if theirs["cascade"].get(part) != ours["cascade"][part]]


def _laid_out(module: T) -> T:
    """The module, its weights in the layout in which they are trained: sums in another order round otherwise."""
    laid_out: T = cast(Any, module).to(memory_format=torch.channels_last)
    return laid_out


def _take(cascade: Cascade, done: Cascade, stage: str) -> None:
    """Take the branch that a stage has trained, with its norms as they are there."""
    branch = stage.removesuffix("_frozen")
    setattr(cascade, branch, _laid_out(done.get_submodule(branch)))
    frozen = f"{branch}_frozen"
    cascade.config = replace(cascade.config, **{frozen: getattr(done.config, frozen)})


def _read(data: Path | None, recipe: Recipe) -> tuple[LabelledFrames, LabelledFrames, LabelledFrames]:
    """Frames to learn from, frames kept back for calibration, and frames to score on."""
    if data is None:
        return RenderedData(0), RenderedData(_RENDERED_FRAMES, first=_RENDERED_FRAMES), RenderedData(0)
    open_split = partial(open_dataset, data, recipe.classes, void=recipe.data.void)
    train_split, val_split = ("training", "validation") if (data / "annotations").is_dir() else ("train", "val")
    frames = open_split(split=train_split)
    learned, held = hold_out(len(frames))
    if not learned:
        raise DataError(
            f"{data}: {len(frames)} training frames are too few to learn from some and calibrate on others; "
            "give 20 or more"
        )
    has_val = any((data / folder / val_split).is_dir() for folder in (".", "leftImg8bit", "images"))
    val: LabelledFrames = open_split(split=val_split) if has_val else RenderedData(0)
    return frames.subset(learned), frames.subset(held), val


def _check_views(recipe: Recipe, frames: int, dealt: Sequence[Fold]) -> None:
    """Raises DataError where the branches, or the semantic branch of a fold, would have no frame to learn from."""
    if recipe.views and not frames + recipe.views.rendered:
        raise DataError(f"recipe {recipe.name} learns from views of frames: give --data, or set views.rendered")
    if frames and not all(fold.learned for fold in dealt):
        raise DataError(
            f"{frames} frames are too few for {len(dealt)} folds with {recipe.cross_fit.gap} frames left out at either "
            "side; lower cross_fit.folds, cross_fit.blocks or cross_fit.gap, or give more frames"
        )


def _semantic(cascade: Cascade, root: Path, fit: Callable[..., None]) -> None:
    """Train the semantic branch of a cascade in `root`, or take it from there."""
    done = root / "semantic.safetensors"
    if done.exists():
        cascade.semantic.load_state_dict(load_cascade(done)[0].semantic.state_dict())
        return
    fit(cascade=cascade, out=root)
    save_cascade(done, cascade, {"stage": "semantic"})


def _store(
    recipe: Recipe,
    cascade: Cascade,
    learned: LabelledFrames,
    dealt: Sequence[Fold],
    start: dict[str, Tensor],
    root: Path,
    fit: Callable[..., None],
) -> TapStore:
    """Taps of the frames to learn from, each seen by the semantic branch of its fold, and of rendered ones."""
    views = cast(ViewsConfig, recipe.views)
    seen_by = [cascade] * (len(learned) + views.rendered)
    short = replace(recipe, semantic=replace(recipe.semantic, iterations=recipe.cross_fit.iterations))
    for number, fold in enumerate(dealt):
        member = _laid_out(Cascade(recipe.cascade))
        member.semantic.load_state_dict(start)
        frames = cast(LabelledFrames, Subset(cast(Any, learned), fold.learned))
        _semantic(member, root / "folds" / str(number), partial(fit, "semantic", recipe=short, frames=frames))
        for index in fold.held:
            seen_by[index] = member.eval()
    rendered = RenderedData(views.rendered, first=_RENDERED_VIEWS_FROM)
    frames = cast(LabelledFrames, ConcatDataset([cast(Any, learned), cast(Any, rendered)]))
    store = TapStore(root / "taps", frames, seen_by.__getitem__, recipe.input)
    cascade.eval()
    store.fill(all_views(views), track)
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
        batches: Iterable[FrozenBatch | Crops] = (store.read(index) for index in spread)
    else:
        crops = CropStream(learned, recipe, STAGES.index(f"{branch}_frozen"), 0, _NORM_FRAMES)
        batches = DataLoader(crops, batch_size=1)
    training = STAGE_TRAININGS[branch](cascade, recipe, learned)

    def run() -> None:
        for batch in track(batches, f"statistics of the {branch} branch", _NORM_FRAMES):
            image, taps, _ = training.frozen(batch)
            cascade.error(image, taps)
            cascade.detail(taps)

    cascade.eval().freeze_norms(branch, run)


def _notes(cascade: Cascade, recipe: Recipe, held: LabelledFrames, val: LabelledFrames) -> dict[str, Any]:
    """Scores, the calibrations and the provenance of a finished training."""
    sets = {"held_out": held, "val": val, "rendered": RenderedData(_RENDERED_FRAMES)}
    scored = {
        name: evaluate(cascade, recipe.deployed, frames, track, f"score on {name}")
        for name, frames in sets.items()
        if len(frames)
    }
    fitted = scored["held_out"].calibrations()
    return {
        "recipe": asdict(recipe),
        "calibration": asdict(fitted[P_EP]),
        "baseline_calibrations": {name: asdict(fitted[name]) for name in BASELINES},
        "metrics": {name: evaluation.to_dict(recipe.classes) for name, evaluation in scored.items()},
        "finished": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
    }
