"""Labels under the ids of others: a label map read backwards, and its files as another library reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from errseg_rt.bundle.classes import ADE20K, CAMVID, CITYSCAPES, ClassSet
from errseg_rt.datasets import LabelMap
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import read_labels


@pytest.mark.parametrize(
    ("name", "classes"), [("labelIds", CITYSCAPES), ("ade20k", ADE20K), ("trainIds", CAMVID), ("palette", CAMVID)]
)
def test_what_is_written_is_read_as_it_was(tmp_path, name, classes) -> None:
    labels = np.arange(13 * 17, dtype=np.uint8).reshape(13, 17) % len(classes)
    path = tmp_path / "deep" / "a.png"
    OutputIds.open(name, classes).save(labels, path)
    raw = read_labels(path, (13, 17))
    np.testing.assert_array_equal(LabelMap.open(name, classes).apply(raw, path), labels)
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]


def test_ids_of_benchmarks() -> None:
    cityscapes, ade20k = OutputIds.open("labelIds", CITYSCAPES), OutputIds.open("ade20k", ADE20K)
    assert cityscapes.of(np.array([[0, 10, 18]], np.uint8)).tolist() == [[7, 23, 33]]
    assert ade20k.of(np.array([[0, 149]], np.uint8)).tolist() == [[1, 150]]


@pytest.mark.parametrize(("name", "mode"), [("trainIds", "L"), ("palette", "P")])
def test_files_are_of_the_kind_that_is_taken(tmp_path, name, mode) -> None:
    labels = np.arange(11, dtype=np.uint8)[None].repeat(3, 0)
    OutputIds.open(name, CAMVID).save(labels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.mode, picture.size) == (mode, (11, 3))
        np.testing.assert_array_equal(np.array(picture), labels)
        if mode == "P":
            np.testing.assert_array_equal(np.array(picture.convert("RGB"))[0], CAMVID.colors)


def test_a_file_read_backwards(tmp_path) -> None:
    small = ClassSet(("road", "sky", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": "void", "30": "road", "7": "road", "200": "car", "255": "sky"}))
    assert OutputIds.open(str(path), small).of(np.array([[0, 1, 2]], np.uint8)).tolist() == [[30, 255, 200]]
    path.write_text(json.dumps({"0": "void", "7": "road"}))
    with pytest.raises(DataError, match=r"no id for 2 of the 3 classes, first sky; map\.json knows \[0, 7, 255\]"):
        OutputIds.open(str(path), small)


def test_the_colours_of_an_annotation_tool(tmp_path) -> None:
    small = ClassSet(("road", "sky"), ((1, 2, 3), (4, 5, 6)))
    path = tmp_path / "labelmap.txt"
    path.write_text("background:0,0,0::\nsky:10,20,30::\nroad:40,50,60::\n")
    OutputIds.open(str(path), small).save(np.array([[0, 1]], np.uint8), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array(picture).tolist() == [[2, 1]]
        assert np.array(picture.convert("RGB")).tolist() == [[[40, 50, 60], [10, 20, 30]]]
