"""`errseg-rt segment` on good images: what it writes, prints and scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.batch.figures import frame_summary
from errseg_rt.cli.options import print_run, run_summary
from errseg_rt.runtime import Runtime

SIZES = {"a.png": (64, 96), "deep/b.png": (33, 17), "c.bmp": (96, 64)}


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def images(tmp_path: Path, frame) -> Path:
    """A folder of lossless images."""
    for name, (height, width) in SIZES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame[:height, :width])
    return tmp_path / "images"


@pytest.fixture
def dataset(images: Path, tmp_path: Path, runtime: Runtime) -> Path:
    """A data set whose truth is what the runtime says, all fused."""
    (tmp_path / "labels").mkdir()
    for name in SIZES:
        labels = runtime.segment(read(images / name)).labels
        cv2.imwrite(str(tmp_path / "labels" / f"{Path(name).stem}.png"), labels)
    return tmp_path


def test_writes_what_the_runtime_says(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    out = tmp_path / "out"
    done = cli("segment", "--threads", "1", images, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert "3 of 3 images segmented" in done.out
    for name in SIZES:
        frame = read(images / name)
        result, stem = runtime.segment(frame), str(Path(name).with_suffix(""))
        pictures = {
            "labels": result.labels,
            "colors": result.colors(),
            "error": result.heat(),
            "overlay": result.overlay(frame),
        }
        for what, picture in pictures.items():
            np.testing.assert_array_equal(read(out / f"{stem}_{what}.png"), picture)
    assert len([path for path in out.rglob("*") if path.is_file()]) == 4 * len(SIZES) + 1


def test_json_is_all_of_stdout_and_equals_the_summary(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    out = tmp_path / "out"
    done = cli("segment", "--threads", "1", images, "-o", out, "--json")
    summary = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["bundle"], summary["engine"]) == (runtime.manifest.name, "onnxruntime")
    assert summary["threshold"] == runtime.manifest.threshold
    assert (summary["scores"], summary["failed"]) == (None, [])
    assert {item["input"]: tuple(item["size"]) for item in summary["frames"]} == {
        str(images / name): size for name, size in SIZES.items()
    }
    stages = ["preprocess", "front", "select", "refine", "fuse"]
    for item in summary["frames"]:
        assert item["outputs"].keys() == {"labels", "colors", "error", "overlay"}
        assert all((out / path).is_file() for path in item["outputs"].values())
        assert list(item["milliseconds"]) == stages
    for stage in stages:
        laps = [item["milliseconds"][stage] for item in summary["frames"]]
        assert summary["milliseconds"][stage] == np.median(laps)
    for name in ("flagged_share", "work"):
        assert summary[name] == pytest.approx(np.mean([item[name] for item in summary["frames"]]))
    assert (summary["detail"], summary["budget"], summary["deadline_ms"]) == ("sparse", None, None)
    assert (summary["left_out_pixels"], summary["late_frames"]) == (0, 0)


def test_a_time_that_is_not_known_is_not_shown(capsys, runtime: Runtime, frame) -> None:
    known = runtime.segment(frame)
    summary = run_summary(runtime, [frame_summary(replace(known, timings={}))])
    assert (summary["milliseconds"], summary["late_frames"]) == ({}, 0)
    print_run(summary)
    assert "Median time" not in capsys.readouterr().out
    print_run(run_summary(runtime, [frame_summary(known)]))
    assert "Median time" in capsys.readouterr().out


def test_files_and_globs(cli, images: Path, tmp_path: Path) -> None:
    done = cli(
        "segment",
        "--threads",
        "1",
        images / "a.png",
        images / "*.bmp",
        images / "a.png",
        "-o",
        tmp_path / "out",
        "--json",
    )
    assert [Path(item["input"]).name for item in json.loads(done.out)["frames"]] == ["a.png", "c.bmp"]


@pytest.mark.parametrize(("threshold", "share"), [("0.9999999999999999", 0), ("1e-300", 1)], ids=["none", "all"])
def test_threshold(cli, images: Path, tmp_path: Path, threshold, share) -> None:
    done = cli(
        "segment", "--threads", "1", images / "a.png", "-o", tmp_path / "out", "--threshold", threshold, "--json"
    )
    summary = json.loads(done.out)
    assert (summary["threshold"], summary["flagged_share"]) == (float(threshold), share)


def test_a_budget_and_what_it_leaves_out(cli, images: Path, tmp_path: Path) -> None:
    arguments = ("segment", "--threads", "1", images, "-o", tmp_path / "out", "--threshold", "0.2", "--budget", "0.1")
    summary = json.loads(cli(*arguments, "--json").out)
    assert (summary["budget"], summary["detail"]) == (0.1, "sparse")
    assert len(summary["frames"]) == len(SIZES)
    with Runtime(threshold=0.2, budget=0.1, threads=1) as limited:
        for item in summary["frames"]:
            result = limited.segment(read(Path(item["input"])))
            assert item["pixels"] == {
                "over_threshold": result.refined + result.left_out,
                "refined": result.flagged.sum(),
                "left_out": result.left_out,
            }
            assert item["work"] == result.work <= 0.1
            np.testing.assert_array_equal(read(tmp_path / "out" / item["outputs"]["labels"]), result.labels)
    left_out = sum(item["pixels"]["left_out"] for item in summary["frames"])
    assert summary["left_out_pixels"] == left_out > 0
    shown = cli(*arguments).out
    assert f"the budget left out {left_out} pixels" in shown
    assert f"{100 * summary['work']:.2f}" in next(line for line in shown.splitlines() if "work" in line)


def test_dense_refinement_gives_the_same_labels(cli, images: Path, tmp_path: Path) -> None:
    for detail in ("sparse", "dense"):
        arguments = ("segment", "--threads", "1", images, "-o", tmp_path / detail, "--detail", detail, "--json")
        summary = json.loads(cli(*arguments, "--threshold", "0.5").out)
        assert summary["detail"] == detail
        assert (summary["work"] == 1) == (detail == "dense")
    for name, size in SIZES.items():
        sparse, dense = (
            read(tmp_path / way / f"{Path(name).with_suffix('')}_labels.png") for way in ("sparse", "dense")
        )
        assert sparse.shape == dense.shape == size
        assert (sparse != dense).sum() <= 1  # a tie within rounding


def test_a_deadline_that_no_frame_meets(cli, images: Path, tmp_path: Path) -> None:
    arguments = ("segment", "--threads", "1", images, "-o", tmp_path / "out", "--threshold", "0.2")
    summary = json.loads(cli(*arguments, "--deadline-ms", "0.001", "--json").out)
    assert (summary["deadline_ms"], summary["late_frames"], summary["work"]) == (0.001, len(SIZES), 0)
    assert summary["left_out_pixels"] > 0
    assert f"{len(SIZES)} frames took longer than 0.001 ms" in cli(*arguments, "--deadline-ms", "0.001").out


def test_a_deadline_that_all_frames_meet(cli, images: Path, tmp_path: Path) -> None:
    arguments = ("segment", "--threads", "1", images, "-o", tmp_path / "out", "--deadline-ms", "1e9")
    summary = json.loads(cli(*arguments, "--json").out)
    assert (summary["deadline_ms"], summary["late_frames"]) == (1e9, 0)


@pytest.mark.parametrize("how", ["data_set", "labels_option"])
def test_perfect_truth_scores_a_hundred(cli, dataset: Path, tmp_path: Path, how) -> None:
    inputs = [dataset] if how == "data_set" else [dataset / "images", "--labels", dataset / "labels"]
    done = cli("segment", "--threads", "1", *inputs, "-o", tmp_path / "out", "--json")
    scores = json.loads(done.out)["scores"]
    assert scores["fused"]["miou"] == scores["fused"]["accuracy"] == 1
    assert set(scores["fused"]["iou"].values()) <= {1, None}
    shown = cli("segment", "--threads", "1", *inputs, "-o", tmp_path / "out").out
    (line,) = (line for line in shown.splitlines() if "miou" in line)
    assert line.split()[-2] == "100.00"


def test_scores_are_those_of_a_count_by_hand(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    frame = read(images / "a.png")
    classes = len(runtime.manifest.classes)
    truth = np.random.default_rng(0).integers(0, classes + 3, frame.shape[:2]).astype(np.uint8)
    truth[truth >= classes] = 255
    (tmp_path / "truth").mkdir()
    cv2.imwrite(str(tmp_path / "truth" / "a.png"), truth)
    done = cli("segment", "--threads", "1", images, "--labels", tmp_path / "truth", "-o", tmp_path / "out", "--json")
    summary, valid = json.loads(done.out), truth < classes
    scores = summary["scores"]
    assert summary["scored"] == {"frames": 1, "of": len(SIZES), "valid_pixels": pytest.approx(valid.mean())}
    result = runtime.segment(frame, semantic=True)
    for kind, labels in (("semantic", result.semantic_labels), ("fused", result.labels)):
        assert scores[kind]["accuracy"] == pytest.approx((labels == truth)[valid].mean())
        for c, name in enumerate(runtime.manifest.classes.names):
            union = ((labels == c) | (truth == c)) & valid
            hits = (labels == c) & (truth == c)
            assert scores[kind]["iou"][name] == pytest.approx(hits.sum() / union.sum())


def test_frames_with_and_without_truth(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "truth").mkdir()
    cv2.imwrite(str(tmp_path / "truth" / "c.png"), runtime.segment(read(images / "c.bmp")).labels)
    arguments = ("segment", "--threads", "1", images, "--labels", tmp_path / "truth", "-o", tmp_path / "out")
    done = cli(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    summary = json.loads(done.out)
    # The labels of the semantic branch alone are one more step, where there is something to score them against.
    laps = {Path(item["input"]).name: item["milliseconds"] for item in summary["frames"]}
    assert [name for name, lap in laps.items() if "semantic" in lap] == ["c.bmp"]
    assert list(summary["milliseconds"]) == ["preprocess", "front", "select", "refine", "fuse", "semantic"]
    assert summary["milliseconds"]["semantic"] == laps["c.bmp"]["semantic"]
    assert summary["milliseconds"]["front"] == np.median([lap["front"] for lap in laps.values()])
    assert "semantic" in cli(*arguments).out


def test_a_real_data_set_is_scored(cli, camvid_val: Path, tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for path in sorted((camvid_val / "images").iterdir())[:2]:
        (tmp_path / "set" / "images" / path.name).symlink_to(path)
        (tmp_path / "set" / "labels" / f"{path.stem}.png").symlink_to(camvid_val / "labels" / f"{path.stem}.png")
    done = cli("segment", "--threads", "1", tmp_path / "set", "-o", tmp_path / "out", "--json")
    scores = json.loads(done.out)["scores"]
    assert 0 < scores["semantic"]["miou"] <= 1
    assert 0 < scores["fused"]["miou"] <= 1


def test_torch_engine(cli, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    done = cli("segment", "--threads", "1", images / "a.png", "-o", tmp_path / "out", "--engine", "torch", "--json")
    assert (done.code, json.loads(done.out)["engine"]) == (0, "torch")


def test_a_second_run_takes_the_place_of_the_first(cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("segment", "--threads", "1", images / "a.png", "-o", out)
    cv2.imwrite(str(images / "a.png"), np.zeros((40, 50, 3), np.uint8))
    cli("segment", "--threads", "1", images / "a.png", "-o", out)
    assert read(out / "a_labels.png").shape == (40, 50)
    assert json.loads((out / "summary.json").read_text())["frames"][0]["size"] == [40, 50]
    assert len(list(out.iterdir())) == 5
