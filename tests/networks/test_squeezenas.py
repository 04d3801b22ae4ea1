"""The semantic network: sizes of its taps, its pooling window, and its authors' figures where the weights are there."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.squeezenas import SqueezeNAS, _pool

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Pixel accuracy, and logits[0:3] at row 512, column 1024, of the authors' network on full-size frames.
FRAMES = {
    "aachen_000000_000019": (0.95997, (5.4194, 3.4573, -2.1740)),
    "aachen_000001_000019": (0.95469, (13.8271, 0.0547, 3.3267)),
    "aachen_000002_000019": (0.97010, (14.4872, 0.4852, 1.4971)),
    "aachen_000003_000019": (0.97171, (0.8406, 0.5677, -0.6442)),
}


def random_network(classes, seed=0):
    """In eval mode, with batch norms that are not the identity."""
    torch.manual_seed(seed)
    network = SqueezeNAS(classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return random_network(7)


@pytest.mark.parametrize("size", [(33, 65), (97, 129), (65, 17), (31, 50), (64, 128)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_taps_have_the_strides_and_channels_they_claim(network, size):
    with torch.no_grad():
        taps = network(torch.randn(2, 3, *size))
    channels = {"logits": 7, "low": 24, "mid": 32, "deep": 160, "high": 128}
    strides = {"logits": 8, "low": 4, "mid": 8, "deep": 16, "high": 16}
    for name, tap in taps._asdict().items():
        assert tuple(tap.shape) == (2, channels[name], *(-(-side // strides[name]) for side in size)), name
        assert tap.isfinite().all()
    for name in ("low", "mid", "deep", "high"):
        assert getattr(network, f"{name}_channels") == channels[name]


def test_parameter_count():
    assert sum(parameter.numel() for parameter in SqueezeNAS(19).parameters()) == 704_382


def test_blocks_add_their_input_where_stride_and_channels_allow(network):
    channels = [16, *(block.op[6].out_channels for block in network.encoder.residuals)]
    added = []
    for inputs, block in zip(channels, network.encoder.residuals, strict=False):
        x = torch.randn(1, inputs, 8, 8)
        with torch.no_grad():
            out, own = block(x), block.op(x)
        same_shape = out.shape == x.shape
        torch.testing.assert_close(out, x + own if same_shape else own, rtol=0, atol=0)
        added.append(same_shape)
    # Blocks 1, 5, 9 halve the map; 13 and 17 widen it.
    assert [index for index, is_added in enumerate(added) if not is_added] == [1, 5, 9, 13, 17]


@pytest.mark.parametrize("size", [(5, 9), (49, 20), (20, 80), (48, 50), (49, 49), (65, 129), (70, 110)], ids=str)
def test_pool_averages_windows_clamped_to_the_map(size):
    rows, cols = size
    x = torch.from_numpy(np.random.default_rng(rows * cols).standard_normal((2, 3, rows, cols))).float()
    tall, wide = min(49, rows), min(49, cols)
    tops, lefts = range(0, rows - tall + 1, 16), range(0, cols - wide + 1, 20)
    windows = [[x[..., t : t + tall, s : s + wide].double().mean(dim=(2, 3)) for s in lefts] for t in tops]
    wanted = torch.stack([torch.stack(row, dim=-1) for row in windows], dim=-2)
    pooled = _pool(x)
    assert pooled.shape == wanted.shape
    # A mean of up to 2401 float32 numbers of size 1.
    torch.testing.assert_close(pooled.double(), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled, nn.AvgPool2d((tall, wide), (16, 20))(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 9), (51, 70)], ids=["one_window", "two_windows_across"])
def test_head_is_the_gated_lite_aspp(network, size):
    head = network.decoder
    os16, os8 = torch.rand(1, 160, *size), torch.rand(1, 32, 2 * size[0] - 1, 2 * size[1])
    with torch.no_grad():
        logits, high = head(os8, os16)
        # TR runs on the small map here: a 1x1 convolution and bilinear enlarging commute.
        gate = nn.AvgPool2d([min(49, side) for side in size], (16, 20))(os16)
        gate = torch.sigmoid(F.conv2d(gate, head._1x1_BL.weight, head._1x1_BL.bias))
        gate = F.interpolate(gate, size=size, mode="bilinear", align_corners=False)
        wanted_high = head._1x1_TL.bn(F.conv2d(os16, head._1x1_TL.conv.weight)).relu() * gate
        top = F.conv2d(wanted_high, head._1x1_TR.weight, head._1x1_TR.bias)
        top = F.interpolate(top, size=os8.shape[2:], mode="bilinear", align_corners=False)
        wanted = top + F.conv2d(os8, head._1x1_BR.weight, head._1x1_BR.bias)
    torch.testing.assert_close(high, wanted_high, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    folder = os.environ.get("ERRSEG_WEIGHTS")
    if not folder:
        pytest.skip("$ERRSEG_WEIGHTS does not name a folder of weights")
    network = SqueezeNAS(19)
    weights = torch.load(Path(folder) / "squeezenas_mac_large_cityscapes.pth", weights_only=True)
    network.load_state_dict(weights, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", FRAMES)
def test_authors_weights_give_the_known_figures(trained, name):
    data = os.environ.get("ERRSEG_DATA")
    if not data:
        pytest.skip("$ERRSEG_DATA does not name a folder of data")
    accuracy, values = FRAMES[name]
    root = Path(data) / "cityscapes"
    frame = cv2.imread(str(root / "leftImg8bit/train/aachen" / f"{name}_leftImg8bit.png"))
    ids = cv2.imread(str(root / "gtFine/train/aachen" / f"{name}_gtFine_labelIds.png"), cv2.IMREAD_UNCHANGED)
    image = (frame[..., ::-1] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.inference_mode():
        logits = trained(torch.from_numpy(image.transpose(2, 0, 1)[None]).float()).logits
        full = F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=True)[0]
        labels = np.array(CITYSCAPES_IDS)[full.argmax(0).numpy()]
    valid = np.isin(ids, CITYSCAPES_IDS)
    # The figures are rounded to five and four decimals.
    assert (labels == ids)[valid].mean() == pytest.approx(accuracy, abs=1e-4)
    np.testing.assert_allclose(full[:3, 512, 1024].numpy(), values, rtol=0, atol=1e-3)
