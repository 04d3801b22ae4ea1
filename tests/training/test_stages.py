"""Each training moves its own branch and nothing else, and makes its loss smaller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from scipy.stats import entropy

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import FolderData
from errseg_rt.networks import Cascade
from errseg_rt.networks.cascade import flag
from errseg_rt.training.data import CropStream
from errseg_rt.training.grid import on_grid
from errseg_rt.training.losses import bootstrapped_loss, detail_loss, error_loss, loss_rank_mining
from errseg_rt.training.recipe import STAGES
from errseg_rt.training.recipe_data import ViewsConfig
from errseg_rt.training.recipe_learning import BootstrapConfig, ErrorLossConfig, MethodConfig
from errseg_rt.training.stages import STAGE_TRAININGS, StageTraining
from errseg_rt.training.taps import FrozenBatch, TapStore

BRANCH_OF = {
    "semantic": "semantic",
    "error": "error",
    "error_frozen": "error",
    "detail": "detail",
    "detail_frozen": "detail",
    "localization": "localization",
}
OF_CLASSES = STAGES[:-1]
"""Those of a cascade without instances; of the last, see test_localization.py."""


@pytest.fixture
def batch():
    """Two random crops, partly void."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 11, (2, 65, 65)))
    labels[:, :9] = IGNORE
    return torch.from_numpy(rng.standard_normal((2, 3, 65, 65))).float(), labels


@pytest.fixture
def kept(cascade, batch):
    """What the frozen branch makes of them."""
    return kept_of(cascade, batch)


@torch.no_grad()
def kept_of(cascade, batch):
    """The batch as a `FrozenBatch`, each part by its definition."""
    image, labels = batch
    return FrozenBatch(image, cascade.eval().taps(image), labels[:, ::4, ::4])  # corners on corners


@pytest.fixture
def cascade_of(cascade):
    """The cascade as a stage finds it: with frozen norms where its name says so."""

    def build(stage):
        if stage.endswith("_frozen"):
            cascade.eval().freeze_norms(BRANCH_OF[stage], lambda: cascade(torch.randn(2, 3, 65, 65)))
        return cascade

    return build


def training_of(stage, cascade, recipe, **method):
    return STAGE_TRAININGS[stage](cascade, replace(recipe, method=MethodConfig(**method)), [])


def states(cascade):
    return {
        name: {key: value.clone() for key, value in branch.state_dict().items()}
        for name, branch in cascade.named_children()
    }


def steps(training, batches):
    """Losses of one step of the stage's own optimiser on each batch."""
    optimizer = training.configure_optimizers()["optimizer"]
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = training.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_every_stage_has_its_training():
    assert {stage: training.branch for stage, training in STAGE_TRAININGS.items()} == BRANCH_OF
    assert tuple(BRANCH_OF) == STAGES


KINDS = [(stage, kind) for stage in OF_CLASSES for kind in ("crops", "kept") if (stage, kind) != ("semantic", "kept")]


@pytest.mark.parametrize(("stage", "kind"), KINDS, ids=["-".join(kind) for kind in KINDS])
def test_gradients_reach_the_trained_branch_alone(cascade_of, recipe, batch, stage, kind):
    cascade, trained = cascade_of(stage), BRANCH_OF[stage]
    torch.nn.init.normal_(cascade.error.head.weight, std=0.1)
    torch.nn.init.normal_(cascade.detail.head.weight, std=0.1)
    given = batch if kind == "crops" else kept_of(cascade, batch)
    decaying = replace(recipe, **{stage: replace(recipe.stage(stage), weight_decay=0.1)})
    training = STAGE_TRAININGS[stage](cascade, decaying, []).train()
    before = states(cascade)
    steps(training, [given])
    for name, branch in cascade.named_children():
        assert branch.training is (name == trained)
        for key, parameter in branch.named_parameters():
            assert parameter.requires_grad is (name == trained), f"{name}.{key}"
            assert (parameter.grad is not None) is (name == trained), f"{name}.{key}"
    assert any(parameter.grad.abs().max() > 0 for parameter in cascade.get_submodule(trained).parameters())
    for name, found in states(cascade).items():
        moved = {key for key, value in found.items() if (value != before[name][key]).any()}
        # Frozen in eval mode: not even the running statistics of its norms move.
        assert bool(moved) is (name == trained), name
        if stage.endswith("_frozen"):
            assert not moved & {key for key, _ in cascade.get_submodule(name).named_buffers()}


@pytest.mark.parametrize("learn", ["flagged", "everywhere", "hardest"])
def test_nothing_but_the_detail_branch_learns_by_any_method(cascade, recipe, kept, learn):
    torch.nn.init.normal_(cascade.error.head.weight)
    training_of("detail", cascade, recipe, learn=learn).train().loss(kept).backward()
    reached = {
        name for name, branch in cascade.named_children() if any(p.grad is not None for p in branch.parameters())
    }
    assert reached == {"detail"}


@pytest.mark.parametrize("stage", OF_CLASSES)
def test_loss_of_a_fixed_batch_falls(cascade_of, recipe, batch, stage):
    recipe = replace(recipe, **{stage: replace(recipe.stage(stage), rate=1e-2)})
    labels = torch.where(torch.arange(65)[:, None] < 33, 3, 5).expand(2, 65, 65)  # what can be learned
    losses = steps(STAGE_TRAININGS[stage](cascade_of(stage), recipe, []).train(), [(batch[0], labels)] * 6)
    assert losses[-1] < 0.98 * losses[0]


@torch.no_grad()
def test_losses_are_those_of_the_equations(cascade, recipe, batch, kept):
    image, labels = batch
    torch.nn.init.normal_(cascade.error.head.weight)
    torch.nn.init.normal_(cascade.detail.head.weight)
    front = cascade.eval().front(image)
    detail = cascade.detail.refine(front.logits, front.low, front.coarse, front.gate)
    full = F.interpolate(front.logits, size=(65, 65), mode="bilinear", align_corners=True)
    recipe = replace(recipe, threshold=front.error_logit.median().sigmoid().item())
    flagged, truth = flag(front.error_logit[:, 0], recipe.threshold), kept.truth
    assert 0.2 < flagged.float().mean() < 0.8
    wanted = {
        "semantic": F.cross_entropy(full, labels, ignore_index=IGNORE),
        "error": error_loss(front.error_logit, front.logits, truth),
        "detail": detail_loss(detail, flagged, truth),
    }
    for stage in OF_CLASSES:
        training = STAGE_TRAININGS[stage](cascade, recipe, []).eval()
        for given in (batch, kept)[: 1 + (stage != "semantic")]:
            torch.testing.assert_close(training.loss(given), wanted[BRANCH_OF[stage]], rtol=1e-5, atol=1e-6)


MERGE = {"ground": ("road", "pavement"), "sky": ("sky",), "vertical": ("building", "tree", "fence")}


@torch.no_grad()
@pytest.mark.parametrize("learn", ["flagged", "everywhere", "hardest"])
def test_every_loss_takes_merged_classes(cascade, recipe, batch, learn):
    """Truth ids above the classes are sets: each stage's loss is the equations' for these."""
    merged = replace(recipe, data=replace(recipe.data, merge=MERGE), method=MethodConfig(learn=learn))
    image, labels = batch
    labels = torch.where(labels == IGNORE, IGNORE, labels + 3)  # all classes but three, and the three sets
    torch.nn.init.normal_(cascade.error.head.weight)
    torch.nn.init.normal_(cascade.detail.head.weight)
    kept, sets = kept_of(cascade, (image, labels)), torch.from_numpy(merged.merge.members)
    front = cascade.eval().front(image)
    detail = cascade.detail.refine(front.logits, front.low, front.coarse, front.gate)
    full = F.interpolate(front.logits, size=(65, 65), mode="bilinear", align_corners=True)
    merged = replace(merged, threshold=front.error_logit.median().sigmoid().item())
    flagged, truth = flag(front.error_logit[:, 0], merged.threshold), kept.truth
    wanted = {
        "semantic": detail_loss(full, torch.ones_like(labels, dtype=torch.bool), labels, sets),
        "error": error_loss(front.error_logit, front.logits, truth, sets=sets),
        "detail": {
            "flagged": detail_loss(detail, flagged, truth, sets),
            "everywhere": detail_loss(detail, torch.ones_like(flagged), truth, sets),
            "hardest": loss_rank_mining(detail, truth, merged.method.hardest, sets),
        }[learn],
    }
    for stage in OF_CLASSES:
        training = STAGE_TRAININGS[stage](cascade, merged, []).eval()
        for given in ((image, labels), kept)[: 1 + (stage != "semantic")]:
            torch.testing.assert_close(training.loss(given), wanted[BRANCH_OF[stage]], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_methods_count_the_pixels_they_say(cascade, recipe, batch):
    torch.nn.init.normal_(cascade.detail.head.weight)
    cascade.semantic.decoder._1x1_BR.weight *= 100  # so that doubt differs from pixel to pixel
    kept = kept_of(cascade, batch)
    taps, truth = kept.taps, kept.truth
    detail, p_sb = cascade.detail(taps), taps.logits.softmax(dim=1)
    doubt = torch.from_numpy(entropy(p_sb.numpy(), axis=1))
    limit, least = doubt.median().item(), p_sb.amax(dim=1).median().item()
    wanted = {
        ("everywhere", "everywhere", 0.0): F.cross_entropy(detail, truth, ignore_index=IGNORE),
        ("error", "everywhere", 0.0): F.cross_entropy(detail, truth, ignore_index=IGNORE),
        ("everywhere", "hardest", 0.0): loss_rank_mining(detail, truth, 0.2),
        ("entropy", "flagged", limit): detail_loss(detail, doubt > limit, truth),
        ("confidence", "flagged", 1 - least): detail_loss(detail, p_sb.amax(dim=1) <= least, truth),
    }
    for (selector, learn, at), value in wanted.items():
        training = training_of("detail", cascade, recipe, selector=selector, learn=learn, limit=at).eval()
        torch.testing.assert_close(training.loss(kept), value, rtol=1e-5, atol=1e-6)
    assert len({round(value.item(), 4) for value in wanted.values()}) == 4


@torch.no_grad()
def test_bootstrapped_semantic_loss(cascade, recipe, batch):
    image, labels = batch
    full = F.interpolate(cascade.eval().taps(image).logits, size=(65, 65), mode="bilinear", align_corners=True)
    recipe = replace(recipe, bootstrap=BootstrapConfig(probability=0.08, keep=0.1))
    found = STAGE_TRAININGS["semantic"](cascade, recipe, []).eval().loss(batch)
    torch.testing.assert_close(found, bootstrapped_loss(full, labels, 0.08, 0.1), rtol=1e-5, atol=1e-6)
    assert found > 1.01 * F.cross_entropy(full, labels, ignore_index=IGNORE)


@pytest.mark.parametrize("probability", [0.0, 0.5], ids=["plain", "bootstrapped"])
def test_semantic_loss_of_void_alone_is_zero(cascade, recipe, batch, probability):
    recipe = replace(recipe, bootstrap=BootstrapConfig(probability=probability))
    training = STAGE_TRAININGS["semantic"](cascade, recipe, []).train()
    loss = training.loss((batch[0], torch.full_like(batch[1], IGNORE)))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.isfinite().all() for parameter in cascade.semantic.parameters())


def test_training_on_rendered_scenes_lowers_each_loss(recipe, cascade, small_scenes):
    # Of frames that the training does not draw, after each stage has gone its way over those it does.
    scored = CropStream([], replace(recipe, seed=99), 0, start=10**6, length=4)
    batch = tuple(torch.stack(part) for part in zip(*(scored[index] for index in range(4)), strict=True))
    count = {"semantic": 16, "error": 8, "error_frozen": 6, "detail": 12, "detail_frozen": 6}
    for stage in OF_CLASSES:
        if stage.endswith("_frozen"):
            cascade.eval().freeze_norms(BRANCH_OF[stage], lambda: cascade(batch[0]))
        rate = 2e-3 if stage.endswith("_frozen") else 1e-2
        settings = replace(recipe.stage(stage), iterations=count[stage], checkpoint_every=count[stage], rate=rate)
        training = STAGE_TRAININGS[stage](cascade, replace(recipe, **{stage: settings}), [])
        with torch.no_grad():
            before = training.eval().loss(batch).item()
        steps(training.train(), training.train_dataloader())
        with torch.no_grad():
            after = training.eval().loss(batch).item()
        assert after < 0.95 * before, stage


@pytest.mark.parametrize("correct", [0.0, 0.25], ids=["of_each_image", "constant"])
def test_error_training_starts_in_the_balance_of_its_loss(cascade, recipe, folder, correct):
    # Where P_sb is calibrated, an error has the probability 1 - max P_sb; eq. 2 is least at its odds times w1 / w3.
    weights = ErrorLossConfig(easy=2.0, correct=correct)
    recipe = replace(recipe, error_loss=weights)
    training = STAGE_TRAININGS["error"](cascade, recipe, FolderData(folder[0], 11))
    training.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    training.on_train_start()
    _, taps, truth = training.frozen(next(iter(training.train_dataloader())))
    wrong = (taps.logits.argmax(dim=1) != truth) & (truth != IGNORE)
    shares = [image.sum() / (labels != IGNORE).sum() for image, labels in zip(wrong, truth, strict=True)]
    w3 = correct or np.mean(shares)
    assert cascade.error.offset.item() == pytest.approx(np.log(2 / w3), rel=1e-5)
    p = torch.linspace(0.05, 0.6, 12, dtype=torch.float64)
    odds = 2 / w3 * p / (1 - p)
    at = torch.stack([odds * factor for factor in (0.99, 1.0, 1.01)])
    losses = -(2 * p * (at / (1 + at)).log() + w3 * (1 - p) * (1 / (1 + at)).log())
    assert (losses.argmin(dim=0) == 1).all()


def test_only_a_residual_start_with_norms_that_learn_is_balanced(recipe, folder):
    for change in ({"residual": False}, {"error_frozen": True}):
        cascade = Cascade(replace(recipe.cascade, **change))
        before = {name: tensor.clone() for name, tensor in cascade.error.state_dict().items()}
        training = STAGE_TRAININGS["error"](cascade, recipe, FolderData(folder[0], 11))
        training.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        training.on_train_start()
        assert all(tensor.equal(before[name]) for name, tensor in cascade.error.state_dict().items())


def test_weights_of_eq_2_are_the_recipes(cascade, recipe, kept):
    torch.nn.init.normal_(cascade.error.head.weight)
    weights = ErrorLossConfig(easy=0.7, hard=3.0, correct=0.1, rho=0.5)
    with torch.no_grad():
        error_logit = cascade.error(kept.image, kept.taps)
        found = STAGE_TRAININGS["error"](cascade, replace(recipe, error_loss=weights), []).eval().loss(kept)
    named = {"rho": 0.5, "easy_weight": 0.7, "hard_weight": 3.0, "correct_weight": 0.1}
    wanted = error_loss(error_logit, kept.taps.logits, kept.truth, **named)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
@torch.no_grad()
def test_class_logits_are_weighed_beside_eq_2(recipe, kept, residual):
    cascade = Cascade(replace(recipe.cascade, residual=residual, error_features="low"))
    torch.nn.init.normal_(cascade.error.head.weight)
    plain, weighed = (
        STAGE_TRAININGS["error"](cascade, replace(recipe, error_loss=ErrorLossConfig(classes=weight)), [])
        .eval()
        .loss(kept)
        for weight in (0.0, 0.25)
    )
    wanted = 0.0
    if residual:
        corrected = cascade.error.correct(kept.image, kept.taps)
        wanted = F.cross_entropy(corrected, kept.truth, ignore_index=IGNORE)
        assert wanted > 0.1
    torch.testing.assert_close(weighed - plain, torch.as_tensor(0.25 * wanted), rtol=1e-4, atol=1e-5)


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


def loaders_of_two(training, monkeypatch):
    """What each of two devices reads."""
    loaders = []
    for rank in range(2):
        monkeypatch.setattr(StageTraining, "global_rank", rank)
        loaders.append(training.train_dataloader())
    return loaders


def test_devices_share_a_batch_of_crops(cascade, recipe, folder, monkeypatch):
    recipe = replace(recipe, error=replace(recipe.error, batch=4))
    frames = FolderData(folder[0], 11)
    whole = list(STAGE_TRAININGS["error"](cascade, recipe, frames).train_dataloader())
    shares = loaders_of_two(STAGE_TRAININGS["error"](cascade, recipe, frames, devices=2), monkeypatch)
    assert len(whole) == 2
    for step, first, second in zip(whole, *shares, strict=True):
        found = [{image.numpy().tobytes() for image in images} for images, _ in (step, first, second)]
        assert [len(images) for images in found] == [4, 2, 2]
        assert found[1] | found[2] == found[0]


def test_devices_share_a_batch_of_views(cascade, recipe, folder, tmp_path, monkeypatch):
    recipe = replace(recipe, views=ViewsConfig(), error=replace(recipe.error, batch=4))
    store = TapStore(tmp_path / "taps", FolderData(folder[0], 11), lambda _: cascade.eval(), recipe.input)
    (whole,) = {len(batch.truth) for batch in STAGE_TRAININGS["error"](cascade, recipe, [], store).train_dataloader()}
    shares = loaders_of_two(STAGE_TRAININGS["error"](cascade, recipe, [], store, devices=2), monkeypatch)
    batches = [batch for share in shares for batch in share]
    assert whole == 4
    assert [len(batch.truth) for batch in batches] == [2] * 4  # two steps on two devices
    drawn = {batch.image.numpy().tobytes() for batch in batches}
    assert len(drawn) >= 3  # of 64 pairs of views, one may come again


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize(("size", "grid"), [((65, 97), (17, 25)), ((40, 33), (9, 7)), ((5, 1), (3, 1))], ids=str)
def test_on_grid_are_those_nearest_to_its_pixels(size, grid, align_corners):
    labels = torch.arange(size[0] * size[1]).view(1, *size)
    found = on_grid(labels, grid, align_corners)[0].numpy()
    rows, cols = np.divmod(found, size[1])
    for picked, side, cells in ((rows[:, 0], size[0], grid[0]), (cols[0], size[1], grid[1])):
        centers = np.linspace(0, side - 1, cells) if align_corners else (np.arange(cells) + 0.5) * side / cells - 0.5
        least = np.abs(np.arange(side)[:, None] - centers).min(axis=0)
        np.testing.assert_allclose(np.abs(picked - centers), least, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found, rows[:, :1] * size[1] + cols[:1])
