"""Whether every stage's batches can pass through its networks: asked of the networks, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from errseg_rt.bundle.input_spec import Size
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.taps import SemanticNetwork
from errseg_rt.training.recipe import STAGES, Recipe


def check_shares(recipe: Recipe, devices: int) -> None:
    """Raises DataError where the batches of a stage cannot be shared evenly by so many devices."""
    uneven = [stage for stage in _trained(recipe) if recipe.stage(stage).batch % devices]
    if uneven:
        raise DataError(f"the batches of {', '.join(uneven)} cannot be shared evenly by {devices} devices")


def check_batches(recipe: Recipe, sizes: Sequence[Size], devices: int, network: SemanticNetwork | None = None) -> None:
    """Pass a batch of every stage through networks without values: norms want more than one value a channel.

    Args:
        recipe: Its networks, batches, crops and views.
        sizes: Of the frames to learn from, rendered ones included, in pixels.
        devices: How many share a batch evenly.
        network: The semantic network; None: the recipe names it.

    Raises:
        DataError: A batch is too small, or its inputs are.
    """
    for stage in _trained(recipe):
        share = recipe.stage(stage).batch // devices
        size = _least_input(recipe, stage, sizes)
        fault = _fault(recipe, stage, share, size, network)
        if fault is None:
            continue
        where = f"for {recipe.cascade.semantic} with inputs of {size[0]}x{size[1]}"
        if _fault(recipe, stage, share + 1, size, network) is None:
            given = f"got {recipe.stage(stage).batch} / {devices}"
            raise DataError(f"{stage}.batch / devices must be {share + 1} or more {where}, {given} ({fault})")
        raise DataError(f"{stage} cannot be trained {where} ({fault}); give larger crops or frames")


def _trained(recipe: Recipe) -> list[str]:
    return [stage for stage in STAGES if recipe.stage(stage).iterations]


def _least_input(recipe: Recipe, stage: str, sizes: Sequence[Size]) -> Size:
    """The input of a stage that leaves norms the fewest values: a map has one pixel where both sides are short."""
    if recipe.views is None or stage in ("semantic", "localization"):
        return recipe.augment.crop
    return min((recipe.input.sizes(size, scale)[1] for size in set(sizes) for scale in recipe.views.scales), key=max)


def _fault(recipe: Recipe, stage: str, batch: int, size: Size, network: SemanticNetwork | None) -> str | None:
    """What a network says against a batch in training; None: nothing."""
    branch = stage.removesuffix("_frozen")
    frozen: dict[str, Any] = {f"{branch}_frozen": True} if stage.endswith("_frozen") else {}
    config = replace(recipe.cascade, **frozen)
    with torch.device("meta"), torch.no_grad():
        cascade = Cascade(config, network).eval()
        cascade.get_submodule(branch).train()
        if branch == "semantic" and recipe.box_loss.joint:
            cascade.localization.train()
        image = torch.empty(batch, 3, *size)
        try:
            taps = cascade.taps(image)
            if branch != "semantic":
                cascade.error(image, taps)
                cascade.detail(taps)
            if config.things:
                cascade.localization(taps)
        except NotImplementedError:  # an operation that knows no tensors without values: then time will tell
            return None
        except (RuntimeError, ValueError) as error:
            return str(error).splitlines()[0]
    return None
