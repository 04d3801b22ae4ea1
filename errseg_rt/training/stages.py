"""The three trainings of a cascade: semantic branch, error-prediction branch, detail branch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from errseg_rt.classes import IGNORE
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.training.data import CropStream, LabelledFrames
from errseg_rt.training.losses import detail_loss, error_loss
from errseg_rt.training.recipe import STAGES, Recipe

_POWER = 0.9  # of the poly rate, Gong et al. 2021, section 4.2


class StageTraining(LightningModule):
    """Trains one branch; everything else is frozen and in eval mode (section 4.1).

    Each epoch is the stretch between two checkpoints, and its crops are numbered by the steps taken, so that a training
    that was killed goes on exactly.

    Args:
        cascade: The cascade of which a branch is trained.
        recipe: The recipe.
        frames: Labelled frames; may be empty when everything is rendered.
    """

    name: str

    def __init__(self, cascade: Cascade, recipe: Recipe, frames: LabelledFrames) -> None:
        super().__init__()
        self.cascade, self.recipe, self.frames = cascade, recipe, frames
        self.stage = recipe.stage(self.name)
        for name, branch in cascade.named_children():
            branch.requires_grad_(name == self.name)

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch: images `[B, 3, H, W]`, labels `int64 [B, H, W]`."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> StageTraining:
        """Training mode for the trained branch alone."""
        super().train(mode)
        for name, branch in self.cascade.named_children():
            branch.train(mode and name == self.name)
        return self

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Crops from the current step to the next checkpoint."""
        batch = self.stage.batch
        # Not by the epoch, which Lightning counts from the one before when it goes on from a checkpoint.
        start, length = self.global_step * batch, self.stage.checkpoint_every * batch
        stream = CropStream(self.frames, self.recipe, STAGES.index(self.name), start, length)
        return DataLoader(stream, batch_size=batch)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step; raises DataError at a loss that is not finite."""
        image, labels = batch
        loss = self.loss(image.contiguous(memory_format=torch.channels_last), labels)
        if not torch.isfinite(loss):
            raise DataError(
                f"{self.name} branch: the loss became {loss.item()} at step {self.global_step} (batch {batch_index} of "
                f"epoch {self.current_epoch}); lower its rate, {self.stage.rate}, or look for wrong labels"
            )
        self.log(f"{self.name}/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay and the poly rate."""
        branch: nn.Module = getattr(self.cascade, self.name)
        optimizer = torch.optim.AdamW(branch.parameters(), self.stage.rate, weight_decay=self.stage.weight_decay)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.stage.iterations, _POWER)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SemanticTraining(StageTraining):
    """Cross-entropy of the semantic branch at full size."""

    name = "semantic"

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Mean over the valid pixels."""
        logits = self.cascade.taps(image).logits
        align = self.cascade.semantic.align_corners
        full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=align)
        total = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="sum")
        return total / (labels != IGNORE).sum().clamp_min(1)


class ErrorTraining(StageTraining):
    """Eq. 2 on the grid."""

    name = "error"

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images."""
        with torch.no_grad():
            taps = self.cascade.taps(image)
        error_logit = self.cascade.error(image, taps.logits, taps.high)
        truth = labels_on_grid(labels, taps.logits.shape[2:], self.cascade.semantic.align_corners)
        return error_loss(error_logit, taps.logits, truth)


class DetailTraining(StageTraining):
    """Eq. 3 on the grid."""

    name = "detail"

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Mean over the flagged pixels."""
        with torch.no_grad():
            taps = self.cascade.taps(image)
            error_logit = self.cascade.error(image, taps.logits, taps.high)
        detail_logits = self.cascade.detail.refine(taps.logits, taps.low, *self.cascade.detail.decode(taps))
        truth = labels_on_grid(labels, taps.logits.shape[2:], self.cascade.semantic.align_corners)
        return detail_loss(detail_logits, error_logit, truth, self.recipe.threshold)


STAGE_TRAININGS: dict[str, type[StageTraining]] = {
    stage.name: stage for stage in (SemanticTraining, ErrorTraining, DetailTraining)
}


def labels_on_grid(labels: Tensor, grid: torch.Size, align_corners: bool) -> Tensor:
    """The label under each grid pixel's centre.

    Args:
        labels: `int64 [B, H, W]`.
        grid: Height and width of the grid.
        align_corners: Whether the corner pixels of both lie on each other; else their outer edges do.

    Returns:
        `int64 [B, h, w]`.
    """
    rows, cols = (_centers(size, cells, align_corners) for size, cells in zip(labels.shape[1:], grid, strict=True))
    return labels[:, rows.to(labels.device)[:, None], cols.to(labels.device)]


def _centers(size: int, cells: int, align_corners: bool) -> Tensor:
    index = torch.arange(cells, dtype=torch.float64)
    position = index * (size - 1) / max(cells - 1, 1) if align_corners else (index + 0.5) * size / cells - 0.5
    return position.round().long().clamp(0, size - 1)
