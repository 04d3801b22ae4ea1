"""Each training moves its own branch and nothing else, and makes its loss smaller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from errseg_rt.classes import IGNORE
from errseg_rt.training.losses import detail_loss, error_loss
from errseg_rt.training.recipe import STAGES
from errseg_rt.training.stages import STAGE_TRAININGS, labels_on_grid


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 11, (2, 65, 65)))
    labels[:, :9] = IGNORE
    return torch.from_numpy(rng.standard_normal((2, 3, 65, 65))).float(), labels


def branch_states(cascade):
    return {
        name: {key: value.clone() for key, value in branch.state_dict().items()}
        for name, branch in cascade.named_children()
    }


def steps(training, batch, count):
    """Losses of `count` steps of the stage's own optimiser."""
    optimizer = training.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = training.loss(*batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_the_trained_branch_alone(cascade, recipe, batch, stage):
    training = STAGE_TRAININGS[stage](cascade, recipe, []).train()
    before = branch_states(cascade)
    training.loss(*batch).backward()
    for name, branch in cascade.named_children():
        assert branch.training is (name == stage)
        for key, parameter in branch.named_parameters():
            assert (parameter.grad is not None) is (name == stage), f"{name}.{key}"
            assert parameter.requires_grad is (name == stage)
    trained = dict(cascade.named_children())[stage]
    assert any(parameter.grad.abs().max() > 0 for parameter in trained.parameters())
    for name in {*before} - {stage}:
        # Frozen in eval mode: not even the running statistics of its norms move.
        for key, value in branch_states(cascade)[name].items():
            torch.testing.assert_close(value, before[name][key], rtol=0, atol=0)


@pytest.mark.parametrize("stage", STAGES)
def test_loss_of_a_fixed_batch_falls(cascade, recipe, batch, stage):
    recipe = replace(recipe, **{stage: replace(recipe.stage(stage), rate=1e-2)})
    losses = steps(STAGE_TRAININGS[stage](cascade, recipe, []).train(), batch, 8)
    assert losses[-1] < 0.99 * losses[0]


def test_losses_are_those_of_the_equations(cascade, recipe, batch):
    image, labels = batch
    cascade.eval()
    with torch.no_grad():
        front, out = cascade.front(image), cascade(image, recipe.threshold)
        detail = cascade.detail.refine(front.logits, front.low, front.coarse, front.gate)
        full = F.interpolate(front.logits, size=(65, 65), mode="bilinear", align_corners=True)
        found = {stage: STAGE_TRAININGS[stage](cascade, recipe, []).eval().loss(image, labels) for stage in STAGES}
    assert out.flagged.any()
    truth = labels[:, ::4, ::4]  # 65 pixels and 17 grid pixels, corners on corners
    wanted = {
        "semantic": F.cross_entropy(full, labels, ignore_index=IGNORE),
        "error": error_loss(front.error_logit, front.logits, truth),
        "detail": detail_loss(detail, front.error_logit, truth, recipe.threshold),
    }
    for stage in STAGES:
        torch.testing.assert_close(found[stage], wanted[stage], rtol=1e-5, atol=1e-6)


def test_semantic_loss_of_void_alone_is_zero(cascade, recipe, batch):
    training = STAGE_TRAININGS["semantic"](cascade, recipe, []).train()
    loss = training.loss(batch[0], torch.full_like(batch[1], IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.isfinite().all() for parameter in cascade.semantic.parameters())


def test_rate_falls_by_the_poly_rule(cascade, recipe):
    stage = replace(recipe.detail, iterations=10, checkpoint_every=5, weight_decay=0.1)
    optimisation = STAGE_TRAININGS["detail"](cascade, replace(recipe, detail=stage), []).configure_optimizers()
    optimizer, schedule = optimisation["optimizer"], optimisation["lr_scheduler"]["scheduler"]
    assert optimisation["lr_scheduler"]["interval"] == "step"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in cascade.detail.parameters()}
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [stage.rate * (1 - step / 10) ** 0.9 for step in range(10)], rtol=1e-9)


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize(("size", "grid"), [((65, 97), (17, 25)), ((40, 33), (9, 7)), ((5, 1), (3, 1))], ids=str)
def test_labels_on_grid_are_those_nearest_to_its_pixels(size, grid, align_corners):
    labels = torch.arange(size[0] * size[1]).view(1, *size)
    found = labels_on_grid(labels, torch.Size(grid), align_corners)[0].numpy()
    rows, cols = np.divmod(found, size[1])
    for picked, side, cells in ((rows[:, 0], size[0], grid[0]), (cols[0], size[1], grid[1])):
        centers = np.linspace(0, side - 1, cells) if align_corners else (np.arange(cells) + 0.5) * side / cells - 0.5
        least = np.abs(np.arange(side)[:, None] - centers).min(axis=0)
        np.testing.assert_allclose(np.abs(picked - centers), least, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found, rows[:, :1] * size[1] + cols[:1])
