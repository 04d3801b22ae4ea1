"""Global attention upsampling, against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.gau import GAU, conv_norm
from errseg_rt.networks.norms import FrozenNorm


def test_conv_norm_has_no_bias_before_the_norm():
    conv, norm = conv_norm(3, 8, stride=2)
    assert conv.bias is None
    assert isinstance(norm, nn.GroupNorm)
    assert conv_norm(3, 8, stride=2)(torch.zeros(1, 3, 9, 12)).shape == (1, 8, 5, 6)
    assert isinstance(conv_norm(3, 8, frozen=True)[1], FrozenNorm)


def gau_by_definition(weights, low, high, groups, align_corners, kernels=(3, 3, 3), mid=None):
    """`x = up(project(H)) + ReLU(conv1x1(mean(H))) * GN(conv(L))`, then twice `ReLU(GN(conv3x3(x)))`.

    With M between the two, `up(up(project(H)) + project(M))` takes the place of `up(project(H))`.
    """

    def norm(x, name):
        parts = x.unflatten(1, (groups, -1))
        mean = parts.mean(dim=(2, 3, 4), keepdim=True)
        variance = parts.var(dim=(2, 3, 4), keepdim=True, unbiased=False)
        normed = ((parts - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return normed * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def conv(x, name, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)

    gate = conv(high.mean(dim=(2, 3), keepdim=True), "attend.1").clamp_min(0)
    up = conv(high, "project")
    for finer in (low,) if mid is None else (mid, low):
        up = F.interpolate(up, size=finer.shape[2:], mode="bilinear", align_corners=align_corners)
        up = up + conv(mid, "project_mid") if finer is mid else up
    x = up + gate * norm(conv(low, "low.0", kernels[0] // 2), "low.1")
    x = norm(conv(x, "fuse.0.0", kernels[1] // 2), "fuse.0.1").clamp_min(0)
    return norm(conv(x, "fuse.2.0", kernels[2] // 2), "fuse.2.1").clamp_min(0)


def random_gau(width, align_corners=True, seed=0, frozen=False, **others):
    torch.manual_seed(seed)
    gau = GAU(5, 6, width, align_corners=align_corners, frozen=frozen, **others).double()
    for module in gau.modules():
        if isinstance(module, nn.GroupNorm | FrozenNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return gau


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize("sizes", [((9, 13), (5, 7)), ((8, 6), (8, 6)), ((7, 10), (1, 1))], ids=str)
@pytest.mark.parametrize(("width", "kernels"), [(8, (3, 3, 3)), (12, (3, 3, 3)), (8, (1, 3, 1)), (8, (3, 1, 3))])
def test_gau_equals_its_formula(width, kernels, sizes, align_corners):
    gau = random_gau(width, align_corners, kernels=kernels)
    low = torch.randn(2, 5, *sizes[0], dtype=torch.float64)
    high = torch.randn(2, 6, *sizes[1], dtype=torch.float64)
    with torch.no_grad():
        wanted = gau_by_definition(gau.state_dict(), low, high, width // 4, align_corners, kernels)
        torch.testing.assert_close(gau(low, high), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
def test_gau_with_features_between_equals_its_formula(align_corners):
    gau = random_gau(8, align_corners, mid_channels=3)
    low, mid, high = (torch.randn(2, *shape, dtype=torch.float64) for shape in ((5, 9, 13), (3, 5, 7), (6, 3, 4)))
    with torch.no_grad():
        wanted = gau_by_definition(gau.state_dict(), low, high, 2, align_corners, mid=mid)
        torch.testing.assert_close(gau(low, high, mid=mid), wanted, rtol=1e-9, atol=1e-9)


def test_alignment_matters():
    low, high = torch.randn(1, 5, 9, 9).double(), torch.randn(1, 6, 5, 5).double()
    aligned, half_pixel = (random_gau(8, align)(low, high) for align in (True, False))
    assert (aligned - half_pixel).abs().max() > 1e-3


def test_gate_given_equals_own_gate():
    gau = random_gau(8)
    low, high = torch.randn(2, 5, 9, 13).double(), torch.randn(2, 6, 5, 7).double()
    gate = gau.gate(high)
    assert gate.shape == (2, 8, 1, 1)
    assert (gate >= 0).all()
    torch.testing.assert_close(gau(low, high, gate), gau(low, high), rtol=0, atol=0)
    assert not torch.allclose(gau(low, high, gate + 1), gau(low, high))


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "group_norm"])
def test_once_its_gate_is_known_it_is_local_with_frozen_norms_alone(frozen):
    # What exact sparse refinement rests on: three 3x3 convolutions reach three pixels far.
    gau = random_gau(8, frozen=frozen)
    low, high = torch.randn(1, 5, 15, 17).double(), torch.randn(1, 6, 8, 9).double()
    changed = low.clone()
    changed[:, :, 7, 8] += 100
    with torch.no_grad():
        differ = (gau(low, high) != gau(changed, high)).any(dim=1)[0]
    reached = torch.zeros_like(differ)
    reached[4:11, 5:12] = True
    assert differ[7, 8]
    assert (differ & ~reached).any() == (not frozen)
