"""Folded weights of stage 3, against torch's detail branch with frozen norms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.errors import BundleError

torch = pytest.importorskip("torch")
F = torch.nn.functional

CLASSES, WIDTH, LOW = 5, 14, 9


def detail_branch(*, residual: bool, align_corners: bool, frozen: bool = True, seed: int = 0, sides=(3, 3, 3)):
    """A detail branch of which every number, those of its norms too, is random."""
    from errseg_rt.networks.detail_branch import DetailBranch

    semantic = SimpleNamespace(
        classes=CLASSES, low_channels=LOW, mid_channels=3, deep_channels=4, high_channels=6, align_corners=align_corners
    )
    branch = DetailBranch(semantic, WIDTH, residual=residual, frozen=frozen, kernels=((3, 3, 3), sides))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in branch.state_dict().items():
            value.normal_(std=0.3, generator=generator)
            if name.endswith("var"):
                value.exp_()
    return branch.eval()


def named_weights(branch) -> dict[str, np.ndarray]:
    return {f"detail.{name}": value.numpy() for name, value in branch.state_dict().items()}


def evaluated(weights, logits, low, coarse, gate):
    """Stage 3 as `RefineWeights` defines it, in float64."""

    def conv(x, kernel, bias):
        kernel, bias = (torch.from_numpy(array).double() for array in (kernel, bias))
        return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)

    logits, low, coarse, gate = (tensor.double() for tensor in (logits, low, coarse, gate))
    projected = conv(coarse, weights.project_weight[:, :, None, None], weights.project_bias)
    x = F.interpolate(projected, low.shape[2:], mode="bilinear", align_corners=weights.align_corners)
    x = x + gate * conv(low, weights.low_weight, weights.low_bias)
    y = conv(x, weights.weight1, weights.bias1).relu()
    z = conv(y, weights.weight2, weights.bias2).relu()
    learned = conv(z, weights.head_weight[:, :, None, None], weights.head_bias)
    return logits + learned if weights.residual else learned


@pytest.mark.parametrize(("seed", "sides"), [(0, (3, 3, 3)), (1, (1, 3, 1)), (2, (3, 1, 3))], ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("align_corners", [False, True], ids=["half_pixel", "aligned"])
def test_folded_equals_the_detail_branch(seed, sides, residual, align_corners) -> None:
    branch = detail_branch(residual=residual, align_corners=align_corners, seed=seed, sides=sides)
    generator = torch.Generator().manual_seed(100 + seed)
    shapes = ((CLASSES, 11, 13), (LOW, 11, 13), (WIDTH, 6, 7), (WIDTH, 1, 1))
    operands = [torch.randn(1, *shape, generator=generator) for shape in shapes]
    with torch.inference_mode():
        wanted = branch.refine(*operands)
    folded = refine_weights(named_weights(branch), "here", residual=residual, align_corners=align_corners)
    assert (folded.classes, folded.channels, folded.low_channels, folded.coarse_channels) == (
        CLASSES, WIDTH, LOW, WIDTH
    )  # fmt: skip
    assert folded.layers.kernels == sides
    # float32 against float64, through three layers of some hundred products each.
    np.testing.assert_allclose(evaluated(folded, *operands), wanted, rtol=0, atol=1e-4)


def test_other_weights_of_the_cascade_are_passed_over() -> None:
    weights = named_weights(detail_branch(residual=True, align_corners=True))
    alone = refine_weights(weights, "here", residual=True, align_corners=True)
    among = refine_weights(
        {**weights, "semantic.stem.weight": np.zeros(3, np.float16)}, "here", residual=True, align_corners=True
    )
    np.testing.assert_array_equal(alone.weight1, among.weight1)


@pytest.mark.parametrize("layer", ["low", "fuse.0", "fuse.2"])
def test_a_missing_frozen_norm_is_named(layer) -> None:
    weights = named_weights(detail_branch(residual=True, align_corners=True))
    del weights[f"detail.stage3.{layer}.1.var"]
    message = rf"here: no 'detail\.stage3\.{layer}\.1\.var', so that the detail branch has no frozen norms"
    with pytest.raises(BundleError, match=message):
        refine_weights(weights, "here", residual=True, align_corners=True)


def test_norms_that_were_never_frozen_are_named() -> None:
    branch = detail_branch(residual=True, align_corners=True, frozen=False)
    with pytest.raises(BundleError, match=r"no 'detail\.stage3\.low\.1\.mean'.*refine it densely, or train it"):
        refine_weights(named_weights(branch), "here", residual=True, align_corners=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("detail.head.weight", np.zeros((CLASSES, WIDTH), np.float32), "too many indices"),
        ("detail.head.bias", np.zeros(CLASSES + 1, np.float32), r"head_bias must be \[5\]"),
        ("detail.head.bias", np.zeros(CLASSES, np.float64), "head_bias must be a float32 array, got float64"),
        ("detail.stage3.low.1.mean", np.full(WIDTH, np.nan, np.float32), "low_bias holds values that are not finite"),
    ],
    ids=["rank", "shape", "dtype", "nan"],
)
def test_weights_of_something_else(name, value, message) -> None:
    weights = {**named_weights(detail_branch(residual=True, align_corners=True)), name: value}
    with pytest.raises(BundleError, match=f"here: not those of a detail branch .*{message}.*export the bundle again"):
        refine_weights(weights, "here", residual=True, align_corners=True)
