"""The embedded bundles: their terms, their size, and that they are what their model cards say."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load

from errseg_rt.bundle.bundle import MANIFEST, Bundle, zoo_names
from errseg_rt.bundle.classes import CAMVID, CITYSCAPES
from errseg_rt.datasets import CityscapesData, open_dataset
from errseg_rt.datasets.merge import Merge
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.labels import native_labels
from errseg_rt.export.model_card import model_card
from errseg_rt.runtime import Runtime

MOST_BYTES = {"camvid": 8_000_000, "cityscapes": 8_000_000, "nuclei": 4_000_000}
MIT = "Copyright (c) 2019 Albert Shaw, Daniel Hunter, Forrest Iandola, Sammy Sidhu"


def test_there_are_three():
    assert zoo_names() == sorted(MOST_BYTES)
    camvid, cityscapes, nuclei = (Bundle.open(name).manifest for name in zoo_names())
    assert (camvid.classes, cityscapes.classes) == (CAMVID, CITYSCAPES)
    assert nuclei.classes.names == ("background", "nucleus")
    assert nuclei.instances is not None
    assert nuclei.instances.classes == (1,)


@pytest.mark.parametrize("name", zoo_names())
def test_terms_and_size(name):
    bundle = Bundle.open(name)
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(bundle.folder).as_posix() for path in files} == {MANIFEST, *bundle.manifest.files}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES[name]
    assert bundle.read("MODEL_CARD.md").decode() == model_card(bundle.manifest)
    terms = bundle.read("LICENSE.md").decode()
    assert f"# Terms of the bundle `{name}`" in terms
    if name == "nuclei":
        assert "for any purpose" in terms
        assert "CC0 1.0" in terms
        return
    assert "for research only" in terms
    # The initial weights' own licence wants its notice beside them.
    assert MIT in terms
    assert "THE SOFTWARE IS PROVIDED" in terms


def test_the_semantic_branch_of_cityscapes_is_its_authors():
    folder = os.environ.get("ERRSEG_WEIGHTS")
    path = Path(folder or "nowhere") / "squeezenas_mac_large_cityscapes.pth"
    if not path.is_file():
        pytest.skip("needs the weights of SqueezeNAS: ERRSEG_WEIGHTS names no folder with them")
    torch = pytest.importorskip("torch")
    theirs = torch.load(path, weights_only=True)
    ours = load(Bundle.open("cityscapes").read("weights.safetensors"))
    assert {name.removeprefix("semantic.") for name in ours if name.startswith("semantic.")} == set(theirs)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[f"semantic.{name}"], tensor.numpy())


@pytest.fixture(scope="module")
def runtime():
    with Runtime("cityscapes") as opened:
        yield opened


def test_a_frame_of_cityscapes_is_labelled_as_its_authors_network_labels_it(runtime, cityscapes):
    """The frame is the input, and the logits go to its size as the authors' do; known for their weights: 0.97010."""
    frame, truth = CityscapesData(cityscapes, "train")[2]
    branches = runtime.branches(frame)
    assert branches.geometry.input_size == (1024, 2048)
    right = native_labels(branches)[truth != 255] == truth[truth != 255]
    assert right.mean() == pytest.approx(0.97010, abs=0.002)


def test_errors_are_foretold_better_than_by_max_softmax(runtime, camvid_val):
    merge = Merge.open("camvid", CITYSCAPES)
    frames = open_dataset(camvid_val, merge.coarse, void=[11])
    evaluation = Evaluation(len(merge.coarse), runtime.threshold, coarse=merge.to_coarse)
    for index in range(3, len(frames), 25):
        frame, truth = frames[index]
        evaluation.add(truth, runtime.branches(frame))
    errors = evaluation.to_dict(merge.coarse)["errors"]
    assert errors["aupr"] >= 1.1 * errors["baselines"]["max_softmax"]["aupr"]


def test_drawn_nuclei_that_touch_are_told_apart():
    rng, true = np.random.default_rng(0), np.zeros((256, 256), np.int32)
    centers = [(40, 50), (40, 110), (40, 180), (110, 60), (110, 90), (110, 200), (190, 40), (190, 120), (190, 200)]
    for number, (row, column) in enumerate(centers, 1):  # the fourth and the fifth touch
        drawn = cv2.ellipse(np.zeros((256, 256), np.uint8), (column, row), (15, 13), 20 * number, 0, 360, 1, -1)
        true[drawn == 1] = number
    light = cv2.GaussianBlur(np.where(true > 0, np.float32(70), 0), (0, 0), 1.2) + 10 + rng.normal(0, 3, true.shape)
    frame = np.repeat(np.clip(light, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    with Runtime("nuclei") as runtime:
        found = runtime.segment(frame).instances
    assert len(found) == len(centers)
    for number in range(1, len(centers) + 1):
        place = np.bincount(found.map[true == number], minlength=len(found) + 1)[1:].argmax() + 1
        mine, theirs = found.map == place, true == number
        assert (mine & theirs).sum() > 0.8 * (mine | theirs).sum()
