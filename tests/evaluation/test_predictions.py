"""Predictions in files: which belongs to which frame, and scores that are those of others for the same files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from errseg_rt.bundle.classes import CITYSCAPES, IGNORE
from errseg_rt.datasets import CityscapesData, LabelledFiles, LabelMap
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.datasets.pairing import pair_files
from errseg_rt.errors import DataError
from errseg_rt.evaluation.label_scores import LabelScores
from errseg_rt.evaluation.predictions import pair_predictions, score_predictions

SIZE = (21, 34)
SAVED = ["ulm/a_labels.png", "bonn/a_left_labels.png"]


def frames_of(root: Path, *names: str, end: str = "") -> LabelledFiles:
    """Frames by name, of random labels in 0..3 and void, with images whose names end so."""
    rng = np.random.default_rng(3)
    pairs = {}
    for name in names:
        image, label = root / "images" / f"{name}{end}.png", root / "labels" / f"{name}.png"
        truth = rng.integers(0, 5, SIZE).astype(np.uint8)
        for path, picture in ((image, np.zeros((*SIZE, 3), np.uint8)), (label, np.where(truth == 4, IGNORE, truth))):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture.astype(np.uint8))
        pairs[name] = (image, label)
    return LabelledFiles(pairs, LabelMap.of(4, ()))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (["ulm/a.png", "bonn/a.png"], ["ulm/a.png", "bonn/a.png"]),
        (["ulm/a_left.png", "bonn/a_left.PNG"], ["ulm/a_left.png", "bonn/a_left.PNG"]),
        (["ulm/a_labels.png", "ulm/a_error.png", "bonn/a_left_labels.png"], SAVED),
        (["ulm/a.png", "ulm/._a.png", "bonn/a.png", "other/a.png"], ["ulm/a.png", "bonn/a.png"]),
    ],
    ids=["names", "images", "as_segment_writes", "others"],
)  # fmt: skip
def test_a_prediction_lies_where_its_frame_does(tmp_path, there, wanted) -> None:
    frames = frames_of(tmp_path, "ulm/a", "bonn/a", end="_left")
    found = pair_predictions(frames, touch(tmp_path / "out", *there))
    assert found == [tmp_path / "out" / name for name in wanted]


@pytest.mark.parametrize(("ours", "theirs"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_are_one_letter_however_they_are_written(tmp_path, ours, theirs) -> None:
    names = ("Köln/é", "München/é")
    predictions = [f"{unicodedata.normalize(theirs, name)}_labels.png" for name in names]
    images, labels = (tmp_path / "data" / folder for folder in ("images", "labels"))
    for folder in (images, labels):
        touch(folder, *(f"{unicodedata.normalize(ours, name)}.png" for name in names))
    frames = LabelledFiles(pair_files(images, labels), LabelMap.of(4, ()))
    found = pair_predictions(frames, touch(tmp_path / "out", *predictions))
    assert found == [tmp_path / "out" / name for name in predictions]


def test_or_under_its_file_name_anywhere(tmp_path) -> None:
    frames = frames_of(tmp_path, "ulm/ulm_0", "bonn/bonn_0")
    found = pair_predictions(frames, touch(tmp_path / "out", "ulm_0.png", "deep/er/bonn_0_labels.png"))
    assert [path.name for path in found] == ["ulm_0.png", "bonn_0_labels.png"]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["ulm/a.png"], r"out: no prediction \(\.png\) for 1 of the 2 frames, first ulm/b"),
        ([], "for 2 of the 2 frames, first ulm/a"),
        (["ulm/a.png", "ulm/a_labels.png", "ulm/b.png"], r"a_labels\.png: is a prediction of frame ulm/a, as .*a\.png"),
        (["x/a.png", "y/a.png", "ulm/b.png"], r"y/a\.png: is a prediction of frame ulm/a, as .*x/a\.png is"),
    ],
    ids=["one", "none", "two", "two_elsewhere"],
)  # fmt: skip
def test_frames_without_one_prediction(tmp_path, there, message) -> None:
    frames = frames_of(tmp_path, "ulm/a", "ulm/b")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=message):
        pair_predictions(frames, touch(tmp_path / "out", *there))


def test_one_prediction_is_not_that_of_two_frames(tmp_path) -> None:
    frames = frames_of(tmp_path, "day1/f", "day2/f")
    with pytest.raises(DataError, match="1 predictions have the name of several frames"):
        pair_predictions(frames, touch(tmp_path / "out", "f.png"))


def test_no_folder(tmp_path) -> None:
    with pytest.raises(DataError, match="none: no such folder of predictions"):
        pair_predictions(frames_of(tmp_path, "a"), tmp_path / "none")


def test_scores_are_those_of_scikit_learn(tmp_path) -> None:
    """Void predictions are one more class there, which is left out of the mean."""
    names = ["a", "b", "c"]
    frames = frames_of(tmp_path, *names)
    rng, truths, labels = np.random.default_rng(4), [], []
    for index, name in enumerate(names):
        truth = frames[index][1]
        predicted = np.where(rng.random(SIZE) < 0.6, truth, rng.choice([0, 1, 2, 3, IGNORE], SIZE)).astype(np.uint8)
        (tmp_path / "out").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "out" / f"{name}.png"), predicted)
        truths.append(truth[truth != IGNORE])
        labels.append(predicted[truth != IGNORE])
    scores = LabelScores(4, boundary=True, void_labels=True)
    done = score_predictions(frames, pair_predictions(frames, tmp_path / "out"), LabelMap.of(4, ()), scores, "test")
    truth, predicted = np.concatenate(truths), np.concatenate(labels)
    assert (done.scored, done.failed) == ([0, 1, 2], {})
    assert (predicted == IGNORE).any()
    np.testing.assert_allclose(
        scores.confusion.iou(), jaccard_score(truth, predicted, labels=range(4), average=None), rtol=1e-12
    )
    assert scores.confusion.accuracy() == pytest.approx(accuracy_score(truth, predicted))
    assert scores.frames[:, 1].sum() == truth.size


def test_a_bad_prediction_does_not_end_the_rest(tmp_path) -> None:
    frames = frames_of(tmp_path, *"abcd")
    out = tmp_path / "out"
    out.mkdir()
    cv2.imwrite(str(out / "a.png"), np.zeros(SIZE, np.uint8))
    cv2.imwrite(str(out / "b.png"), np.zeros((3, 4), np.uint8))
    cv2.imwrite(str(out / "c.png"), np.full(SIZE, 4, np.uint8))
    (out / "d.png").write_bytes(b"no picture")
    scores = LabelScores(4, void_labels=True)
    done = score_predictions(frames, pair_predictions(frames, out), LabelMap.of(4, ()), scores, "test")
    assert done.scored == [0]
    assert "labels of 3x4 pixels, wanted 21x34" in done.failed["b"]
    assert "c.png: label ids [4] are neither classes nor void" in done.failed["c"]
    assert "d.png: labels are PNG" in done.failed["d"]


def test_scores_are_those_of_the_official_script(cityscapes, tmp_path, monkeypatch) -> None:
    """Real frames of Cityscapes: the prediction that the script finds for each, and its score of every class."""
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(tmp_path))
    script = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
        reason="needs cityscapesscripts, which is no dependency, as it brings a dozen packages along",
    )
    monkeypatch.setattr(script, "CSUPPORT", False)
    frames = CityscapesData(cityscapes, "train")
    rng, output = np.random.default_rng(5), OutputIds.open("labelIds", CITYSCAPES)
    for index, (image, _) in enumerate(frames.pairs):
        truth = frames[index][1]
        noise = rng.integers(0, len(CITYSCAPES), truth.shape)
        labels = np.where((rng.random(truth.shape) < 0.7) & (truth != IGNORE), truth, noise).astype(np.uint8)
        ids = output.of(labels)
        ids[rng.random(ids.shape) < 0.1] = 5  # ids that mean no class are wrong there, too
        cv2.imwrite(str(tmp_path / f"{image.stem}.png"), ids)
    (tmp_path / "summary.json").write_text("{}")
    script.args.predictionPath = script.args.predictionWalk = None
    script.args.evalInstLevelScore, script.args.JSONOutput, script.args.quiet = False, False, True
    truths = [str(label) for _, label in frames.pairs]
    found = [script.getPrediction(script.args, truth) for truth in truths]
    paths = pair_predictions(frames, tmp_path)
    assert [Path(path) for path in found] == paths
    wanted = script.evaluateImgLists(found, truths, script.args)
    scores = LabelScores(len(CITYSCAPES), void_labels=True)
    assert score_predictions(frames, paths, LabelMap.cityscapes(), scores, "test").failed == {}
    assert scores.confusion.miou() == pytest.approx(wanted["averageScoreClasses"], rel=1e-12)
    for name, iou in zip(CITYSCAPES.names, scores.confusion.iou().tolist(), strict=True):
        assert iou == pytest.approx(wanted["classScores"][name], rel=1e-12, nan_ok=True)
