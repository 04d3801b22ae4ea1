"""Multi-view testing, against its definition: each view's probabilities, one after the other, and their mean."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.light_unet import LightUNet
from errseg_rt.networks.multi_view import multi_view


@pytest.fixture(scope="module")
def network(random_norms):
    return random_norms(LightUNet(3))


def seen(network, image, size, *, mirrored):
    columns = torch.arange(image.shape[3]).flip(0) if mirrored else torch.arange(image.shape[3])
    view = F.interpolate(image[..., columns], size=size, mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = F.interpolate(network(view).logits, size=image.shape[2:], mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)[..., columns]


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
def test_it_is_the_mean_over_views(network, mirror):
    image, sizes = torch.randn(2, 3, 32, 48), [(16, 32), (32, 48), (48, 80)]
    found = multi_view(network, image, sizes, mirror=mirror)
    views = [seen(network, image, size, mirrored=m) for size in sizes for m in (False, True)[: 1 + mirror]]
    torch.testing.assert_close(found, torch.stack(views).mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 32, 48), rtol=1e-5, atol=1e-5)


def test_one_view_of_the_images_size_is_the_network_itself(network):
    image = torch.randn(1, 3, 32, 32)
    wanted = seen(network, image, (32, 32), mirrored=False)
    torch.testing.assert_close(multi_view(network, image, [(32, 32)], mirror=False), wanted, rtol=1e-6, atol=1e-6)


def test_mirrored_views_see_mirrored_images_alike(network):
    image = torch.randn(1, 3, 32, 32)
    found = multi_view(network, image.flip(3), [(32, 32), (48, 48)])
    torch.testing.assert_close(found.flip(3), multi_view(network, image, [(32, 32), (48, 48)]), rtol=1e-5, atol=1e-6)


def test_no_view_is_refused(network):
    with pytest.raises(ValueError, match="wants one size or more, got none"):
        multi_view(network, torch.zeros(1, 3, 32, 32), [])
