"""EfficientViT-B0: attention against its definition, published figures, its authors' where the weights are there."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from errseg_rt.networks.efficientvit import _EPS, EfficientViT, _LinearAttention
from errseg_rt.scenes import StreetScene

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ACCURACY = {0: 0.9635, 1: 0.9629, 2: 0.9790, 3: 0.9820}  # of the authors' network, on full-size frames of Aachen


@pytest.fixture(scope="module")
def network(random_norms):
    torch.manual_seed(0)
    return random_norms(EfficientViT(7))


def normalised(frame):
    image = (frame[..., ::-1] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(image.transpose(2, 0, 1)[None]).float()


@pytest.mark.parametrize("size", [(64, 96), (33, 65), (31, 50)], ids=str)
@torch.no_grad()
def test_taps_have_the_strides_and_channels_they_claim(network, size):
    taps = network(torch.randn(2, 3, *size))
    channels = {"logits": 7, "low": 16, "mid": 32, "deep": 64, "high": 128}
    strides = {"logits": 8, "low": 4, "mid": 8, "deep": 16, "high": 16}
    for name, tap in taps._asdict().items():
        assert tuple(tap.shape) == (2, channels[name], *(-(-side // strides[name]) for side in size)), name
        assert tap.isfinite().all()


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (4, 9)], ids=str)
@torch.no_grad()
def test_attention_is_that_of_every_pixel_to_every_other(size):
    torch.manual_seed(1)
    attention = _LinearAttention(32).eval()
    x = torch.randn(2, 32, *size)
    qkv = attention.main["qkv"](x)
    both = torch.cat([qkv, attention.main["aggreg"][0](qkv)], dim=1).double().flatten(2)
    heads = []
    for channels in both.split(48, dim=1):
        query, key, value = channels[:, :16].relu(), channels[:, 16:32].relu(), channels[:, 32:]
        weights = torch.einsum("bci,bcj->bij", query, key)  # of pixel j, for pixel i
        total = weights.sum(dim=2, keepdim=True) + _EPS
        heads.append(torch.einsum("bij,bcj->bci", weights / total, value))
    wanted = x + attention.main["proj"](torch.cat(heads, dim=1).reshape(2, 64, *size).float())
    torch.testing.assert_close(attention(x), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_sums_in_float32_under_autocast(network):
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 64, 96))).float()
    wanted = network(image).logits
    with torch.autocast("cpu", torch.bfloat16):
        seen = []
        hook = network.backbone.stages[3].op_list[2].context_module.register_forward_hook(lambda *_: seen.append(1))
        found = network(image).logits
        hook.remove()
    assert seen
    assert found.isfinite().all()
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.9  # bfloat16 has eight bits


def test_published_size_and_work(on_meta, multiply_adds):
    """Cai et al., ICCV 2023, table 3: 0.7 M parameters, 4.4 G multiply-adds at 1024x2048."""
    network = on_meta(EfficientViT, 19)
    assert sum(parameter.numel() for parameter in network.parameters()) == 706_691
    # Attention's two products are counted here, which tables of this kind leave out or not.
    assert multiply_adds(network, 1024, 2048)[0] == pytest.approx(4.4, abs=0.2)


@pytest.fixture(scope="module")
def engine(network, exported):
    return exported(network)


@pytest.mark.parametrize("size", [(96, 160), (64, 224)], ids=str)
def test_exported_with_dynamic_sizes_it_gives_the_same(network, engine, size):
    image = normalised(StreetScene(3, height=96, width=224).frame(0).frame[: size[0], : size[1]])
    with torch.no_grad():
        wanted = network(image)
    found = engine.run({"image": image.numpy()})
    for name, tap in wanted._asdict().items():
        np.testing.assert_allclose(found[name], tap, rtol=0, atol=1e-4 * tap.abs().max(), err_msg=name)
    both = (torch.as_tensor(logits) for logits in (wanted.logits, found["logits"]))
    labels = [F.interpolate(logits, size=size, mode="bilinear")[0].argmax(0) for logits in both]
    assert (labels[0] == labels[1]).float().mean() >= 0.9999


@pytest.fixture(scope="module")
def trained():
    folder = os.environ.get("ERRSEG_WEIGHTS")
    path = Path(folder or "") / "efficientvit_b0_cityscapes" / "cityscapes_b0.pt"
    if not folder or not path.exists():
        pytest.skip("$ERRSEG_WEIGHTS does not name a folder with efficientvit_b0_cityscapes/cityscapes_b0.pt")
    network = EfficientViT(19)
    network.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    return network.eval()


@pytest.mark.parametrize("number", ACCURACY)
def test_authors_weights_give_the_known_accuracy(trained, number):
    if not (data := os.environ.get("ERRSEG_DATA")):
        pytest.skip("$ERRSEG_DATA does not name a folder of data")
    root, name = Path(data) / "cityscapes", f"aachen_{number:06d}_000019"
    frame = cv2.imread(str(root / "leftImg8bit/train/aachen" / f"{name}_leftImg8bit.png"))
    ids = cv2.imread(str(root / "gtFine/train/aachen" / f"{name}_gtFine_labelIds.png"), cv2.IMREAD_UNCHANGED)
    with torch.inference_mode():
        logits = trained(normalised(frame)).logits
        full = F.interpolate(logits, size=ids.shape, mode="bilinear", align_corners=False)[0]
    labels = np.array(CITYSCAPES_IDS)[full.argmax(0).numpy()]
    valid = np.isin(ids, CITYSCAPES_IDS)
    assert (labels == ids)[valid].mean() == pytest.approx(ACCURACY[number], abs=1e-4)  # rounded to four decimals
