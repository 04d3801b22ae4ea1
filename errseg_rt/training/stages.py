"""The trainings of a cascade: semantic, error-prediction and detail branch, the latter two once more, localization."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import LabelledFrames
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.taps import Taps
from errseg_rt.training.data import CropStream
from errseg_rt.training.grid import on_grid
from errseg_rt.training.localization import box_loss, box_targets
from errseg_rt.training.losses import (
    bootstrapped_loss,
    detail_loss,
    error_loss,
    error_shares,
    loss_rank_mining,
    wrong_pixels,
)
from errseg_rt.training.methods import flagged_by
from errseg_rt.training.recipe import STAGES, Recipe
from errseg_rt.training.taps import FrozenBatch, TapStore, TapStream

_LEAST_SHARE = 1e-3  # of errors, for the start of the error-prediction branch
_POWER = 0.9  # of the poly rate, Gong et al. 2021, section 4.2
Crops = tuple[Tensor, Tensor]
"""Normalised images `[B, 3, H, W]` and their labels, `int64 [B, H, W]`."""
InstanceCrops = tuple[Tensor, Tensor, Tensor]
"""The same with the number of each pixel's instance, `int64 [B, H, W]`, 0 where there is none."""


class StageTraining(LightningModule):
    """Trains one branch; everything else is frozen and in eval mode (section 4.1).

    Each epoch is the stretch between two checkpoints, and its batches are numbered by the steps taken, so that a
    training that was killed goes on exactly.

    Args:
        cascade: The cascade of which a branch is trained.
        recipe: The recipe.
        frames: Labelled frames; may be empty when everything is rendered.
        store: Taps of whole frames to learn from instead of crops; None: crops.
        devices: Number of devices that share a batch.
    """

    name: str
    branch: str

    def __init__(
        self, cascade: Cascade, recipe: Recipe, frames: LabelledFrames, store: TapStore | None = None, devices: int = 1
    ) -> None:
        super().__init__()
        self.cascade, self.recipe, self.frames, self.store, self.devices = cascade, recipe, frames, store, devices
        self.stage = recipe.stage(self.name)
        self.sets = None if recipe.merge is None else torch.from_numpy(recipe.merge.members)
        for name, branch in cascade.named_children():
            branch.requires_grad_(name in self.trained)

    @property
    def trained(self) -> tuple[str, ...]:
        """The branches that learn."""
        return (self.branch,)

    @property
    def wants_instances(self) -> bool:
        """Whether the loss is of crops with the numbers of instances."""
        return False

    def loss(self, batch: Any) -> Tensor:
        """Loss of a batch."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> StageTraining:
        """Training mode for the trained branch alone."""
        super().train(mode)
        for name, branch in self.cascade.named_children():
            branch.train(mode and name in self.trained)
        return self

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the current step to the next checkpoint."""
        steps, stage = self.stage.checkpoint_every, STAGES.index(self.name)
        # Not by the epoch, which Lightning counts from the one before when it goes on from a checkpoint.
        start, batch = self.global_step, self.stage.batch
        if self.store is not None and self.recipe.views is not None and not self.wants_instances:
            seed, share = [self.recipe.seed, stage], batch // self.devices
            stream = TapStream(self.store, self.recipe.views, share, seed, start * self.devices, steps * self.devices)
            return self._shared(stream, None)
        wanted = {"with_instances": self.wants_instances}
        crops = CropStream(self.frames, self.recipe, stage, start * batch, steps * batch, **wanted)
        return self._shared(crops, batch // self.devices)

    def _shared(self, stream: Dataset[Any], batch: int | None) -> DataLoader[Any]:
        """This device's share of a stream, in its order, which Lightning's own sampler would shuffle."""
        sampler: DistributedSampler[Any] = DistributedSampler(stream, self.devices, self.global_rank, shuffle=False)
        return DataLoader(stream, batch, sampler=sampler)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """One step; raises DataError at a loss that is not finite."""
        # What networks draw, as dropout does, is decided by the step's number alone, as batches are.
        key = [self.recipe.seed, STAGES.index(self.name), self.global_step, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise DataError(
                f"{self.branch} branch: the loss became {loss.item()} at step {self.global_step} "
                f"(batch {batch_index} of epoch {self.current_epoch}); lower its rate, {self.stage.rate}, "
                "or look for wrong labels"
            )
        self.log(f"{self.name}/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay and the poly rate."""
        branches = nn.ModuleList(self.cascade.get_submodule(name) for name in self.trained)
        optimizer = torch.optim.AdamW(branches.parameters(), self.stage.rate, weight_decay=self.stage.weight_decay)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.stage.iterations, _POWER)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def frozen(self, batch: FrozenBatch | Crops) -> FrozenBatch:
        """A batch with its taps: kept ones as they are, those of crops computed now."""
        if isinstance(batch, FrozenBatch):
            return batch
        image, labels = batch
        image = image.contiguous(memory_format=torch.channels_last)
        taps = self.cascade.taps(image)
        truth = on_grid(labels, (taps.logits.shape[2], taps.logits.shape[3]), self.cascade.semantic.align_corners)
        return FrozenBatch(image, taps, truth)


class SemanticTraining(StageTraining):
    """Cross-entropy of the semantic branch at full size, over all pixels or, bootstrapped, over the hard ones.

    Where the recipe says so, it learns with the localization head on it: then its taps tell instances apart, too.
    """

    name = branch = "semantic"

    @property
    def trained(self) -> tuple[str, ...]:
        """The branches that learn."""
        return ("semantic", "localization") if self.wants_instances else ("semantic",)

    @property
    def wants_instances(self) -> bool:
        """Whether the localization head learns with it."""
        return self.recipe.box_loss.joint > 0

    def loss(self, batch: Crops | InstanceCrops) -> Tensor:
        """Mean over the pixels that count, and, where it learns with the branch, the localization head's loss."""
        image, labels, *instances = batch
        taps = self.cascade.taps(image.contiguous(memory_format=torch.channels_last))
        align = self.cascade.semantic.align_corners
        full = F.interpolate(taps.logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=align)
        own = self._of_classes(full, labels)
        if not instances:
            return own
        return own + self.recipe.box_loss.joint * _of_boxes(self.cascade, self.recipe, taps, labels, instances[0])

    def _of_classes(self, full: Tensor, labels: Tensor) -> Tensor:
        bootstrap = self.recipe.bootstrap
        if bootstrap.probability:
            chosen = bootstrap.probability, bootstrap.keep, self.sets, bootstrap.pixels
            return bootstrapped_loss(full, labels, *chosen)
        return detail_loss(full, torch.ones_like(labels, dtype=torch.bool), labels, self.sets)


class ErrorTraining(StageTraining):
    """Eq. 2 on the grid."""

    name = branch = "error"

    def loss(self, batch: FrozenBatch | Crops) -> Tensor:
        """Mean over the images; where the recipe weighs it, with the cross-entropy of the corrected class logits."""
        image, taps, truth = self.frozen(batch)
        branch, weights = self.cascade.error, self.recipe.error_loss
        eq2 = partial(
            error_loss,
            semantic_logits=taps.logits.float(),
            truth=truth,
            sets=self.sets,
            rho=weights.rho,
            easy_weight=weights.easy,
            hard_weight=weights.hard,
            correct_weight=weights.correct,
        )
        if not (branch.residual and weights.classes):
            return eq2(branch(image, taps).float())
        corrected = branch.correct(image, taps).float()
        everywhere = torch.ones_like(truth, dtype=torch.bool)
        return eq2(branch.judge(taps.logits.float(), corrected)) + weights.classes * detail_loss(
            corrected, everywhere, truth, self.sets
        )

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Start with eq. 2 in balance: its best P_ep has the odds of an error over w3, the share of errors.

        From logit(1 - max P_sb) alone the branch would spend its first steps on that shift, and lose its ranking.
        """
        error = self.cascade.error
        if error.residual and not (self.global_step or self.cascade.config.error_frozen):
            weights, balance = self.recipe.error_loss, torch.tensor(self.recipe.error_loss.correct)
            if not weights.correct:
                batch = self.transfer_batch_to_device(next(iter(self.train_dataloader())), self.device, 0)
                _, taps, truth = self.frozen(batch)
                valid = truth != IGNORE
                wrong = wrong_pixels(taps.logits.argmax(dim=1), truth, self.sets)
                shares = cast(Tensor, self.all_gather(error_shares(wrong, valid)))
                balance = shares.mean().clamp_min(_LEAST_SHARE)
            error.offset.fill_(torch.log(weights.easy / balance))


class DetailTraining(StageTraining):
    """Eq. 3 on the grid, or the loss of a method it is compared with."""

    name = branch = "detail"

    def loss(self, batch: FrozenBatch | Crops) -> Tensor:
        """Mean over the pixels that count."""
        image, taps, truth = self.frozen(batch)
        method = self.recipe.method
        detail_logits = self.cascade.detail(taps).float()
        if method.learn == "hardest":
            return loss_rank_mining(detail_logits, truth, method.hardest, self.sets)
        if method.learn == "everywhere":
            everywhere = torch.ones_like(truth, dtype=torch.bool)
            return detail_loss(detail_logits, everywhere, truth, self.sets, method.boundary)
        with torch.no_grad():
            error_logit = self.cascade.error(image, taps)
        flagged = flagged_by(method, self.recipe.threshold, taps.logits, error_logit)
        return detail_loss(detail_logits, flagged, truth, self.sets, method.boundary)


class FrozenErrorTraining(ErrorTraining):
    """Goes on with the norms of the error-prediction branch made constants."""

    name = "error_frozen"


class FrozenDetailTraining(DetailTraining):
    """Goes on with the norms of the detail branch made constants."""

    name = "detail_frozen"


class LocalizationTraining(StageTraining):
    """The localization head on the frozen semantic branch, of crops also where other branches learn from views."""

    name = branch = "localization"

    @property
    def wants_instances(self) -> bool:
        """Always."""
        return True

    def loss(self, batch: InstanceCrops) -> Tensor:
        """Weighted mean over the hard pixels of instances."""
        image, labels, instances = batch
        with torch.no_grad():
            taps = self.cascade.taps(image.contiguous(memory_format=torch.channels_last))
        return _of_boxes(self.cascade, self.recipe, taps, labels, instances)


def _of_boxes(cascade: Cascade, recipe: Recipe, taps: Taps, labels: Tensor, instances: Tensor) -> Tensor:
    """Loss of the localization head on some taps."""
    boxes, config = cascade.localization(taps), cascade.config
    grid = (boxes.shape[2], boxes.shape[3])
    targets = box_targets(instances, labels, config.things, grid, cascade.semantic.align_corners)
    return box_loss(boxes, targets, recipe.box_loss, config.box_scale)


STAGE_TRAININGS: dict[str, type[StageTraining]] = {
    stage.name: stage
    for stage in (
        SemanticTraining,
        ErrorTraining,
        FrozenErrorTraining,
        DetailTraining,
        FrozenDetailTraining,
        LocalizationTraining,
    )
}
