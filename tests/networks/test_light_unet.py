"""The light U-Net: strides, size, locality of what it learns, and what an export of it gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from errseg_rt.networks.light_unet import LightUNet


@pytest.mark.parametrize("size", [(256, 256), (50, 97), (16, 16)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_taps_have_the_strides_and_channels_they_claim(on_meta, size):
    network = on_meta(LightUNet, 3)
    taps = network(torch.empty(2, 3, *size, device="meta"))
    assert sum(parameter.numel() for parameter in network.parameters()) < 0.3e6
    for tap, stride, channels in zip(taps, (2, 2, 4, 8, 8), (3, 24, 32, 64, 64), strict=True):
        assert tuple(tap.shape) == (2, channels, *(-(-side // stride) for side in size))


def test_gradients_reach_every_parameter(random_norms):
    network = random_norms(LightUNet(3))
    network(torch.randn(1, 3, 48, 64)).logits.square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_exported_it_gives_the_same_at_any_size(random_norms, exported):
    network = random_norms(LightUNet(3))
    engine = exported(network)
    for size in ((1, 64, 96), (2, 50, 129), (1, 33, 24)):
        image = torch.randn(size[0], 3, *size[1:])
        found = engine.run({"image": image.numpy()})
        with torch.no_grad():
            wanted = network(image)._asdict()
        for name, tap in wanted.items():
            np.testing.assert_allclose(found[name], tap.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
