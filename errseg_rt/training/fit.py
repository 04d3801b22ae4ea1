"""One stage of a training under Lightning: checkpoints, logs, a bar, and going on after a kill."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from errseg_rt.datasets import LabelledFrames
from errseg_rt.networks.cascade import Cascade
from errseg_rt.system.progress import LogLines, is_watched
from errseg_rt.training.checkpoint import AtomicCheckpointIO, check_checkpoint
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.stages import STAGE_TRAININGS
from errseg_rt.training.taps import TapStore


def fit(
    stage: str,
    recipe: Recipe,
    cascade: Cascade,
    frames: LabelledFrames,
    out: Path,
    store: TapStore | None = None,
    devices: int = 1,
    precision: str = "32-true",
) -> None:
    """Train one stage of a cascade, from its last checkpoint where there is one."""
    if not recipe.stage(stage).iterations:
        return
    training = STAGE_TRAININGS[stage](cascade, recipe, frames, store, devices)
    training.to(memory_format=torch.channels_last)
    folder = out / stage
    trainer = Trainer(
        max_steps=training.stage.iterations,
        default_root_dir=out,
        devices=devices,
        precision=cast(Any, precision),
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
    if last.exists():
        check_checkpoint(last, training.state_dict())
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(training.train(), ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        # Lightning turns an interrupt into an exit, and from then on ignores SIGINT.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from error
    cascade.cpu()
    if devices > 1:
        # Batch norms have counted what their own device saw: all go on with what the first has saved.
        training.load_state_dict(AtomicCheckpointIO().load_checkpoint(last, "cpu")["state_dict"])


class _Bar(Callback):
    """One bar for a stage, over all its epochs; where nobody looks on, lines for a log, the last one at the end."""

    def __init__(self, stage: str, total: int) -> None:
        self.loss = float("nan")
        self.lines = None if is_watched() else LogLines(f"train {stage}", total)
        self.progress = Progress(
            TextColumn(f"train {stage}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_watched(),
        )
        self.task = self.progress.add_task(stage, total=total, loss=self.loss)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.start()
        self._log(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.loss = float(outputs["loss"])
        self.progress.update(self.task, completed=trainer.global_step, loss=self.loss)
        self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.stop()
        self._log(trainer, is_due=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.progress.stop()

    def _log(self, trainer: Trainer, *, is_due: bool = False) -> None:
        if self.lines and trainer.is_global_zero:
            loss = "" if math.isnan(self.loss) else f", loss {self.loss:.4f}"
            self.lines.at(trainer.global_step, loss, is_due=is_due)
