"""Networks as users bring them: those of the benchmark are what was published."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.user_networks import retina, twinlitenet, wnet
from benchmarks.user_networks.export import export


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_the_published_counts() -> None:
    assert parameters(wnet.WNet()) == 68_482
    assert parameters(twinlitenet.TwinLiteNet()) == 439_633


@pytest.mark.parametrize(
    ("network", "size", "shapes"),
    [(wnet.WNet, (36, 44), [(1, 36, 44)]), (twinlitenet.TwinLiteNet, (40, 72), [(2, 40, 72)] * 2)],
    ids=["wnet", "twinlitenet"],
)
def test_outputs_have_the_images_size(network, size, shapes) -> None:
    with torch.no_grad():
        outputs = network().eval()(torch.rand(1, 3, *size))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(output.shape[1:]) for output in outputs] == shapes


def test_a_drawn_retina_is_the_same_for_the_same_seed_and_has_vessels_inside() -> None:
    first, again, other = retina.draw(3, 160), retina.draw(3, 160), retina.draw(4, 160)
    np.testing.assert_array_equal(first.frame, again.frame)
    assert (first.vessels != other.vessels).any()
    assert first.frame.shape == (160, 160, 3)
    assert 0.02 < first.vessels[first.inside].mean() < 0.2
    assert not first.vessels[~first.inside].any()


def published(name: str) -> Path:
    folder = os.environ.get("ERRSEG_WEIGHTS")
    if folder is None:
        pytest.skip("ERRSEG_WEIGHTS names no folder of published weights")
    return Path(folder) / name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_onnx_file_gives_what_torch_gives(tmp_path: Path, sigmoid: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    weights = published("wnet_retina_drive/model_checkpoint.pth")
    export("wnet", weights, tmp_path / "wnet.onnx", sigmoid=sigmoid, dynamic=True)
    image = torch.rand(1, 3, 68, 76)
    (ours,) = onnxruntime.InferenceSession(tmp_path / "wnet.onnx").run(None, {"image": image.numpy()})
    with torch.no_grad():
        logits = wnet.load(str(weights))(image)
    torch.testing.assert_close(torch.from_numpy(ours), logits.sigmoid() if sigmoid else logits, rtol=1e-4, atol=1e-4)


def test_drawn_vessels_are_found() -> None:
    network, drawn = wnet.load(str(published("wnet_retina_drive/model_checkpoint.pth"))), retina.draw(0)
    image = torch.from_numpy(np.ascontiguousarray(drawn.frame[..., ::-1])).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        found = (network(image)[0, 0] > 0).numpy()
    assert (found == drawn.vessels)[drawn.inside].mean() > 0.94


def test_lanes_and_drivable_area_as_published() -> None:
    """On four frames, drivable against road: IoU 0.851."""
    network = twinlitenet.load(str(published("twinlitenet_bdd100k/best.pth")))
    data = Path(os.environ.get("ERRSEG_DATA", "nowhere")) / "cityscapes"
    frames = sorted(data.glob("leftImg8bit/train/*/*.png"))
    if not frames:
        pytest.skip("ERRSEG_DATA names no folder with cityscapes/")
    both = either = 0
    for path in frames:
        image = cv2.resize(np.asarray(Image.open(path)), (640, 360), interpolation=cv2.INTER_LINEAR)
        with torch.no_grad():
            drivable, _ = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
        ids = cv2.imread(str(path).replace("leftImg8bit", "gtFine").replace("_gtFine.png", "_gtFine_labelIds.png"), -1)
        full = torch.nn.functional.interpolate(drivable, size=ids.shape, mode="bilinear")
        counted = np.isin(ids, [7, 8, *range(11, 14), 17, *range(19, 29), 31, 32, 33])
        found, road = full.argmax(1)[0].numpy().astype(bool) & counted, ids == 7
        both, either = both + (found & road).sum(), either + (found | road).sum()
    assert both / either == pytest.approx(0.851, abs=0.002)
