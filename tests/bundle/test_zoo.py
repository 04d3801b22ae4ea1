"""The embedded bundles: their terms, their size, and that they are what their model cards say."""

from __future__ import annotations

import os
from pathlib import Path

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

MOST_BYTES = 8_000_000
MIT = "Copyright (c) 2019 Albert Shaw, Daniel Hunter, Forrest Iandola, Sammy Sidhu"


def test_there_are_two():
    assert zoo_names() == ["camvid", "cityscapes"]
    classes = [Bundle.open(name).manifest.classes for name in zoo_names()]
    assert classes == [CAMVID, CITYSCAPES]


@pytest.mark.parametrize("name", zoo_names())
def test_terms_and_size(name):
    bundle = Bundle.open(name)
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(bundle.folder).as_posix() for path in files} == {MANIFEST, *bundle.manifest.files}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    terms = bundle.read("LICENSE.md").decode()
    assert f"# Terms of the bundle `{name}`" in terms
    assert "for research only" in terms
    # The initial weights' own licence wants its notice beside them.
    assert MIT in terms
    assert "THE SOFTWARE IS PROVIDED" in terms
    assert bundle.read("MODEL_CARD.md").decode() == model_card(bundle.manifest)


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
