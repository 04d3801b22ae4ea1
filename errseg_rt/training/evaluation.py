"""A torch cascade under the same evaluation as a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from errseg_rt.datasets import LabelledFrames
from errseg_rt.datasets.instances import VOID, TrueInstances
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.instance_scores import InstanceScores
from errseg_rt.frames.branches import Branches
from errseg_rt.frames.instances import Instances
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.instances import instances as instances_on_cpu
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.kernels.refine.weights import layers_of
from errseg_rt.kernels.select.layers import Layers
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.training.methods import answer, flagged_by
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.sized import instances_of
from errseg_rt.training.taps import FrozenBatch, TapStore

Progress = Callable[[Iterable[int], str, int], Iterable[int]]
_SURE = 40.0  # error logit, to either side, of a pixel that another selector than the error branch has decided


def evaluate(
    cascade: Cascade,
    recipe: Recipe,
    frames: LabelledFrames | TapStore,
    progress: Progress,
    title: str,
    thresholds: Sequence[float] = (),
    instances: InstanceScores | None = None,
) -> Evaluation:
    """Run a cascade, densely, over labelled frames.

    Args:
        cascade: In eval mode.
        recipe: Its input, threshold and method.
        frames: Frames with labels of the classes that the recipe's labels have, or kept taps of such.
        progress: Wraps the loop over the frames in a bar.
        title: What the bar says.
        thresholds: Other t to try beside the recipe's.
        instances: Counts instances, of frames that have some and are no taps.
    """
    coarse = None if recipe.merge is None else recipe.merge.to_coarse
    result = Evaluation(
        len(recipe.label_classes),
        recipe.threshold,
        thresholds=thresholds,
        layers=_layers(cascade),
        coarse=coarse,
    )
    for index in progress(range(len(frames)), title, len(frames)):
        if isinstance(frames, TapStore):
            truth, batch, geometry = frames.frames[index][1], frames.read(index), frames.geometry(index)
            result.add(truth, branches_of_batch(cascade, recipe, batch, geometry))
        else:
            frame, truth = frames[index]
            batch, geometry = batch_of(cascade, recipe, frame)
            branches = branches_of_batch(cascade, recipe, batch, geometry)
            result.add(truth, branches)
            known = instances_of(frames)
            if instances is not None and known is not None:
                true = TrueInstances.of_labels(known(index, truth), truth, VOID)
                instances.add(true, truth, *_found(cascade, recipe, batch, branches))
    return result


def _layers(cascade: Cascade) -> Layers | None:
    """Those of refinement; None of a decoder that refines no single pixels."""
    if not isinstance(cascade.detail, DetailBranch):
        return None
    head = cascade.detail.head
    return layers_of(head.in_channels, cascade.semantic.low_channels, head.out_channels, cascade.config.stage3_kernels)


@torch.inference_mode()
def _found(
    cascade: Cascade, recipe: Recipe, batch: FrozenBatch, branches: Branches
) -> tuple[Instances, npt.NDArray[np.uint8]]:
    """Instances of a frame, and its labels."""
    boxes = np.ascontiguousarray(cascade.localization(batch.taps)[0].numpy())
    spec = recipe.instances.spec(cascade.config.things)
    assert spec is not None
    logits, geometry, flagged = branches.logits, branches.geometry, branches.flagged(recipe.threshold)
    labels = fuse_labels(logits, branches.detail_logits, flagged, geometry).labels
    found = instances_on_cpu(logits, branches.detail_logits, flagged, boxes, labels, geometry, spec)
    count = int(found.count)
    return Instances.of(found.map, found.classes[:count], found.scores[:count], recipe.classes, None), labels


def branches_of(cascade: Cascade, recipe: Recipe, frame: npt.NDArray[np.uint8]) -> Branches:
    """Dense outputs of a cascade's three branches.

    Args:
        cascade: In eval mode.
        recipe: Its input and method.
        frame: BGR, `uint8 [H, W, 3]`.
    """
    return branches_of_batch(cascade, recipe, *batch_of(cascade, recipe, frame))


@torch.inference_mode()
def batch_of(cascade: Cascade, recipe: Recipe, frame: npt.NDArray[np.uint8]) -> tuple[FrozenBatch, Geometry]:
    """A frame as the branches take it, without truth, and how it lies on the grid."""
    size, spec = (frame.shape[0], frame.shape[1]), recipe.input
    content, padded = spec.sizes(size)
    image = torch.from_numpy(preprocess(frame, content, padded, **spec.normalisation("bgr")._asdict()))
    image = image.contiguous(memory_format=torch.channels_last)
    taps = cascade.taps(image)
    grid = (taps.low.shape[2], taps.low.shape[3])
    geometry = Geometry(grid, padded, content, size, cascade.semantic.align_corners)
    return FrozenBatch(image, taps, torch.empty(0)), geometry


@torch.inference_mode()
def branches_of_batch(cascade: Cascade, recipe: Recipe, batch: FrozenBatch, geometry: Geometry) -> Branches:
    """The same from the taps of one frame."""
    image, taps, _ = batch
    error_logit = cascade.error(image, taps)
    detail_logits = answer(recipe.method, taps.logits, cascade.detail(taps))
    if recipe.method.selector != "error":
        flagged = flagged_by(recipe.method, recipe.threshold, taps.logits, error_logit)[:, None]
        error_logit = torch.where(flagged, _SURE, -_SURE)
    logits, error, detail = (
        np.ascontiguousarray(output[0].numpy()) for output in (taps.logits, error_logit, detail_logits)
    )
    return Branches(logits, error[0], detail, geometry)
