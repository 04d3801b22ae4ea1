"""`errseg-rt calibrate`: what it reports, and the bundle that it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.export.model_card import model_card
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene

FRAMES = 10


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Rendered frames of a street."""
    folder, scene = tmp_path_factory.mktemp("street"), StreetScene(seed=11, height=96, width=128)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(FRAMES):
        rendered = scene.frame(10 * index)
        cv2.imwrite(str(folder / "images" / f"f{index}.png"), rendered.frame)
        cv2.imwrite(str(folder / "labels" / f"f{index}.png"), rendered.labels)
    return folder


@pytest.fixture(scope="module")
def evaluation(data: Path, runtime: Runtime) -> Evaluation:
    """The same frames, counted here."""
    evaluation = Evaluation(11, runtime.threshold)
    for path in sorted((data / "images").iterdir()):
        truth = cv2.imread(str(data / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        evaluation.add(truth, runtime.branches(cv2.imread(str(path))))
    return evaluation


def test_reports_and_leaves_the_bundle_alone(cli, data: Path, tmp_path: Path) -> None:
    embedded = files_of(Bundle.open("camvid").folder)
    file = tmp_path / "report.json"
    done = cli("calibrate", "camvid", "--data", data, "--threads", "1", "--json", file)
    assert (done.code, done.err) == (0, "")
    report = json.loads(file.read_text())
    assert (report["frames"], report["failed"], report["bundle"]["name"]) == (FRAMES, {}, "camvid")
    for scores in (report["calibration"]["old"], report["calibration"]["new"]):
        assert 0 < scores["ece"] < 1
        assert 0 < scores["brier"] < 1
    assert set(report["calibration"]["baselines"]) == {"max_softmax", "entropy", "margin"}
    assert len(report["thresholds"]) == 9
    assert report["calibration"]["is_better"] is True
    of_detail = report["detail_calibration"]
    assert 0 < of_detail["old"]["brier"] < 1
    # Few small pixels are flagged: whether so many frames make a better map of them is for the report to say.
    assert of_detail["is_better"] == all(of_detail["new"][key] < of_detail["old"][key] for key in ("ece", "brier"))
    assert len(report["notes"]) == (not of_detail["is_better"])
    for text in (
        "P_ep, the bundle's map",
        "margin, a new map",
        "labels given again, by 1 - max P_db",
        "Thresholds on P_ep",
        f"{FRAMES} frames",
    ):
        assert text in done.out
    assert files_of(Bundle.open("camvid").folder) == embedded
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_few_frames_are_said_to_be_few(cli, data: Path, tmp_path: Path) -> None:
    """The bundle is written; what a map of so few frames is worth is not known, and not made up."""
    for name in ("images", "labels"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for index in range(FRAMES - 1):
            (tmp_path / "few" / name / f"f{index}.png").write_bytes((data / name / f"f{index}.png").read_bytes())
    file, out = tmp_path / "report.json", tmp_path / "mine"
    done = cli("calibrate", "camvid", "--data", tmp_path / "few", "--threads", "1", "--json", file, "-o", out)
    assert (done.code, done.err) == (0, "")
    report = json.loads(file.read_text())
    unknown = {"ece": None, "brier": None}
    assert (report["calibration"]["new"], report["calibration"]["baselines"]["margin"]) == (unknown, unknown)
    assert report["calibration"]["old"]["ece"] > 0
    assert report["calibration"]["is_better"] is report["detail_calibration"]["is_better"] is None
    (note,) = report["notes"]
    assert note in done.out
    assert f"{FRAMES - 1}, too few for the map, t and budget to mean much; give {FRAMES} or more" in note
    assert next(line for line in done.out.splitlines() if "P_ep, a new map" in line).count(" - ") == 2
    assert Bundle.open(out).manifest.calibration != Bundle.open("camvid").manifest.calibration


def test_writes_a_bundle_with_new_maps(cli, data: Path, tmp_path: Path, evaluation: Evaluation) -> None:
    out = tmp_path / "mine"
    done = cli("calibrate", "camvid", "--data", data, "--threads", "1", "-o", out)
    assert (done.code, done.err) == (0, "")
    old, new = Bundle.open("camvid"), Bundle.open(out)
    maps = evaluation.calibrations()
    assert new.manifest.detail_calibration in (maps.pop("detail"), old.manifest.detail_calibration)
    assert new.manifest.calibration == maps.pop("p_ep")
    assert new.manifest.baseline_calibrations == maps
    assert (new.manifest.name, new.manifest.threshold) == ("mine", old.manifest.threshold)
    assert f"{FRAMES} frames of {data.name}" in new.manifest.provenance["calibration"]
    assert new.manifest.files.keys() == old.manifest.files.keys() >= {"graphs/front.onnx", "weights.safetensors"}
    for name in old.manifest.files:
        if name != "MODEL_CARD.md":
            assert new.read(name) == old.read(name)
    assert new.read("MODEL_CARD.md").decode() == model_card(new.manifest)
    frame = cv2.imread(str(data / "images" / "f0.png"))
    with Runtime(out, threads=1) as runtime, Runtime(threads=1) as before:
        np.testing.assert_array_equal(runtime.segment(frame).labels, before.segment(frame).labels)
        assert (runtime.segment(frame).error_probability != before.segment(frame).error_probability).any()


def test_a_map_that_is_no_better_is_not_proposed(cli, data: Path, tmp_path: Path) -> None:
    """Of a bundle that was calibrated on these very frames no new map is better, where it has not seen them."""
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "report.json"
    cli("calibrate", "camvid", "--data", data, "--threads", "1", "-o", first)
    done = cli("calibrate", first, "--data", data, "--threads", "1", "-o", second, "--json", file)
    assert (done.code, done.err) == (0, "")
    report, old, new = json.loads(file.read_text()), Bundle.open(first).manifest, Bundle.open(second).manifest
    calibration = report["calibration"]
    assert any(calibration["new"][key] >= calibration["old"][key] for key in ("ece", "brier"))
    assert calibration["is_better"] is False
    assert report["detail_calibration"]["is_better"] is False
    for note in report["notes"]:
        assert "none is proposed, and a new bundle keeps the old one" in note
        assert note in done.out
    assert len(report["notes"]) == 2
    assert "the bundle with its old calibration" in done.out
    assert (new.name, new.calibration, new.provenance) == ("second", old.calibration, old.provenance)
    assert new.detail_calibration == old.detail_calibration


def test_a_bundle_of_before_gets_a_map_of_the_labels_given_again(
    cli, data: Path, tmp_path: Path, bundle_copy: Path, evaluation: Evaluation
) -> None:
    """Its map of P_ep says that all that is flagged is right, which is easy to better."""
    manifest = json.loads((bundle_copy / "manifest.json").read_text()) | {"format_version": 4}
    del manifest["detail_calibration"]
    manifest["calibration"] = {"logits": [0.0], "probabilities": [0.0]}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    out, file = tmp_path / "mine", tmp_path / "report.json"
    done = cli("calibrate", bundle_copy, "--data", data, "--threads", "1", "-o", out, "--json", file)
    assert (done.code, done.err) == (0, "")
    new, report = Bundle.open(out).manifest, json.loads(file.read_text())
    assert report["detail_calibration"]["is_better"] is True
    assert new.detail_calibration == evaluation.calibrations()["detail"]
    assert f"{FRAMES} frames of {data.name}" in new.provenance["detail_calibration"]


def test_the_new_bundle_is_calibrated_on_its_frames(cli, data: Path, tmp_path: Path) -> None:
    cli("calibrate", "camvid", "--data", data, "--threads", "1", "-o", tmp_path / "mine")
    found = {}
    for name, bundle in (("old", "camvid"), ("new", tmp_path / "mine")):
        done = cli("evaluate", bundle, "--data", data, "--threads", "1", "--json", tmp_path / f"{name}.json")
        assert done.code == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())["errors"]
    assert found["new"]["ece"] < min(0.01, found["old"]["ece"])
    assert found["new"]["brier"] < found["old"]["brier"]
    assert found["new"]["auroc"] == found["old"]["auroc"]
    assert max(scores["ece"] for scores in found["new"]["baselines"].values()) < 0.01


def test_the_proposed_threshold_is_saved_where_it_is_asked_for(cli, data: Path, tmp_path: Path, bundle_copy) -> None:
    out, file, before = tmp_path / "mine", tmp_path / "report.json", bundle_copy / "manifest.json"
    before.write_text(json.dumps(json.loads(before.read_text()) | {"threshold": 0.35}))  # which is never proposed
    done = cli(
        "calibrate", bundle_copy, "--data", data, "--threads", "1", "-o", out, "--save-threshold", "--json", file
    )
    assert done.code == 0
    proposal, manifest = json.loads(file.read_text())["proposal"], Bundle.open(out).manifest
    assert proposal
    assert manifest.detail_threshold == 0.35  # that of either map
    assert manifest.threshold == proposal["t"]
    assert manifest.lowest_threshold == 0.1
    assert f"t = {proposal['t']}" in done.out


def test_a_threshold_is_saved_in_a_bundle_or_not_at_all(cli, data: Path) -> None:
    done = cli("calibrate", "camvid", "--data", data, "--save-threshold")
    assert done.code == 2
    assert "is for a new bundle: give --out" in done.err


def test_labels_that_do_not_fit_are_doubted(cli, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "one")
    for path in (tmp_path / "one" / "labels").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 255, 0, labels + 1).astype(np.uint8))
    done = cli("calibrate", "camvid", "--data", tmp_path / "one", "--threads", "1")
    assert done.code == 0
    assert done.err.startswith("warning: only ")
    assert done.err.endswith("if ids are counted from 1: give --first-id 1\n")


def test_the_bundle_is_never_written_over(cli, data: Path, bundle_copy: Path) -> None:
    before = files_of(bundle_copy)
    done = cli("calibrate", bundle_copy, "--data", data, "--threads", "1", "-o", bundle_copy)
    assert done.code == 2
    assert "is the bundle that is calibrated; give another folder" in done.err
    assert files_of(bundle_copy) == before


def test_a_folder_of_something_else_is_kept(cli, data: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("errseg_rt.evaluation.run.evaluate_frames", None)  # refused before a frame is looked at
    done = cli("calibrate", "camvid", "--data", data, "--threads", "1", "-o", tmp_path)
    assert done.code == 2
    assert "exists and is not a bundle" in done.err
    assert files_of(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("labels", [b"no picture", None], ids=["unreadable", "void"])
def test_nothing_to_calibrate_on(cli, data: Path, tmp_path: Path, labels) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "a.png").write_bytes((data / "images" / "f0.png").read_bytes())
    void = cv2.imencode(".png", np.full((96, 128), 255, np.uint8))[1].tobytes()
    (tmp_path / "labels" / "a.png").write_bytes(labels or void)
    done = cli("calibrate", "camvid", "--data", tmp_path, "--threads", "1", "-o", tmp_path / "out")
    assert done.code == 2
    assert ("a.png: labels are PNG, this is no image" if labels else "no pixel has a true label") in done.err
    assert not (tmp_path / "out").exists()
