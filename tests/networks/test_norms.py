"""Norms: how GroupNorm is grouped, and what it becomes when it is frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.norms import FrozenNorm, freeze_norms, group_norm, norm


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
    made = norm(channels, frozen=False)
    assert (made.num_groups, made.num_channels) == (groups, channels)


def filled(layer, seed=0):
    """The layer with random weights, and random statistics where it keeps any."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.uniform_(0.5, 1.5, generator=generator)
    return layer


def test_frozen_norm_is_an_affine_map_of_each_channel():
    frozen = filled(norm(6, frozen=True).double())
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    scale = frozen.weight / (frozen.var + 1e-5).sqrt()
    wanted = x * scale[:, None, None] + (frozen.bias - frozen.mean * scale)[:, None, None]
    torch.testing.assert_close(frozen(x), wanted, rtol=1e-12, atol=1e-12)


def test_frozen_norm_folds_into_the_convolution_before_it():
    conv, frozen = nn.Conv2d(3, 6, 3, padding=1, bias=False).double(), filled(norm(6, frozen=True).double())
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    scale = frozen.weight / (frozen.var + frozen.eps).sqrt()
    folded = F.conv2d(x, conv.weight * scale[:, None, None, None], frozen.bias - frozen.mean * scale, padding=1)
    torch.testing.assert_close(frozen(conv(x)), folded, rtol=1e-10, atol=1e-10)


def test_learning_moves_its_weights_and_not_its_statistics():
    frozen = filled(norm(6, frozen=True)).train()
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    optimizer = torch.optim.SGD(frozen.parameters(), lr=0.1)
    frozen(torch.randn(4, 6, 5, 7)).square().sum().backward()
    optimizer.step()
    moved = {name for name, tensor in frozen.state_dict().items() if (tensor != before[name]).any()}
    assert moved == {"weight", "bias"}


class Nested(nn.Module):
    """Two norms, one of them in a child, of inputs that differ."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 12, 1), filled(group_norm(12)))
        self.outer = filled(group_norm(12), seed=1)

    def forward(self, x):
        return self.outer(self.inner(x).relu())


@pytest.mark.parametrize("size", [(9, 13), (1, 5)], ids=str)
def test_frozen_on_one_image_it_still_is_its_group_norm_there(size):
    image = torch.randn(1, 3, *size)
    branch = Nested()
    wanted = branch(image)
    other = branch(image + torch.randn(1, 3, *size))
    freeze_norms(branch, lambda: branch(image))
    torch.testing.assert_close(branch(image), wanted, rtol=1e-4, atol=1e-5)
    assert [type(module) for module in (branch.inner[1], branch.outer)] == [FrozenNorm, FrozenNorm]
    assert not torch.allclose(other, wanted, atol=0.1)


def test_statistics_are_the_mean_over_the_images():
    # Batches of two sizes and lengths: every image counts once, however many pixels it has.
    batches = [torch.randn(2, 3, 4, 6) * 3 + 1, torch.randn(1, 3, 5, 3)]
    branch = Nested()
    with torch.no_grad():
        seen = [image.double().numpy() for batch in batches for image in branch.inner[0](batch)]
    groups = [image.reshape(3, -1) for image in seen]  # 12 channels: 3 groups of 4
    means, variances = (np.mean([getattr(group, what)(axis=1) for group in groups], axis=0) for what in ("mean", "var"))
    freeze_norms(branch, lambda: [branch(batch) for batch in batches])
    frozen = branch.inner[1]
    np.testing.assert_allclose(frozen.mean.numpy(), means.repeat(4), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(frozen.var.numpy(), variances.repeat(4), rtol=1e-5, atol=1e-6)


def test_weights_stay_and_learn_on():
    branch = Nested()
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    freeze_norms(branch, lambda: branch(torch.randn(1, 3, 5, 5)))
    after = branch.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    assert after.keys() - before.keys() == {f"{at}.{what}" for at in ("inner.1", "outer") for what in ("mean", "var")}
    branch(torch.randn(1, 3, 5, 5)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in branch.parameters())


def test_a_norm_that_nothing_passed_through_is_named():
    branch = Nested()
    with pytest.raises(ValueError, match=r"nothing passed through the norm outer, so that it has no statistics"):
        freeze_norms(branch, lambda: branch.inner(torch.randn(1, 3, 5, 5)))


def test_a_failed_run_leaves_the_branch_as_it_was():
    branch = Nested()

    def fail():
        branch(torch.randn(1, 3, 5, 5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        freeze_norms(branch, fail)
    assert isinstance(branch.outer, nn.GroupNorm)
    assert not any(module._forward_hooks for module in branch.modules())
