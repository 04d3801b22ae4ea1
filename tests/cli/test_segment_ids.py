"""`errseg-rt segment --ids`: one file of ids for each image, as benchmark servers and annotation tools take them."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from errseg_rt.bundle.bundle import write_bundle
from errseg_rt.bundle.classes import CAMVID, CITYSCAPES
from errseg_rt.datasets import CityscapesData
from errseg_rt.datasets.output_ids import OutputIds

NAMES = ("bonn/bonn_000000_000019", "bonn/bonn_000001_000019", "ulm/ulm_000000_000019")
CITY_IDS = {
    "sky": 23, "building": 11, "pole": 17, "road": 7, "pavement": 8, "tree": 21, "sign": 20, "fence": 13, "car": 26,
    "pedestrian": 24, "bicyclist": 33,
}  # fmt: skip
"""What CamVid's classes are among Cityscapes' label ids."""


@pytest.fixture
def city(tmp_path: Path, scene) -> Path:
    """Three frames in the official tree, with label ids."""
    table = np.zeros(256, np.uint8)
    table[: len(CAMVID)] = [CITY_IDS[name] for name in CAMVID.names]
    for index, name in enumerate(NAMES):
        rendered = scene.frame(5 * index)
        for end, picture in (("leftImg8bit", rendered.frame), ("gtFine_labelIds", table[rendered.labels])):
            path = tmp_path / "city" / end.partition("_")[0] / "val" / f"{name}_{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return tmp_path / "city"


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({"0": "void", **{str(label): name for name, label in CITY_IDS.items()}}))
    return path


def ids_in(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_a_server_finds_one_prediction_of_each_frame(cli, city: Path, ids_file: Path, tmp_path: Path, runtime) -> None:
    out = tmp_path / "out"
    done = cli("segment", "--threads", "1", city, "-o", out, "--ids", ids_file, "--json")
    assert (done.code, done.err) == (0, "")
    names = [path.name for path in out.rglob("*.png")]
    for name in NAMES:
        (found,) = fnmatch.filter(names, f"{Path(name).name}*.png")  # as Cityscapes' script looks for it
        assert found == f"{Path(name).name}_leftImg8bit.png"
    assert len(names) == len(NAMES)
    for entry in json.loads(done.out)["frames"]:
        labels = runtime.segment(cv2.imread(entry["input"])).labels
        found = ids_in(out / entry["outputs"]["ids"])
        np.testing.assert_array_equal(found, np.array([CITY_IDS[name] for name in CAMVID.names], np.uint8)[labels])
        assert [*entry["outputs"]] == ["ids"]


def test_they_are_scored_as_they_are_written(cli, city: Path, ids_file: Path, tmp_path: Path) -> None:
    """The way round: segment, and score the files as predictions of anybody."""
    options = ("--label-map", ids_file, "--json")
    cli("segment", "--threads", "1", city, "-o", tmp_path / "out", "--ids", ids_file)
    cli("evaluate", "camvid", "--data", city, "--threads", "1", *options, tmp_path / "run.json")
    arguments = ("--predictions", tmp_path / "out", "--ids", ids_file)
    done = cli("evaluate", "camvid", "--data", city, *arguments, *options, tmp_path / "files.json")
    assert (done.code, done.err) == (0, "")
    run, files = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("run", "files"))
    assert files["frames"] == 3
    for name in ("miou", "accuracy", "boundary_miou"):
        assert files[name] == pytest.approx(run["fused"][name], abs=1e-3)


def test_annotation_tools_take_palettes(cli, city: Path, tmp_path: Path, runtime) -> None:
    image = next(city.rglob("bonn_000000*_leftImg8bit.png"))
    done = cli("segment", "--threads", "1", image, "-o", tmp_path / "out", "--ids", "palette")
    assert (done.code, done.err) == (0, "")
    labels = runtime.segment(cv2.imread(str(image))).labels
    with Image.open(tmp_path / "out" / image.name) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), labels)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), np.array(CAMVID.colors, np.uint8)[labels])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("labelIds", "the label map labelIds has 19 classes, but 11 are wanted"),
        ("none.json", "none.json: no label map that can be read"),
        ("half.json", "no id for 10 of the 11 classes, first building"),
    ],
)
def test_ids_that_do_not_fit(cli, city: Path, tmp_path: Path, monkeypatch, ids, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("half.json").write_text('{"3": "sky"}')
    done = cli("segment", "--threads", "1", city, "-o", "out", "--ids", ids)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert message in line
    assert not Path("out").exists()


def test_no_image_is_written_over(cli, city: Path, monkeypatch) -> None:
    folder = city / "leftImg8bit/val/bonn"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    for inputs in (("*.png",), (str(min(before)),)):
        done = cli("segment", "--threads", "1", *inputs, "-o", ".", "--ids", "palette")
        assert (done.code, done.out) == (2, "")
        assert "would be written over by a result of" in done.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_ids_of_an_earlier_run_are_no_images(cli, city: Path, tmp_path: Path) -> None:
    folder = city / "leftImg8bit/val"
    cli("segment", "--threads", "1", folder, "-o", folder / "ids", "--ids", "palette")
    assert len([*(folder / "ids").rglob("*.png")]) == 3
    done = cli("segment", "--threads", "1", folder, "-o", tmp_path / "out", "--json")
    assert len(json.loads(done.out)["frames"]) == 3
    assert done.err == f"note: {folder / 'ids'}: passed over, as it holds label ids of an earlier run\n"


def test_a_run_with_other_ids_is_another_run(cli, city: Path, tmp_path: Path) -> None:
    image, out = next(city.rglob("bonn_000000*_leftImg8bit.png")), tmp_path / "out"
    for ids, mode in (("palette", "P"), ("palette", "P"), ("trainIds", "L")):
        assert cli("segment", "--threads", "1", image, "-o", out, "--ids", ids, "--resume").code == 0
        with Image.open(out / image.name) as picture:
            assert picture.mode == mode
    done = cli("segment", "--threads", "1", image, "-o", out, "--resume", "--json")
    assert {*json.loads(done.out)["frames"][0]["outputs"]} == {"labels", "colors", "error", "overlay"}


def test_labels_that_do_not_fit_are_doubted(cli, city: Path, tmp_path: Path, scene) -> None:
    """As evaluate does it."""
    (tmp_path / "truth").mkdir()
    for index, name in enumerate(NAMES):
        labels = scene.frame(5 * index).labels
        path = tmp_path / "truth" / f"{name}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.where(labels == 255, 0, labels + 1).astype(np.uint8))
    arguments = ("segment", "--threads", "1", city / "leftImg8bit/val", "--labels", tmp_path / "truth", "-o")
    done = cli(*arguments, tmp_path / "out", "--json")
    assert done.code == 0
    (note,) = json.loads(done.out)["notes"]
    assert done.err == f"warning: {note}\n"
    assert note.endswith("if ids are counted from 1: give --first-id 1")
    done = cli(*arguments, tmp_path / "out", "--json", "--first-id", "1")
    assert (done.err, json.loads(done.out)["notes"]) == ("", [])


def test_real_frames_of_cityscapes(cli, cityscapes: Path, tmp_path: Path, manifest) -> None:
    """A perfect prediction under label ids, by the command, in the official tree."""
    tiny = write_bundle(tmp_path / "bundle", replace(manifest, classes=CITYSCAPES), {"graphs/front.onnx": b"x"}).folder
    frames, output = CityscapesData(cityscapes, "train"), OutputIds.open("labelIds", CITYSCAPES)
    for index, (image, _) in enumerate(frames.pairs):
        output.save(np.minimum(frames[index][1], 18), tmp_path / "out" / f"{image.stem}.png")
    arguments = (
        "--split",
        "train",
        "--predictions",
        tmp_path / "out",
        "--ids",
        "labelIds",
        "--json",
        tmp_path / "a.json",
    )
    done = cli("evaluate", tiny, "--data", cityscapes, *arguments)
    assert (done.code, done.err) == (0, "")
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["miou"], found["accuracy"], found["frames"]) == (1, 1, 4)
