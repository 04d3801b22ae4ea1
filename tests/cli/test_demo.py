"""`errseg-rt demo`: a rendered street, small."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from errseg_rt.scenes import NucleiScene, StreetScene

SMALL = ("--frames", "2", "--height", "64", "--width", "96", "--seed", "5", "--threads", "1")


@pytest.fixture
def scene() -> StreetScene:
    return StreetScene(5, 64, 96, 15.0)


def test_writes_a_video_stills_and_a_summary(cli, tmp_path: Path, scene: StreetScene, runtime: Runtime) -> None:
    out = tmp_path / "out"
    done = cli("demo", *SMALL, "-o", out)
    assert (done.code, done.err) == (0, "")
    stills = {f"frame_{index:04d}_{what}.png" for index in (0, 1) for what in ("labels", "colors", "error", "overlay")}
    assert {path.name for path in out.iterdir()} == {"demo.mp4", "summary.json", *stills}
    for index in (0, 1):
        labels = cv2.imread(str(out / f"frame_{index:04d}_labels.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, runtime.segment(scene.frame(index).frame).labels)
    with av.open(str(out / "demo.mp4")) as container:
        assert container.streams.video[0].average_rate == 15
        shown = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in shown] == [(2 * 64, 2 * 96, 3)] * 2
    for index, frame in enumerate(shown):
        # The frame is the upper left quarter; its name is written over the top, and the video is lossy.
        difference = frame[20:64, :96].astype(int) - scene.frame(index).frame[20:]
        assert np.abs(difference).mean() < 12


def test_scores_are_those_of_the_rendered_truth(cli, tmp_path: Path, scene: StreetScene, runtime: Runtime) -> None:
    done = cli("demo", *SMALL, "-o", tmp_path / "out", "--json")
    summary = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["clip"] == {"seed": 5, "frames": 2, "height": 64, "width": 96, "fps": 15.0}
    frames = [scene.frame(index) for index in (0, 1)]
    results = [runtime.segment(item.frame, semantic=True) for item in frames]
    for kind, attribute in (("semantic", "semantic_labels"), ("fused", "labels")):
        right = [getattr(result, attribute) == item.labels for result, item in zip(results, frames, strict=True)]
        assert summary["scores"][kind]["accuracy"] == pytest.approx(np.mean(right))


def test_prints_stages_and_scores(cli, tmp_path: Path) -> None:
    done = cli("demo", *SMALL[:1], "1", *SMALL[2:], "-o", tmp_path / "out")
    words = done.out.split()
    assert {"preprocess", "front", "select", "refine", "fuse", "sum", "miou", "accuracy", "semantic", "fused"} <= set(
        words
    )
    assert str(tmp_path / "out" / "demo.mp4") in done.out


def test_a_budget(cli, tmp_path: Path, scene: StreetScene) -> None:
    done = cli("demo", *SMALL, "-o", tmp_path / "out", "--budget", "0.01", "--json")
    summary = json.loads(done.out)
    with Runtime(budget=0.01, threads=1) as limited:
        results = [limited.segment(scene.frame(index).frame) for index in (0, 1)]
    assert (summary["detail"], summary["budget"], summary["deadline_ms"]) == ("sparse", 0.01, None)
    assert summary["work"] == pytest.approx(np.mean([result.work for result in results]))
    assert summary["flagged_share"] == pytest.approx(np.mean([result.flagged_share for result in results]))
    assert summary["left_out_pixels"] == sum(result.left_out for result in results)


def test_a_bundle_of_other_classes(cli, bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "manifest.json"
    table = json.loads(path.read_text())
    table["classes"]["names"][0] = "heaven"
    path.write_text(json.dumps(table))
    done = cli("demo", *SMALL, "-o", tmp_path / "out", "--bundle", bundle_copy)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: bundle {bundle_copy}: its classes are not those of rendered streets or nuclei")
    assert not [item for item in (tmp_path / "out").glob("*") if item.is_file()]


def test_a_missing_bundle(cli, tmp_path: Path) -> None:
    done = cli("demo", *SMALL, "-o", tmp_path / "out", "--bundle", tmp_path)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: bundle {tmp_path}: no manifest.json there")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [("--frames", "0"), ("--height", "31"), ("--width", "9000")], ids=" ".join)
def test_options_out_of_range(cli, tmp_path: Path, options) -> None:
    done = cli("demo", "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert options[0] in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names to be Unicode")
def test_a_folder_of_any_bytes(cli, tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/caf\xe9"
    done = cli(
        "demo", "--threads", "1", "--frames", "1", "--height", "64", "--width", "96", "-o", os.fsdecode(out), "--json"
    )
    assert (done.code, done.err) == (0, "")
    assert {b"demo.mp4", b"frame_0000_overlay.png", b"summary.json"} <= set(os.listdir(out))


@pytest.mark.parametrize("name", ["demo.mp4", "summary.json"])
def test_outputs_are_looked_at_before_the_first_frame(cli, tmp_path: Path, monkeypatch, name) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.delattr(StreetScene, "frame")
    done = cli("demo", "-o", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {tmp_path / name}: is a folder, wanted a file to write\n"


def test_frames_over_the_limit_are_not_rendered_first(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delattr(StreetScene, "frame")
    done = cli("demo", "-o", tmp_path / "out", "--height", "64", "--width", "96", "--max-pixels", "6143")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: frames of 64x96 pixels are over the limit of 6143; raise --max-pixels\n"


def test_no_clip_is_wider_than_its_format_takes(cli, tmp_path: Path) -> None:
    done = cli("demo", "-o", tmp_path, "--frames", "1", "--height", "32", "--width", "8193")
    assert (done.code, done.out) == (2, "")
    assert "8192" in done.err
    done = cli("demo", "-o", tmp_path, "--frames", "1", "--height", "32", "--width", "8192")
    assert (done.code, done.err) == (0, "")


def test_cells_and_their_instances(cli, tmp_path: Path) -> None:
    out, truth = tmp_path / "out", NucleiScene(1000, 120, 160).frame(0)
    with Runtime("nuclei") as nuclei:
        nuclei.segment(truth.frame)  # where kernels have to be compiled first, that is said
    done = cli("demo", "--instances", *SMALL[:1], "1", "--height", "120", "--width", "160", "-o", out)
    assert (done.code, done.err) == (0, "")
    scores = json.loads((out / "summary.json").read_text())["scores"]
    nucleus = scores["instances"]["classes"]["nucleus"]
    assert nucleus["truths"] == len(np.unique(truth.instances)) - 1
    assert nucleus["ap_r_0.5"] > 0.5
    assert scores["fused"]["miou"] > 0.7
    assert {"Instances", "Scores"} <= set(done.out.split())
    assert f"{nucleus['found']}" in done.out.split()


def test_a_bundle_that_finds_no_instances(cli, tmp_path: Path) -> None:
    done = cli("demo", "--instances", "--bundle", "camvid", *SMALL, "-o", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: bundle camvid: finds no instances; leave out --instances or --bundle\n"
