"""`errseg-rt evaluate`: its figures, its files, and frames that cannot be scored."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.places.driver import gpu_name
from errseg_rt.runtime import Runtime

VOID = 11


@pytest.fixture(scope="module")
def data(tmp_path_factory, scene) -> Path:
    """Three rendered frames in the layout of CamVid, with void as CamVid writes it."""
    folder = tmp_path_factory.mktemp("street")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(3):
        rendered = scene.frame(5 * index)
        labels = rendered.labels.copy()
        labels[labels == 255] = VOID
        labels[:4] = VOID
        cv2.imwrite(str(folder / "images" / f"f{index}.png"), rendered.frame)
        cv2.imwrite(str(folder / "labels" / f"f{index}.png"), labels)
    return folder


def pairs(folder: Path):
    for path in sorted((folder / "images").iterdir()):
        truth = cv2.imread(str(folder / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        yield cv2.imread(str(path)), np.where(truth == VOID, 255, truth).astype(np.uint8)


def test_figures_are_those_of_the_runtime(cli, data: Path, tmp_path: Path, runtime: Runtime) -> None:
    file = tmp_path / "deep" / "scores.json"
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file)
    assert (done.code, done.err) == (0, "")
    scores = json.loads(file.read_text())
    classes = runtime.manifest.classes
    semantic, fused, flagged, expected = ConfusionMatrix(11), ConfusionMatrix(11), [], []
    for frame, truth in pairs(data):
        result = runtime.segment(frame, semantic=True)
        semantic.add(truth, result.semantic_labels)
        fused.add(truth, result.labels)
        flagged.append(result.flagged_share)
        expected.append(result.expected_error_where(truth != 255))
    for name, matrix in (("semantic", semantic), ("fused", fused)):
        wanted = matrix.to_dict(classes)
        assert scores[name]["miou"] == pytest.approx(wanted["miou"], abs=1e-3)
        assert scores[name]["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-4)
    assert scores["flagged"] == pytest.approx(np.mean(flagged), abs=1e-4)
    assert scores["threshold"] == runtime.manifest.threshold
    digest = hashlib.sha256((runtime.bundle.folder / "manifest.json").read_bytes()).hexdigest()
    assert scores["bundle"] == {"name": "camvid", "sha256": digest}
    assert (scores["frames"], scores["failed"], scores["engine"]) == (3, {}, "onnxruntime")
    assert scores["machine"]["packages"]["numpy"] == np.__version__
    assert scores["machine"]["gpu"] == gpu_name()
    assert [row["name"] for row in scores["per_frame"]] == ["f0", "f1", "f2"]
    assert [row["flagged"] for row in scores["per_frame"]] == pytest.approx(flagged, abs=1e-4)
    assert [row["expected_error"] for row in scores["per_frame"]] == pytest.approx(expected, abs=1e-4)
    assert scores["frame_errors"]["expected"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert scores["frame_errors"]["true"] == pytest.approx(1 - np.mean([row["fused"] for row in scores["per_frame"]]))
    assert [row["t"] for row in scores["thresholds"]] == pytest.approx(np.arange(1, 10) / 10)
    assert 0 <= scores["errors"]["auroc"] <= 1
    assert scores["errors"]["ece"] is not None
    assert set(scores["errors"]["baselines"]) == {"max_softmax", "entropy", "margin"}


def test_tables_are_on_the_screen(cli, data: Path) -> None:
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--threshold", "0.5")
    assert done.code == 0
    for text in (
        "IoU (%)",
        "pixel accuracy",
        "Boundary IoU (%)",
        "Errors of the semantic labels",
        "max_softmax",
        "hard",
    ):
        assert text in done.out
    assert "3 frames" in done.out
    assert "at t = 0.5: fused over" in done.out


def test_baselines_are_calibrated_where_the_bundle_says_how(cli, data: Path, tmp_path: Path) -> None:
    bundle = Bundle.open("camvid")
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    bare = write_bundle(tmp_path / "bundle", replace(bundle.manifest, baseline_calibrations={}), files).folder
    found = {}
    for name, given in (("without", bare), ("with", "camvid")):
        done = cli("evaluate", given, "--data", data, "--threads", "1", "--json", tmp_path / f"{name}.json")
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
        assert ("no calibration of the baselines" in done.out) is (name == "without")
    assert len(found["without"]["notes"]) == 1
    assert found["with"]["notes"] == []
    for baseline in ("max_softmax", "entropy", "margin"):
        assert found["without"]["errors"]["baselines"][baseline]["brier"] is None
        assert 0 < found["with"]["errors"]["baselines"][baseline]["brier"] < 1


def test_multi_scale_rows(cli, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "ms.json"
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--scales", "0.75,1", "--flip", "--json", file)
    scores = json.loads(file.read_text())
    assert done.code == 0
    assert (scores["scales"], scores["flip"]) == ([0.75, 1.0], True)
    for name in ("semantic_ms", "fused_ms"):
        assert scores[name]["miou"] != scores[name.removesuffix("_ms")]["miou"]
        assert scores[name]["accuracy"] > 0.3
    assert (
        len([line for line in done.out.splitlines() if line.count("ms") == 2]) == 1
    )  # two columns, named below each other


def test_csv_and_plots(cli, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots = tmp_path / "plots"
    done = cli(
        "evaluate", "camvid", "--data", data, "--threads", "1", "--csv", tmp_path / "a.csv", "--plots", plots,
        "--worst", "1", "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    scores = json.loads((tmp_path / "a.json").read_text())
    with (tmp_path / "a.csv").open(newline="") as file:
        values = {(row["table"], row["row"], row["column"]): row["value"] for row in csv.DictReader(file)}
    assert float(values["labels", "mean", "fused"]) == scores["fused"]["miou"]
    worst = min(scores["per_frame"], key=lambda row: row["fused"])
    names = {"risk_coverage.png", "reliability.png", "miou_over_t.png", f"worst_01_{worst['name']}.png"}
    assert {path.name for path in plots.iterdir()} == names


def test_frames_that_cannot_be_read_are_named_and_the_rest_is_scored(cli, data: Path, tmp_path: Path) -> None:
    for path in data.rglob("*.png"):
        copy = tmp_path / path.relative_to(data)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "images" / "f1.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "labels" / "f2.png"), np.full((96, 128), 77, np.uint8))
    done = cli("evaluate", "camvid", "--data", tmp_path, "--threads", "1", "--json", tmp_path / "a.json")
    assert done.code == 2
    first, second = done.err.splitlines()
    assert first.startswith("error: frame f1 was not scored: ")
    assert "f1.png" in first
    assert second.startswith("error: frame f2 was not scored: ")
    assert "[77]" in second
    scores = json.loads((tmp_path / "a.json").read_text())
    assert (scores["frames"], set(scores["failed"])) == (1, {"f1", "f2"})
    assert scores["semantic"]["miou"] is not None


def test_no_frame_that_can_be_scored(cli, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"no picture")
    done = cli("evaluate", "camvid", "--data", tmp_path, "--threads", "1", "--json", tmp_path / "a.json")
    assert done.code == 2
    assert "0 frames, none with a true label" in done.out
    assert json.loads((tmp_path / "a.json").read_text())["errors"]["auroc"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("camvid", "--data", "nowhere"), "nowhere: no such folder"),
        (("no-such-bundle", "--data", "{data}"), "bundle no-such-bundle"),
        (("camvid", "--data", "{data}", "--void", "3"), "void ids lie outside the 11 classes"),
        (("camvid", "--data", "{data}", "--void", "12"), "was not scored: "),
    ],
    ids=["data", "bundle", "void_class", "void_missing"],
)
def test_what_is_wrong_is_one_line(cli, data: Path, arguments, message) -> None:
    done = cli("evaluate", "--threads", "1", *(argument.format(data=data) for argument in arguments))
    assert done.code == 2
    assert all(line.startswith("error: ") for line in done.err.splitlines())
    assert message in done.err


@pytest.mark.parametrize("scales", [",", "1,x", "0", "-1", "1,9", "nan", "1,,2"])
def test_scales_that_are_none(cli, data: Path, scales) -> None:
    done = cli("evaluate", "camvid", "--data", data, "--scales", scales)
    assert done.code == 2
    assert "is no list of factors" in done.err


def test_plots_need_matplotlib_before_anything_is_done(cli, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = cli("evaluate", "camvid", "--data", data, "--plots", tmp_path / "plots")
    assert (done.code, done.out) == (2, "")
    assert "plots are not installed" in done.err


def test_camvid_val(cli, camvid_val: Path, tmp_path: Path) -> None:
    """The command as it stands, on the first real frames."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        for path in sorted((camvid_val / name).iterdir())[:2]:
            (tmp_path / name / path.name).symlink_to(path)
    done = cli("evaluate", "camvid", "--data", tmp_path, "--json", tmp_path / "out.json")
    scores = json.loads((tmp_path / "out.json").read_text())
    assert (done.code, done.err, scores["frames"]) == (0, "", 2)
    assert scores["semantic"]["accuracy"] > 0.85
    assert scores["errors"]["auroc"] > 0.8
