"""What the localization head learns, against definitions in NumPy; and that it learns it, of drawn discs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade
from errseg_rt.training.data import CropStream
from errseg_rt.training.localization import BoxTargets, box_loss, box_overlap, box_targets
from errseg_rt.training.recipe_files import parse_recipe
from errseg_rt.training.recipe_learning import BoxLossConfig, StageConfig
from errseg_rt.training.stages import STAGE_TRAININGS
from tests.training.discs import Discs


def place_on_grid(pixel, size, cells, align_corners):
    """Where a place of the input lies on the grid."""
    return pixel * (cells - 1) / max(size - 1, 1) if align_corners else (pixel + 0.5) * cells / size - 0.5


def targets_by_definition(instances, labels, things, grid, align_corners):
    """Section 2.1, pixel by pixel: offsets to the centre of the box of the pixel's instance, its height and width."""
    size = instances.shape[1:]
    boxes = np.zeros((len(instances), 4, *grid))
    found = np.full((len(instances), *grid), -1)
    centers = [
        [
            min(range(side), key=lambda p: (abs(place_on_grid(p, side, cells, align_corners) - g), p % 2))
            for g in range(cells)
        ]
        for side, cells in zip(size, grid, strict=True)
    ]  # of two pixels as near, the even one, as numbers round
    for image in range(len(instances)):
        for row, column in np.ndindex(*grid):
            at = centers[0][row], centers[1][column]
            number, label = instances[image][at], labels[image][at]
            if number == 0 or label not in things:
                continue
            mask = instances[image] == number
            box = []
            for axis, start in ((0, row), (1, column)):
                inside = np.flatnonzero(mask.any(axis=1 - axis))
                cell = grid[axis] / size[axis]
                if align_corners:
                    cell = (grid[axis] - 1) / max(size[axis] - 1, 1)
                middle = place_on_grid((inside[0] + inside[-1]) / 2, size[axis], grid[axis], align_corners)
                box.append((middle - start, (inside[-1] - inside[0] + 1) * cell))
            boxes[image, :, row, column] = box[0][0], box[1][0], box[0][1], box[1][1]
            found[image, row, column] = things.index(label)
    return boxes, found


def scattered(size, seed, count=6):
    """Rectangles of several instances and classes, the same numbers in both images; one has two pieces."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((2, *size), np.int64)
    labels = np.zeros_like(instances)
    for image in range(2):
        for number in rng.permutation(count) + 1:
            for _ in range(1 + (number == 2)):
                top, left = rng.integers(size[0]), rng.integers(size[1])
                part = (image, slice(top, top + rng.integers(1, 9)), slice(left, left + rng.integers(1, 9)))
                instances[part] = number + (number == 3) * 100_000
                labels[part] = 1 + number % 3
        labels[image, rng.random(size) < 0.1] = IGNORE
    return instances, labels


GRIDS = {"aligned": ((17, 25), (5, 7), True), "halves": ((16, 24), (8, 12), False), "odd": ((13, 7), (4, 2), False)}


@pytest.mark.parametrize(
    ("size", "grid", "align_corners"), [*GRIDS.values(), ((9, 5), (9, 5), False)], ids=[*GRIDS, "same"]
)
def test_targets_are_the_boxes_of_the_definition(size, grid, align_corners):
    for seed in range(3):
        instances, labels = scattered(size, seed)
        things = (2, 3) if seed else (1,)
        wanted, of_thing = targets_by_definition(instances, labels, things, grid, align_corners)
        found = box_targets(torch.from_numpy(instances), torch.from_numpy(labels), things, grid, align_corners)
        np.testing.assert_array_equal(found.things.numpy(), of_thing)
        np.testing.assert_allclose(found.boxes.numpy(), wanted, rtol=0, atol=1e-5)
        assert (of_thing >= 0).any()


def test_an_instance_that_the_border_cuts_has_the_box_of_what_is_seen():
    numbers = torch.zeros(1, 8, 8, dtype=torch.long)
    numbers[0, 4:, 2:6] = 7
    found = box_targets(numbers, numbers.clamp_max(1), (1,), (8, 8), False)
    assert found.boxes[0, :, 7, 2].tolist() == [-1.5, 1.5, 4, 4]


@pytest.mark.parametrize("where", [None, (0, 0)], ids=["none", "between_the_centres"])
def test_without_an_instance_on_the_grid_there_is_no_target(where):
    instances = torch.zeros(2, 16, 16, dtype=torch.long)
    if where is not None:
        instances[1][where] = 5  # at stride 4, the centre of the first grid pixel is at 1.5
    found = box_targets(instances, torch.ones_like(instances), (1,), (4, 4), False)
    assert (found.things == -1).all()
    assert not found.boxes.any()
    loss = box_loss(torch.ones(2, 4, 4, 4, requires_grad=True), found, BoxLossConfig(), 8.0)
    loss.backward()
    assert loss == 0


def overlap_by_definition(one, other):
    """Share of a fine raster's points in both boxes among those in either."""
    corners = [(box[:2] - box[2:] / 2, box[:2] + box[2:] / 2) for box in (one, other)]
    sides = [max(0, min(corners[0][1][a], corners[1][1][a]) - max(corners[0][0][a], corners[1][0][a])) for a in (0, 1)]
    common = sides[0] * sides[1]
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def test_overlap_is_intersection_over_union():
    rng = np.random.default_rng(0)
    one, other = (np.concatenate([rng.normal(0, 2, (60, 2)), rng.uniform(0.5, 6, (60, 2))], axis=1) for _ in range(2))
    other[0], other[1] = one[0], one[1] + [100, 0, 0, 0]
    found = box_overlap(torch.from_numpy(one), torch.from_numpy(other))
    wanted = [overlap_by_definition(*pair) for pair in zip(one, other, strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    assert found[:2].tolist() == [1, 0]
    assert ((found > 0) & (found < 1)).sum() > 10


def loss_by_definition(boxes, targets, things, config, scale):
    """Smoothed L1 over the pixels that are not easy, at least `keep` of a crop, weighed by the size of the instance."""
    total = weights = 0.0
    for image in range(len(boxes)):
        pixels = []
        for row, column in np.argwhere(things[image] >= 0):
            first = 4 * things[image, row, column]
            said, true = boxes[image, first : first + 4, row, column], targets[image, :, row, column]
            pixels.append((overlap_by_definition(said, true), said, true))
        pixels.sort(key=lambda pixel: pixel[0])
        hard = [pixel for pixel in pixels if pixel[0] < config.easy]
        for _, said, true in max(hard, pixels[: config.keep], key=len):
            errors = np.abs(said - true)
            smoothed = np.where(errors < 1, 0.5 * errors**2, errors - 0.5).sum()
            weight = (true[2] * true[3]) ** -config.size_power
            total, weights = total + weight * smoothed / scale, weights + weight
    return total / weights


CONFIGS = {
    "plain": BoxLossConfig(easy=1.0, size_power=0.0),
    "bootstrapped": BoxLossConfig(easy=0.5, keep=3, size_power=0.0),
    "weighted": BoxLossConfig(easy=0.5, keep=3),
    "few": BoxLossConfig(easy=0.01, keep=5, size_power=1.5),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_loss_is_that_of_the_definition(config):
    rng = np.random.default_rng(1)
    things = rng.integers(-1, 2, (3, 4, 5))
    targets = np.concatenate([rng.normal(size=(3, 2, 4, 5)), rng.uniform(2, 9, (3, 2, 4, 5))], axis=1)
    boxes = np.tile(targets, (1, 2, 1, 1)) + rng.normal(scale=1.5, size=(3, 8, 4, 5))
    boxes[:, 2:4], boxes[:, 6:] = np.maximum(boxes[:, 2:4], 0.5), np.maximum(boxes[:, 6:], 0.5)
    found = box_loss(
        torch.from_numpy(boxes), BoxTargets(torch.from_numpy(targets), torch.from_numpy(things)), config, 4.0
    )
    assert found.item() == pytest.approx(loss_by_definition(boxes, targets, things, config, 4.0), rel=1e-5)


def test_easy_pixels_teach_nothing():
    targets = BoxTargets(torch.full((1, 4, 2, 3), 5.0), torch.zeros(1, 2, 3, dtype=torch.long))
    boxes = targets.boxes.clone()
    boxes[0, 2, 0, 0], boxes[0, 2, 1, 2] = 2.0, 4.9  # overlaps of 0.4 and 0.98
    boxes.requires_grad_(True)
    box_loss(boxes, targets, BoxLossConfig(easy=0.8, keep=1), 1.0).backward()
    assert boxes.grad.abs().sum(dim=1)[0].nonzero().tolist() == [[0, 0]]


RECIPE = {
    "seed": 3,
    "threshold": 0.5,
    "cascade": {
        "semantic": "light-unet",
        "error_width": 4,
        "detail_width": 4,
        "error_features": "low",
        "grid_stride": 2,
        "things": [1],
        "localization_width": 12,
        "box_scale": 8.0,
    },
    "data": {"classes": {"names": ["background", "disc"]}},
    "input": {"multiple": 16, "mean": [0.3, 0.3, 0.3]},
    "augment": {"crop": [64, 64], "scales": [0.9, 1.1], "rotation": 20.0, "light": 0.2},
    "semantic": {"iterations": 70, "batch": 4, "rate": 1e-2, "checkpoint_every": 70},
    "error": {"iterations": 2, "batch": 2, "checkpoint_every": 2},
    "detail": {"iterations": 2, "batch": 2, "checkpoint_every": 2},
    "box_loss": {"joint": 1.0, "keep": 64},
}


@pytest.fixture
def discs_recipe():
    return parse_recipe("discs", RECIPE)


def fitted(training, steps):
    """Losses of so many steps of a stage over what it draws."""
    optimizer = training.configure_optimizers()["optimizer"]
    losses = []
    while len(losses) < steps:
        for batch in training.train_dataloader():
            optimizer.zero_grad()
            loss = training.loss(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_a_short_fit_finds_the_boxes_of_discs(discs_recipe):
    torch.manual_seed(0)
    cascade, frames = Cascade(discs_recipe.cascade), Discs(12)
    losses = fitted(STAGE_TRAININGS["semantic"](cascade, discs_recipe, frames).train(), 70)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    crops = CropStream(frames, replace(discs_recipe, seed=9), 0, 0, 8, with_instances=True)
    image, labels, instances = (torch.stack(part) for part in zip(*(crops[i] for i in range(8)), strict=True))
    with torch.no_grad():
        boxes = cascade.eval().localization(cascade.taps(image))
    targets = box_targets(instances, labels, (1,), (32, 32), False)
    inside = targets.things >= 0
    overlap = box_overlap(boxes.movedim(1, -1)[inside], targets.boxes.movedim(1, -1)[inside])
    assert overlap.median() > 0.5
    middle = torch.tensor([0, 0, 8, 8.0]).expand_as(targets.boxes.movedim(1, -1)[inside])
    assert overlap.mean() > 1.3 * box_overlap(middle, targets.boxes.movedim(1, -1)[inside]).mean()


@pytest.mark.parametrize(
    ("stage", "trained"), [("semantic", {"semantic", "localization"}), ("localization", {"localization"})]
)
def test_gradients_reach_what_is_trained_alone(discs_recipe, stage, trained):
    torch.manual_seed(0)
    recipe = replace(discs_recipe, localization=StageConfig(iterations=2, batch=2, checkpoint_every=2))
    cascade = Cascade(recipe.cascade)
    training = STAGE_TRAININGS[stage](cascade, recipe, Discs(3)).train()
    before = {name: {k: v.clone() for k, v in b.state_dict().items()} for name, b in cascade.named_children()}
    losses = fitted(training, 2)
    assert all(np.isfinite(losses))
    for name, branch in cascade.named_children():
        assert branch.training is (name in trained)
        moved = {key for key, value in branch.state_dict().items() if (value != before[name][key]).any()}
        assert bool(moved) is (name in trained), name
        if name in trained:
            assert {key for key, _ in branch.named_parameters()} <= moved


def test_without_joint_learning_the_semantic_branch_asks_for_no_instances(discs_recipe):
    alone = replace(
        discs_recipe,
        box_loss=BoxLossConfig(),
        localization=StageConfig(iterations=2, batch=2, checkpoint_every=2),
    )
    training = STAGE_TRAININGS["semantic"](Cascade(alone.cascade), alone, Discs(3))
    assert training.trained == ("semantic",)
    assert len(next(iter(training.train_dataloader()))) == 2


def test_crops_of_instances_lie_where_their_labels_do(discs_recipe):
    frames = Discs(5)
    crops = CropStream(frames, discs_recipe, 0, 0, 12, with_instances=True)
    plain = CropStream(frames, discs_recipe, 0, 0, 12)
    for index in range(12):
        image, labels, instances = crops[index]
        assert torch.equal(image, plain[index][0])
        assert (labels == plain[index][1]).float().mean() > 0.97  # but for how places round
        assert torch.equal(labels == 1, instances > 0)
        assert not instances[labels == IGNORE].any()


def test_frames_without_instances_are_refused(discs_recipe):
    class Plain:
        names, sizes = ["a"], [(64, 64)]

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Discs(1)[0]

    with pytest.raises(DataError, match="the frames have no instances, of which the localization head learns"):
        CropStream(Plain(), discs_recipe, 0, 0, 1, with_instances=True)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_loss": {}}, r"localization\.iterations: wanted 1 or more, or box_loss\.joint, with cascade\.things"),
        ({"cascade": {"things": []}}, r"cascade\.things: wanted the classes that have instances"),
        ({"cascade": {"things": [2]}}, r"cascade\.things: wanted classes in 0\.\.1, in rising order, got \[2\]"),
        ({"cascade": {"things": [1, 0]}}, r"cascade\.things: wanted .* in rising order"),
        ({"cascade": {"box_scale": 0.0}}, r"cascade\.box_scale: wanted a number of grid cells above 0"),
        ({"semantic": {"iterations": 0}}, r"box_loss\.joint: wanted 0, as the semantic branch is not trained"),
        ({"box_loss": {"easy": 0.0}}, r"box_loss\.easy: wanted an overlap above 0, up to 1"),
        ({"data": {"validation": 1.0}}, r"data\.validation: wanted a share below 1"),
        ({"augment": {"light": 9.0}}, r"augment\.light: wanted a number in 0\.\.8"),
    ],
)
def test_what_does_not_fit_together_is_said(change, message):
    table = {**RECIPE}
    for section, fields in change.items():
        table[section] = {**RECIPE[section], **fields} if fields else {}
    with pytest.raises(ValueError, match=message):
        parse_recipe("discs", table)
