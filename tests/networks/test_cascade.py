"""The cascade as the definition of the method: eq. 1, 4 and 5, the residual start, and its two halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from errseg_rt.bundle.contract import GRID_STRIDE, on_stride
from errseg_rt.networks import SEMANTIC_NETWORKS, Cascade, CascadeConfig
from errseg_rt.networks.cascade import error_map, flag, fuse
from errseg_rt.networks.graphs import GRAPHS
from errseg_rt.networks.norms import FrozenNorm

SMALL = {"semantic": "squeezenas", "classes": 5, "error_width": 6, "detail_width": 4}


LEAN = {
    "error_features": "low",
    "error_kernels": [1, 3, 1],
    "error_context": "mid",
    "detail_kernels": [1, 1, 3],
    "stage3_kernels": [3, 1, 1],
}


def build(residual=True, features="image", **changes):
    torch.manual_seed(0)
    return Cascade(CascadeConfig(**{**SMALL, "residual": residual, "error_features": features, **changes})).eval()


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 65, 97))).float()


def test_error_map_is_eq_1():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, (2, 2, 7, 5))
    found = error_map(torch.from_numpy(labels), torch.from_numpy(truth))
    wanted = [[[a != b for a, b in zip(*rows, strict=True)] for rows in zip(*maps, strict=True)]
              for maps in zip(labels.tolist(), truth.tolist(), strict=True)]  # fmt: skip
    np.testing.assert_array_equal(found.numpy(), wanted)


@pytest.mark.parametrize("threshold", [1e-12, 0.01, 0.3, 0.7, 0.95, 1 - 1e-12])
def test_flag_is_eq_4_also_where_a_sigmoid_saturates(threshold):
    logit = np.random.default_rng(0).uniform(-60, 60, 4000).astype(np.float32)
    # P > t, from the side on which float64 resolves it.
    above = 1 / (1 + np.exp(-logit.astype(np.float64))) > threshold
    below = 1 / (1 + np.exp(logit.astype(np.float64))) < 1 - threshold
    wanted = below if threshold > 0.5 else above
    assert 0 < wanted.sum() < wanted.size
    np.testing.assert_array_equal(flag(torch.from_numpy(logit), threshold).numpy(), wanted)


def test_flag_is_strict_and_orders_saturated_logits():
    assert flag(torch.tensor([-1e-6, 0.0, 1e-6]), 0.5).tolist() == [False, False, True]
    logits = torch.tensor([27.0, 28.0])
    assert logits.sigmoid().tolist() == [1.0, 1.0]
    assert flag(logits, 1 - 1e-12).tolist() == [False, True]


def test_fuse_is_eq_5():
    rng = np.random.default_rng(0)
    p_sb, p_db = rng.random((2, 2, 3, 4, 5))
    flagged = rng.random((2, 1, 4, 5)) < 0.5
    wanted = flagged * p_db + ~flagged * p_sb
    found = fuse(torch.from_numpy(p_sb), torch.from_numpy(p_db), torch.from_numpy(flagged))
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_forward_follows_eq_1_to_5(image):
    cascade = build(residual=False)
    with torch.no_grad():
        front = cascade.front(image)
        error_logit = front.error_logit.double().numpy()
        out = cascade(image, threshold=1 / (1 + np.exp(-error_logit.mean())))
    assert 0 < out.flagged.sum() < out.flagged.numel()
    np.testing.assert_array_equal(out.flagged.numpy(), error_logit > error_logit.mean())
    flagged = np.broadcast_to(out.flagged.numpy(), out.p_f.shape)
    np.testing.assert_array_equal(out.p_f.numpy(), np.where(flagged, out.p_db.numpy(), out.p_sb.numpy()))
    for probabilities in (out.p_sb, out.p_db, out.p_f):
        np.testing.assert_allclose(probabilities.sum(dim=1).numpy(), 1, rtol=0, atol=1e-5)
    exponents = np.exp(front.logits.double().numpy())
    np.testing.assert_allclose(out.p_sb, exponents / exponents.sum(1, keepdims=True), rtol=0, atol=1e-6)
    np.testing.assert_allclose(out.p_ep, 1 / (1 + np.exp(-error_logit)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("features", ["image", "low"])
def test_residual_start_equals_the_semantic_branch(image, features):
    cascade = build(features=features)
    cascade.semantic.decoder._1x1_BR.weight.data *= 100  # so that doubt differs from pixel to pixel
    with torch.no_grad():
        out = cascade(image)
    doubt = 1 - out.p_sb.max(dim=1, keepdim=True).values
    assert doubt.max() - doubt.min() > 0.1
    np.testing.assert_allclose(out.p_db, out.p_sb, rtol=0, atol=1e-6)
    np.testing.assert_allclose(out.p_ep, doubt, rtol=0, atol=1e-5)


def test_plain_start_owes_nothing_to_the_semantic_branch(image):
    with torch.no_grad():
        out = build(residual=False)(image)
    assert (out.p_db - out.p_sb).abs().max() > 0.01
    assert (out.p_ep - (1 - out.p_sb.max(dim=1, keepdim=True).values)).abs().max() > 0.01


@pytest.mark.parametrize("features", ["image", "low"])
@torch.no_grad()
def test_p_ep_is_what_corrected_logits_leave_to_other_classes(image, features):
    cascade = build(features=features)
    torch.nn.init.normal_(cascade.error.head.weight)
    cascade.error.offset.fill_(0.5)
    taps = cascade.taps(image)
    corrected = cascade.error.correct(image, taps).double().numpy()
    probabilities = np.exp(corrected) / np.exp(corrected).sum(axis=1, keepdims=True)
    label = taps.logits.argmax(dim=1, keepdim=True).numpy()
    assert (corrected.argmax(axis=1, keepdims=True) != label).any()
    p = 1 - np.take_along_axis(probabilities, label, axis=1)
    wanted = np.log(p / (1 - p)) + 0.5
    np.testing.assert_allclose(cascade.error(image, taps), wanted, rtol=0, atol=1e-4)


def test_features_of_the_image_or_of_the_network_are_what_is_seen(image):
    for features, seen in (("image", "image"), ("low", "low")):
        cascade = build(features=features)
        torch.nn.init.normal_(cascade.error.head.weight)
        with torch.no_grad():
            taps = cascade.taps(image)
            before = cascade.error(image, taps)
            other_image = cascade.error(image + 1, taps)
            other_low = cascade.error(image, taps._replace(low=taps.low + 1))
        assert before.equal(other_image) == (seen != "image")
        assert before.equal(other_low) == (seen != "low")


@pytest.mark.parametrize("context", ["high", "mid"])
@torch.no_grad()
def test_context_is_what_is_seen_around(image, context):
    cascade = build(error_context=context)
    torch.nn.init.normal_(cascade.error.head.weight)
    taps = cascade.taps(image)
    before = cascade.error(image, taps)
    assert not before.equal(cascade.error(image, taps._replace(high=taps.high + 1)))
    assert before.equal(cascade.error(image, taps._replace(mid=taps.mid + 1))) == (context == "high")


@pytest.mark.parametrize("kernels", [(3, 3, 3), (1, 3, 1)], ids=str)
@pytest.mark.parametrize("sparse", [(3, 3, 3), (3, 1, 3)], ids=str)
def test_kernels_of_the_dense_stages_are_not_those_of_the_sparse_one(kernels, sparse):
    detail = build(detail_kernels=kernels, stage3_kernels=sparse).detail
    for stage, wanted in ((detail.stage1, kernels), (detail.stage2, kernels), (detail.stage3, sparse)):
        assert tuple(conv.weight.shape[-1] for conv in (stage.low[0], stage.fuse[0][0], stage.fuse[2][0])) == wanted


def test_saturated_probabilities_keep_the_error_logit_finite(image):
    cascade = build()
    cascade.semantic.decoder._1x1_BR.bias.data[2] = 1e4
    with torch.no_grad():
        out = cascade.front(image)
    assert out.error_logit.isfinite().all()
    assert (out.error_logit < -10).all()
    with torch.no_grad():  # and the other way round, where the corrected logits leave the label nothing
        hopeless = cascade.error.judge(torch.tensor([[[[9.0]], [[0.0]]]]), torch.tensor([[[[-9e3]], [[0.0]]]]))
    assert hopeless.isfinite().all()
    assert (hopeless > 10).all()


@pytest.mark.parametrize("changes", [{"residual": True}, {"residual": False}, LEAN], ids=["residual", "plain", "lean"])
def test_front_and_refine_graphs_compose_to_forward(image, changes):
    cascade = build(**changes)
    torch.nn.init.normal_(cascade.detail.head.weight)
    front_graph, refine_graph = (GRAPHS[name](cascade) for name in ("front", "refine"))
    with torch.no_grad():
        front = dict(zip(front_graph.output_shapes(), front_graph(image), strict=True))
        (detail,) = refine_graph(*(front[name] for name in refine_graph.input_shapes()))
        wanted = cascade(image, 0.7)
    torch.testing.assert_close(detail.softmax(dim=1), wanted.p_db, rtol=0, atol=0)
    torch.testing.assert_close(front["logits"].softmax(dim=1), wanted.p_sb, rtol=0, atol=0)
    assert (wanted.p_db - wanted.p_sb).abs().max() > 0.01


@pytest.mark.parametrize("name", SEMANTIC_NETWORKS)
def test_every_semantic_network_is_what_the_branches_take(on_meta, name):
    network, size = on_meta(SEMANTIC_NETWORKS[name], 5), (65, 97)
    with torch.no_grad():
        taps = network(torch.empty(1, 3, *size, device="meta"))
    assert (network.classes, taps.logits.shape[1], type(network.align_corners)) == (5, 5, bool)
    grid_stride = getattr(network, "grid_stride", GRID_STRIDE)
    for tap, factor in (("low", 1), ("mid", 2), ("deep", 4), ("high", 4)):
        channels = getattr(network, f"{tap}_channels")
        assert tuple(getattr(taps, tap).shape) == (1, channels, *on_stride(size, factor * grid_stride)), tap


@pytest.mark.parametrize("size", [(65, 97), (33, 17), (50, 62), (64, 128)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_grid_is_a_quarter_rounded_up(size):
    cascade = build()
    graphs = {name: graph(cascade) for name, graph in GRAPHS.items()}
    with torch.no_grad():
        front = cascade.front(torch.zeros(1, 3, *size))
        refined = graphs["refine"](front.logits, front.low, front.coarse, front.gate)
    grid = tuple(-(-side // 4) for side in size)
    for name in ("logits", "error_logit", "low"):
        assert tuple(getattr(front, name).shape[2:]) == grid, name
    declared = [*graphs["front"].output_shapes().values(), *graphs["refine"].output_shapes().values()]
    for shape, tensor in zip(declared, (*front, *refined), strict=True):
        assert all(wanted in (None, found) for wanted, found in zip(shape, tensor.shape, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"semantic": "resnet"}, "semantic: wanted one of deeplabv3plus-resnet101, .*, got 'resnet'"),
        ({"error_features": "depth"}, "error_features: wanted one of image, low, got 'depth'"),
        ({"decoder": "unet"}, "decoder: wanted one of dupsampling, gau, got 'unet'"),
        ({"classes": 1}, "classes: wanted 2 to 255, got 1"),
        ({"classes": 256}, "classes: wanted 2 to 255, got 256"),
        ({"error_width": 1}, "error_width: wanted 2 or more, got 1"),
        ({"error_width": 2.5}, "error_width: wanted a whole number, got 2.5"),
        ({"error_kernels": (1, 2, 3)}, r"error_kernels: wanted sides of 3 or 1, got [\[(]1, 2, 3"),
        ({"error_kernels": 1}, "error_kernels: wanted"),
        ({"error_context": "low"}, "error_context: wanted one of high, mid, got 'low'"),
        ({"detail_kernels": (3, 3)}, r"detail_kernels: wanted 3 whole numbers, got [\[(]3, 3"),
        ({"stage3_kernels": (1, 5, 1)}, r"stage3_kernels: wanted sides of 3 or 1, got [\[(]1, 5, 1"),
        ({"detail_width": 0}, "detail_width: wanted 1 or more, got 0"),
    ],
    ids=str,
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CascadeConfig(**{**SMALL, **change})


def test_config_survives_its_dictionary():
    config = CascadeConfig(**SMALL, residual=False)
    assert CascadeConfig(**config.to_dict()) == config


def frozen_cascade(image, *branches):
    """A cascade whose detail logits are no copy of the semantic ones, with the norms of some branches frozen."""
    cascade = build()
    torch.nn.init.normal_(cascade.detail.head.weight)
    torch.nn.init.normal_(cascade.error.head.weight)
    for branch in branches:
        cascade.freeze_norms(branch, lambda: cascade(image))
    return cascade


@torch.no_grad()
def test_frozen_on_one_image_the_answers_there_stay(image):
    image = image[:1]
    plain, frozen = (frozen_cascade(image, *branches)(image, 0.5) for branches in ((), ("error", "detail")))
    for name in ("p_sb", "p_ep", "p_db"):
        torch.testing.assert_close(getattr(frozen, name), getattr(plain, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("branches", [(), ("error",), ("detail",), ("error", "detail")], ids="+".join)
@torch.no_grad()
def test_frozen_norms_survive_config_and_state_dict(image, branches):
    cascade = frozen_cascade(image, *branches)
    config = CascadeConfig(**cascade.config.to_dict())
    assert (config.error_frozen, config.detail_frozen) == tuple(name in branches for name in ("error", "detail"))
    loaded = Cascade(config).eval()
    loaded.load_state_dict(cascade.state_dict())
    for name in ("error", "detail"):
        kinds = {type(module) for module in loaded.get_submodule(name).modules()} & {FrozenNorm, torch.nn.GroupNorm}
        assert kinds == {FrozenNorm if name in branches else torch.nn.GroupNorm}
    for found, wanted in zip(loaded(image), cascade(image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_norms_that_saw_nothing_are_refused():
    with pytest.raises(ValueError, match="nothing passed through the norm"):
        build().freeze_norms("detail", lambda: None)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "group_norm"])
@torch.no_grad()
def test_stage_3_sees_what_is_near_and_with_group_norm_everything(image, frozen):
    image = image[:1]
    cascade = frozen_cascade(image, *["detail"] * frozen)
    changed = image.clone()
    changed[:, :, :3, :3] += 5
    front, low = cascade.front(image), cascade.taps(changed).low
    before, after = (
        cascade.detail.refine(front.logits, seen, front.coarse, front.gate).numpy() for seen in (front.low, low)
    )
    moved = (low != front.low).any(dim=1, keepdim=True).float()
    # Three 3x3 convolutions reach three pixels far.
    reached = torch.nn.functional.max_pool2d(moved, 7, stride=1, padding=3).bool().numpy()
    differ = (before != after).any(axis=1, keepdims=True)
    assert differ.any()
    assert not reached.all()
    assert (differ & ~reached).any() == (not frozen)
