"""A whole training, stage after stage, each resumed where it was killed."""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from errseg_rt.atomic import write_atomically
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.progress import track
from errseg_rt.training.checkpoint import (
    AtomicCheckpointIO,
    load_cascade,
    load_semantic_weights,
    save_cascade,
)
from errseg_rt.training.data import FolderData, LabelledFrames, RenderedData, hold_out
from errseg_rt.training.evaluation import evaluate
from errseg_rt.training.recipe import STAGES, Recipe
from errseg_rt.training.stages import STAGE_TRAININGS

_RENDERED_FRAMES = 60  # rendered frames scored at the end


def train(recipe: Recipe, data: Path | None, out: Path, init: Path | None = None, command: str = "") -> Path:
    """Train a cascade by a recipe; a killed training goes on when called again.

    Args:
        recipe: What to do.
        data: Folder with `train/` and `val/`, each holding `images/` and `labels/`; None: rendered scenes only.
        out: Folder of the checkpoints, logs and results.
        init: Weights to start the semantic branch from.
        command: The command that was given, for the record.

    Returns:
        Path of `cascade.safetensors` in `out`.

    Raises:
        DataError: Data or weights cannot be used, `out` holds the training of another recipe, or a loss became NaN.
    """
    _claim(out, recipe)
    result = out / "cascade.safetensors"
    if result.exists():
        return result
    # What Lightning says is about its own settings; the loss and the bar say how the training goes.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(recipe.seed, verbose=False)
    torch.set_float32_matmul_precision("high")
    learned, held, val = _read(data, recipe)
    cascade = Cascade(recipe.cascade)
    if init is not None:
        load_semantic_weights(cascade, init, recipe.data.merge)
    for stage in STAGES:
        done = out / f"{stage}.safetensors"
        if done.exists():
            cascade, _ = load_cascade(done)
        else:
            _train_stage(stage, cascade, recipe, learned, out)
            save_cascade(done, cascade, {"recipe": recipe.name, "stage": stage})
    notes = _notes(cascade.eval(), recipe, held, val)
    save_cascade(result, cascade, {**notes, "init": init.name if init else None, "command": command})
    return result


def _claim(out: Path, recipe: Recipe) -> None:
    """Note the recipe in `out`; refuse a folder that holds another one's training."""
    record, text = out / "recipe.json", json.dumps(asdict(recipe), indent=2)
    if record.exists() and record.read_text(encoding="utf-8") != text:
        raise DataError(f"{out}: holds a training of another recipe or seed; give another --out, or remove it")
    with write_atomically(record) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(data: Path | None, recipe: Recipe) -> tuple[LabelledFrames, LabelledFrames, LabelledFrames]:
    if data is None:
        return [], RenderedData(_RENDERED_FRAMES, first=_RENDERED_FRAMES), []
    classes, void = len(recipe.classes), recipe.data.void
    frames = FolderData(data / "train", classes, void)
    learned, held = hold_out(len(frames))
    if not learned:
        raise DataError(
            f"{data / 'train'}: {len(frames)} frames are too few to learn from some and calibrate on others; "
            "give 20 or more"
        )
    val: LabelledFrames = FolderData(data / "val", classes, void) if (data / "val").is_dir() else []
    return frames.subset(learned), frames.subset(held), val


def _train_stage(stage: str, cascade: Cascade, recipe: Recipe, frames: LabelledFrames, out: Path) -> None:
    training = STAGE_TRAININGS[stage](cascade, recipe, frames)
    training.to(memory_format=torch.channels_last)
    folder = out / stage
    trainer = Trainer(
        max_steps=training.stage.iterations,
        default_root_dir=out,
        logger=TensorBoardLogger(out / "logs", name="", version=stage),
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
            _Bar(stage, training.stage.iterations),
        ],
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(training.train(), ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        # Lightning turns an interrupt into an exit, and from then on ignores SIGINT.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from error


def _notes(cascade: Cascade, recipe: Recipe, held: LabelledFrames, val: LabelledFrames) -> dict[str, Any]:
    """Scores, the calibration and the provenance of a finished training."""
    spec, threshold = recipe.input, recipe.threshold
    rendered = RenderedData(_RENDERED_FRAMES)
    sets = {"held_out": held, "val": val, "rendered": rendered}
    scored = {
        name: evaluate(cascade, spec, threshold, frames, track, f"score on {name}")
        for name, frames in sets.items()
        if len(frames)
    }
    calibration = scored["held_out"].calibration()
    return {
        "recipe": asdict(recipe),
        "calibration": asdict(calibration),
        "metrics": {name: evaluation.to_dict(recipe.classes) for name, evaluation in scored.items()},
        "finished": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
    }


class _Bar(Callback):
    """One bar for a stage, over all its epochs; where nobody looks on, a line at each checkpoint."""

    def __init__(self, stage: str, total: int) -> None:
        self.console, self.stage, self.total, self.loss = Console(stderr=True), stage, total, float("nan")
        self.progress = Progress(
            TextColumn(f"train {stage}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(stage, total=total, loss=self.loss)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.loss = float(outputs["loss"])
        self.progress.update(self.task, completed=trainer.global_step, loss=self.loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.console.is_terminal:
            print(f"train {self.stage}: {trainer.global_step}/{self.total}, loss {self.loss:.4f}", file=sys.stderr)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.progress.stop()
