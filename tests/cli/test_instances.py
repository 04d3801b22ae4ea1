"""`errseg-rt segment --instances` and `evaluate`, by a runtime whose instances are the pieces of its labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.instance_baselines import connected_components
from errseg_rt.batch.instances import InstanceFiles
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.datasets import open_dataset
from errseg_rt.evaluation.instance_scores import InstanceScores
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.panoptic import panoptic_map
from errseg_rt.frames.run_lengths import decode_mask
from errseg_rt.runtime import Runtime

THINGS = tuple(CAMVID.names.index(name) for name in ("car", "pedestrian", "bicyclist", "building"))


def pieces(result) -> Instances:
    return connected_components(result.labels, THINGS, result.classes, error_map=result.error_map(), least_pixels=9)


@pytest.fixture
def finds_instances(monkeypatch) -> list[int]:
    """A bundle whose instances are pieces of its labels; gives a list that grows by a frame's height for each frame."""
    original, heights = Runtime.segment, []

    def segment(self, frame, *arguments, **asked):
        result = original(self, frame, *arguments, **asked)
        object.__setattr__(result, "instances", pieces(result) if asked.get("instances", True) else None)
        heights.append(len(result.labels))
        return result

    monkeypatch.setattr(Runtime, "segment", segment)
    monkeypatch.setattr(Manifest, "things", THINGS)
    return heights


@pytest.fixture
def images(tmp_path: Path, scene) -> Path:
    for index, (height, width) in enumerate(((96, 128), (81, 97), (1, 1))):
        path = tmp_path / "images" / ("deep" if index == 1 else "") / f"f{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), scene.frame(5 * index).frame[:height, :width])
    return tmp_path / "images"


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_segment_writes_maps_and_coco_and_rows(cli, images, tmp_path, finds_instances, runtime) -> None:
    out = tmp_path / "out"
    done = cli("segment", images, "-o", out, "--instances", "--threads", "1")
    assert (done.code, done.err) == (0, "")
    assert "instances: " in done.out
    summary = json.loads((out / "summary.json").read_text())
    document = json.loads((out / "instances.json").read_text())
    assert [each["file_name"] for each in document["images"]] == [each["input"] for each in summary["frames"]]
    assert len(document["annotations"]) == sum(summary["instances"].values()) > 3
    assert {each["name"]: each["id"] for each in document["categories"]}["car"] == THINGS[0]
    for image, entry in zip(document["images"], summary["frames"], strict=True):
        found = pieces(runtime.segment(cv2.imread(entry["input"])))
        stored = read(out / entry["outputs"]["instances"])
        assert entry["outputs"]["instances"].endswith("_instances.png")
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, found.map)
        rows = entry["instances"]
        assert [row["class"] for row in rows] == [CAMVID.names[each] for each in found.classes]
        assert [row["box"] for row in rows] == found.boxes.tolist()
        assert [row["area"] for row in rows] == found.areas.tolist()
        np.testing.assert_allclose([row["error_probability"] for row in rows], found.error_probability, rtol=1e-6)
        annotations = [each for each in document["annotations"] if each["image_id"] == image["id"]]
        for number, each in enumerate(annotations):
            np.testing.assert_array_equal(decode_mask(each["segmentation"]), stored == number + 1)
            assert (each["bbox"], each["area"]) == (rows[number]["box"], rows[number]["area"])
            assert each["category_id"] == found.classes[number]
            assert each["score"] == rows[number]["score"]
            assert each["error_probability"] == pytest.approx(rows[number]["error_probability"], rel=1e-6)


def test_instances_beside_label_ids(cli, images, tmp_path, finds_instances) -> None:
    out = tmp_path / "out"
    done = cli("segment", images / "f0.png", "-o", out, "--instances", "--ids", "trainIds", "--threads", "1", "--json")
    assert (done.code, done.err) == (0, "")
    (entry,) = json.loads(done.out)["frames"]
    assert entry["outputs"] == {"ids": "f0.png", "instances": "f0_instances.png"}
    assert {path.name for path in out.iterdir()} == {"f0.png", "f0_instances.png", "instances.json", "summary.json"}


def test_resume_gives_the_same_document(cli, images, tmp_path, finds_instances) -> None:
    out = tmp_path / "out"
    arguments = ("segment", images, "-o", out, "--instances", "--threads", "1", "--resume")
    assert cli(*arguments).code == 0
    before = (out / "instances.json").read_bytes()
    (out / "instances.json").unlink()
    (out / "f0_instances.png").unlink()
    finds_instances.clear()
    assert cli(*arguments).code == 0
    assert finds_instances == [96]  # what lacks its map alone
    assert (out / "instances.json").read_bytes() == before
    summary = json.loads((out / "summary.json").read_text())
    next(each for each in summary["frames"] if each["size"] == [81, 97])["instances"][0]["class"] = "dragon"
    (out / "summary.json").write_text(json.dumps(summary))
    finds_instances.clear()
    assert cli(*arguments).code == 0
    assert finds_instances == [81]  # what somebody has edited
    assert (out / "instances.json").read_bytes() == before
    finds_instances.clear()
    assert cli(*[each for each in arguments if each != "--instances"]).code == 0
    assert len(finds_instances) == 3  # other settings


def test_panoptic_maps_are_those_of_labels_and_instances(cli, images, tmp_path, finds_instances, runtime) -> None:
    out = tmp_path / "out"
    arguments = ("segment", images, "-o", out, "--panoptic", "--threads", "1", "--resume")
    done = cli(*arguments)
    assert (done.code, done.err) == (0, "")
    document = json.loads((out / "panoptic.json").read_text())
    assert not list(out.rglob("*instances*"))
    assert [each["isthing"] for each in document["categories"]] == [index in THINGS for index in range(len(CAMVID))]
    for image, each in zip(document["images"], document["annotations"], strict=True):
        assert image["id"] == each["image_id"]
        result = runtime.segment(cv2.imread(image["file_name"]))
        ids, segments = panoptic_map(result.labels, pieces(result), THINGS)
        stored = read(out / each["file_name"]).astype(int)
        np.testing.assert_array_equal(stored @ [1 << 16, 1 << 8, 1], ids)
        assert each["segments_info"] == json.loads(json.dumps(segments))
    finds_instances.clear()
    (out / "panoptic.json").unlink()
    assert cli(*arguments).code == 0
    assert finds_instances == []
    assert json.loads((out / "panoptic.json").read_text()) == document


def test_results_of_instances_are_no_images(cli, images, tmp_path, finds_instances) -> None:
    out = images / "old"
    assert cli("segment", images / "f0.png", "-o", out, "--instances", "--threads", "1").code == 0
    done = cli("segment", images, "-o", tmp_path / "new", "--threads", "1", "--json")
    assert done.code == 0
    assert "passed over 5 results of earlier runs" in done.err
    assert len(json.loads(done.out)["frames"]) == 3


def test_a_map_that_somebody_has_exchanged(cli, images, tmp_path, finds_instances, monkeypatch) -> None:
    original = InstanceFiles.write

    def exchanged(self, entries, out, *rest):
        cv2.imwrite(str(out / "f0_instances.png"), np.full((96, 128), 999, np.uint16))
        original(self, entries, out, *rest)

    monkeypatch.setattr(InstanceFiles, "write", exchanged)
    done = cli("segment", images, "-o", tmp_path / "out", "--instances", "--threads", "1")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "f0_instances.png: is not what was written there; segment its image again" in done.err
    assert not (tmp_path / "out" / "instances.json").exists()


def test_a_bundle_without_instances(cli, images, tmp_path) -> None:
    done = cli("segment", images, "-o", tmp_path / "out", "--instances", "--threads", "1")
    assert (done.code, done.out) == (2, "")
    assert "finds no instances; leave out --instances" in done.err


# --- evaluate


@pytest.fixture
def data(tmp_path: Path, scene) -> Path:
    """Four rendered frames in the plain layout, with the pieces of their labels as instances."""
    for name in ("images", "labels", "instances"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(4):
        rendered = scene.frame(5 * index)
        labels = np.where(rendered.labels == 255, 11, rendered.labels).astype(np.uint8)
        true = connected_components(labels, THINGS, CAMVID, least_pixels=30)
        pictures = {"images": rendered.frame, "labels": labels, "instances": true.map.astype(np.uint16)}
        for name, picture in pictures.items():
            cv2.imwrite(str(tmp_path / "data" / name / f"f{index}.png"), picture)
    return tmp_path / "data"


def test_evaluate_scores_instances(cli, data, tmp_path, finds_instances, runtime) -> None:
    file, table = tmp_path / "scores.json", tmp_path / "scores.csv"
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file, "--csv", table)
    assert (done.code, done.err) == (0, "")
    told = json.loads(file.read_text())["instances"]
    frames = open_dataset(data, CAMVID, void=[11])
    wanted = InstanceScores(len(CAMVID), THINGS)
    for index in range(len(frames)):
        frame, labels = frames[index]
        result = runtime.segment(frame)
        wanted.add(frames.instances(index, labels), labels, pieces(result), result.labels)
    assert told == json.loads(json.dumps(wanted.to_dict(CAMVID)))
    assert 0 < told["map_r_0.5"] < 1
    assert set(told["classes"]) == {CAMVID.names[label] for label in THINGS}
    for text in ("Instances (%)", "Panoptic quality (%)", "True against false", "error_probability"):
        assert text in done.out
    assert f"instances,mean,ap_r_0.5,{told['map_r_0.5']}" in table.read_text()


def test_frames_whose_instances_cannot_be_scored(cli, data, tmp_path, finds_instances) -> None:
    (data / "instances/f0.png").unlink()
    cv2.imwrite(str(data / "instances/f1.png"), np.zeros((96, 127), np.uint16))
    cv2.imwrite(str(data / "instances/f2.png"), np.zeros((96, 128, 3), np.uint8))
    file = tmp_path / "scores.json"
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file)
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert "frame f0 was not scored" in lines[0]
    assert "instances/f0.png: cannot be read" in lines[0]
    assert "f1.png: instance ids of 96x127 pixels, wanted 96x128 as the frame" in lines[1]
    assert "f2.png: instance ids in RGB; save the instance ids, not their colours" in lines[2]
    assert json.loads(file.read_text())["instances"]["frames"] == 1


def test_data_whose_instances_are_all_missing(cli, data, tmp_path, finds_instances) -> None:
    for path in (data / "instances").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 128), np.uint8))
    file = tmp_path / "scores.json"
    assert cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file).code == 0
    told = json.loads(file.read_text())["instances"]
    assert (told["truths"], told["map_r_0.5"], told["map"]) == (0, None, None)
    assert told["found"] > 0


def test_data_without_instances_are_scored_as_before(cli, data, tmp_path, finds_instances) -> None:
    shutil.rmtree(data / "instances")
    file = tmp_path / "scores.json"
    assert cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file).code == 0
    assert "instances" not in json.loads(file.read_text())
    assert finds_instances == []


def test_coarser_classes_leave_instances_out(cli, data, tmp_path, finds_instances) -> None:
    merge, file = tmp_path / "merge.toml", tmp_path / "scores.json"
    merge.write_text("\n".join(f'{name} = "{name}"' for name in CAMVID.names))
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1", "--merge", merge, "--json", file)
    assert done.code == 0
    told = json.loads(file.read_text())
    assert "instances" not in told
    assert "instances are of the bundle's own classes: with --merge they are not scored" in told["notes"]


def test_data_of_instances_alone_are_of_the_only_thing(cli, data, tmp_path, finds_instances, monkeypatch) -> None:
    shutil.rmtree(data / "labels")
    monkeypatch.setattr(Manifest, "things", (8,))
    file = tmp_path / "scores.json"
    assert cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", file).code in (0, 2)
    told = json.loads(file.read_text())
    assert told["failed"] == {}
    assert list(told["instances"]["classes"]) == [CAMVID.names[8]]
    assert told["instances"]["truths"] > 0
    monkeypatch.setattr(Manifest, "things", ())
    done = cli("evaluate", "camvid", "--data", data, "--threads", "1")
    assert done.code == 2
    assert "of which of the 11 classes the instances are is not said; write classes.csv beside images/" in done.err
