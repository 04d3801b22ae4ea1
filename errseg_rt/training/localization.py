"""What the localization head learns: targets and loss of Wu et al. 2016, sections 2.1 and 2.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from errseg_rt.networks.localization import VALUES
from errseg_rt.training.grid import grid_positions, on_grid
from errseg_rt.training.recipe_learning import BoxLossConfig


class BoxTargets(NamedTuple):
    """The box of each grid pixel's instance."""

    boxes: Tensor  # float32 [B, 4, h, w], (dy, dx, height, width) in grid cells; zero where there is none
    things: Tensor  # int64 [B, h, w], which of the things the instance is; -1 where there is none


def box_targets(
    instances: Tensor, labels: Tensor, things: Sequence[int], grid: tuple[int, int], align_corners: bool
) -> BoxTargets:
    """The box of the instance under each grid pixel's centre.

    An instance that the border of a crop cuts has the box of what is seen of it, as one at the border of a frame has:
    a network cannot tell the two apart. One in several pieces has one box around all of them; one so small that it lies
    between the centres of grid pixels has a box that nobody learns.

    Args:
        instances: Number of the instance of each input pixel, `int64 [B, H, W]`, 0 where there is none.
        labels: Its class, `int64 [B, H, W]`.
        things: Classes that have instances.
        grid: Height and width of the grid.
        align_corners: How the grid lies on the input.
    """
    batch, height, width = instances.shape
    (image, row, column) = instances.nonzero(as_tuple=True)
    _, number = torch.unique(image * (instances.amax() + 1) + instances[image, row, column], return_inverse=True)
    count = int(number.max()) + 1 if number.numel() else 0
    edges = []
    for place, size, cells in ((row, height, grid[0]), (column, width, grid[1])):
        first = number.new_full((count,), size).scatter_reduce(0, number, place, "amin")
        last = number.new_full((count,), -1).scatter_reduce(0, number, place, "amax")
        middle = grid_positions((first + last) / 2, size, cells, align_corners)
        cells_per_pixel = (cells - 1) / max(size - 1, 1) if align_corners else cells / size
        edges += [middle, (last + 1 - first) * cells_per_pixel]
    of_instance = torch.stack([edges[0], edges[2], edges[1], edges[3]], dim=1).float() if count else None

    numbers = torch.zeros_like(instances)
    numbers[image, row, column] = number + 1
    number_on_grid, label_on_grid = (on_grid(each, grid, align_corners) for each in (numbers, labels))
    thing = torch.full_like(label_on_grid, -1)
    for index, label in enumerate(things):
        thing[(label_on_grid == label) & (number_on_grid > 0)] = index
    boxes = torch.zeros(batch, VALUES, *grid, device=instances.device)
    if of_instance is not None:
        has_box = thing >= 0
        _, at_row, at_column = has_box.nonzero(as_tuple=True)
        found = of_instance[number_on_grid[has_box] - 1]
        found[:, 0] -= at_row
        found[:, 1] -= at_column
        boxes.movedim(1, -1)[has_box] = found
    return BoxTargets(boxes, thing)


def box_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes `[N, 4]`, each (dy, dx, height, width) from one place, `[N]`."""
    low = torch.maximum(one[:, :2] - one[:, 2:] / 2, other[:, :2] - other[:, 2:] / 2)
    high = torch.minimum(one[:, :2] + one[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2)
    common = (high - low).clamp_min(0).prod(dim=1)
    return common / (one[:, 2:].prod(dim=1) + other[:, 2:].prod(dim=1) - common)


def box_loss(boxes: Tensor, targets: BoxTargets, config: BoxLossConfig, scale: float) -> Tensor:
    """Smoothed L1 of the four values, summed, over the hard pixels that have a box (sections 2.1 and 2.2).

    A pixel is easy, and dropped, where its predicted box overlaps the true one by `config.easy` or more; of each crop
    at least `config.keep` pixels stay, those of the least overlap. A pixel weighs
    `(height * width) ** -config.size_power`, the same for all pixels of an instance.

    Args:
        boxes: As the localization head gives them, `[B, 4 * things, h, w]` in grid cells.
        targets: The true ones.
        config: What counts, and how much.
        scale: Grid cells that are the unit of the loss; errors count squared below one grid cell.

    Returns:
        The weighted mean, a scalar; zero where no pixel has a box.
    """
    predicted, true = [], []
    own = boxes.float().view(len(boxes), -1, VALUES, *boxes.shape[2:])
    for image, thing in enumerate(targets.things):
        row, column = (thing >= 0).nonzero(as_tuple=True)
        said = own[image, thing[row, column], :, row, column]
        of_truth = targets.boxes[image, :, row, column].T
        hard = _hard(box_overlap(said.detach(), of_truth), config)
        predicted.append(said[hard])
        true.append(of_truth[hard])
    said, of_truth = torch.cat(predicted), torch.cat(true)
    losses = F.smooth_l1_loss(said, of_truth, reduction="none").sum(dim=1) / scale
    weights = of_truth[:, 2:].prod(dim=1) ** -config.size_power
    return (weights * losses).sum() / weights.sum().clamp_min(1e-12)


def _hard(overlap: Tensor, config: BoxLossConfig) -> Tensor:
    """Indices of the pixels of a crop that count."""
    count = max(int((overlap < config.easy).sum()), min(config.keep, len(overlap)))
    return overlap.topk(count, largest=False).indices
