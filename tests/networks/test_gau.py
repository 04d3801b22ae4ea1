"""Global attention upsampling, against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.gau import GAU, conv_norm, group_norm


def groups_by_definition(channels):
    """32 groups where a group keeps at least 4 channels, else the most groups, below 32, that keep as many."""
    fitting = [g for g in range(1, 33) if channels % g == 0 and channels / g >= 4]
    return max(fitting, default=1)


def test_group_norm_follows_its_rule():
    widths = range(1, 600)
    assert {c: group_norm(c).num_groups for c in widths} == {c: groups_by_definition(c) for c in widths}


def test_groups_of_narrow_branches_are_the_largest_divisor_up_to_a_quarter():
    for channels in range(4, 128):
        wanted = max(g for g in range(1, channels + 1) if channels % g == 0 and g <= channels / 4)
        assert group_norm(channels).num_groups == wanted, channels


@pytest.mark.parametrize(("channels", "groups"), [(2, 1), (12, 3), (24, 6), (48, 12), (128, 32), (144, 24), (256, 32)])
def test_group_norm_of_usual_widths(channels, groups):
    norm = group_norm(channels)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


def test_conv_norm_has_no_bias_before_the_norm():
    conv, norm = conv_norm(3, 8, stride=2)
    assert conv.bias is None
    assert isinstance(norm, nn.GroupNorm)
    assert conv_norm(3, 8, stride=2)(torch.zeros(1, 3, 9, 12)).shape == (1, 8, 5, 6)


def gau_by_definition(weights, low, high, groups, align_corners):
    """`x = up(project(H)) + ReLU(conv1x1(mean(H))) * GN(conv3x3(L))`, then twice `ReLU(GN(conv3x3(x)))`."""

    def norm(x, name):
        parts = x.unflatten(1, (groups, -1))
        mean = parts.mean(dim=(2, 3, 4), keepdim=True)
        variance = parts.var(dim=(2, 3, 4), keepdim=True, unbiased=False)
        normed = ((parts - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return normed * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def conv(x, name, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)

    gate = conv(high.mean(dim=(2, 3), keepdim=True), "attend.1").clamp_min(0)
    up = F.interpolate(conv(high, "project"), size=low.shape[2:], mode="bilinear", align_corners=align_corners)
    x = up + gate * norm(conv(low, "low.0", 1), "low.1")
    x = norm(conv(x, "fuse.0.0", 1), "fuse.0.1").clamp_min(0)
    return norm(conv(x, "fuse.2.0", 1), "fuse.2.1").clamp_min(0)


def random_gau(width, align_corners=True, seed=0):
    torch.manual_seed(seed)
    gau = GAU(5, 6, width, align_corners=align_corners).double()
    for module in gau.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return gau


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize("sizes", [((9, 13), (5, 7)), ((8, 6), (8, 6)), ((7, 10), (1, 1))], ids=str)
@pytest.mark.parametrize("width", [8, 12])
def test_gau_equals_its_formula(width, sizes, align_corners):
    gau = random_gau(width, align_corners)
    low = torch.randn(2, 5, *sizes[0], dtype=torch.float64)
    high = torch.randn(2, 6, *sizes[1], dtype=torch.float64)
    with torch.no_grad():
        wanted = gau_by_definition(gau.state_dict(), low, high, groups_by_definition(width), align_corners)
        torch.testing.assert_close(gau(low, high), wanted, rtol=1e-9, atol=1e-9)


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


def test_all_but_gate_and_norms_is_local():
    # What exact sparse refinement rests on: three 3x3 convolutions reach three pixels far.
    gau = random_gau(8)
    gau.low[1] = gau.fuse[0][1] = gau.fuse[2][1] = nn.Identity()
    low, high = torch.randn(1, 5, 15, 17).double(), torch.randn(1, 6, 8, 9).double()
    changed = low.clone()
    changed[:, :, 7, 8] += 100
    with torch.no_grad():
        differ = (gau(low, high) != gau(changed, high)).any(dim=1)[0]
    reached = torch.zeros_like(differ)
    reached[4:11, 5:12] = True
    assert differ[7, 8]
    assert not (differ & ~reached).any()
