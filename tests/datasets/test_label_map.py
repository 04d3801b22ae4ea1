"""What label ids mean: classes in their order, named tables, and files that users and annotation tools write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.bundle.classes import ADE20K, CAMVID, CITYSCAPES, IGNORE, ClassSet
from errseg_rt.datasets import LabelMap
from errseg_rt.errors import DataError

SMALL = ClassSet(("road", "traffic light", "side-walk"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
PATH = Path("ids.png")


def file(folder: Path, content: object, name: str = "map.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def classes_of(label_map: LabelMap, *ids: int) -> list[int]:
    return label_map.apply(np.array([ids], np.uint8), PATH)[0].tolist()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (33, 47)], ids=str)
def test_a_map_is_a_table(size) -> None:
    ids = {3: 0, 200: 2, 0: 1, 9: IGNORE}
    raw = np.random.default_rng(1).choice(list(ids), size).astype(np.uint8)
    found = LabelMap(ids, "").apply(raw, PATH)
    assert (found.dtype, found.shape) == (np.uint8, size)
    assert found.tolist() == [[ids[label] for label in row] for row in raw.tolist()]


def test_ids_are_the_classes() -> None:
    assert classes_of(LabelMap.of(3, ()), 0, 1, 2, 255) == [0, 1, 2, IGNORE]
    assert classes_of(LabelMap.of(3), 2, 3, 255) == [2, IGNORE, IGNORE]
    assert classes_of(LabelMap.of(3, (200,)), 2, 200) == [2, IGNORE]
    assert classes_of(LabelMap.of(255), 254, 255) == [254, IGNORE]


def test_ids_counted_from_another_first() -> None:
    assert classes_of(LabelMap.of(3, first_id=1), 0, 1, 2, 3, 4, 255) == [IGNORE, 0, 1, 2, IGNORE, IGNORE]
    assert classes_of(LabelMap.of(3, (0,), 2), 0, 2, 4) == [IGNORE, 0, 2]
    with pytest.raises(DataError, match=r"label ids \[1\] are neither .*; classes are 2\.\.4, void \[0, 255\]"):
        classes_of(LabelMap.of(3, (0,), 2), 1)


@pytest.mark.parametrize(
    ("classes", "void", "first", "message"),
    [
        (3, (2,), 0, r"void ids lie outside the 3 classes, in 3\.\.255, got \[2\]"),
        (3, (0, 3), 1, r"outside the 3 classes, in 0\.\.0 or 4\.\.255, got \[3\]"),
        (3, (256, -1), 0, r"got \[256, -1\]"),
        (3, (), -1, r"3 classes have ids from 0\.\.252 on, got a first id of -1"),
        (3, (), 253, r"got a first id of 253"),
    ],
)  # fmt: skip
def test_ids_that_have_no_room(classes, void, first, message) -> None:
    with pytest.raises(DataError, match=message):
        LabelMap.of(classes, void, first)


def test_named_maps() -> None:
    assert classes_of(LabelMap.open("labelIds", CITYSCAPES), 7, 33, 0, 34 - 5) == [0, 18, IGNORE, IGNORE]
    assert classes_of(LabelMap.open("trainIds", CITYSCAPES), 7, 18, 255) == [7, 18, IGNORE]
    assert classes_of(LabelMap.open("ade20k", ADE20K), 0, 1, 150) == [IGNORE, 0, 149]
    for name in ("trainIds", "palette"):
        assert classes_of(LabelMap.open(name, CAMVID), 0, 10, 255) == [0, 10, IGNORE]
    assert LabelMap.open("palette", CAMVID).colors == dict(enumerate(CAMVID.colors))
    with pytest.raises(DataError, match=r"the label map labelIds has 19 classes, but 11 are wanted \(sky, .*JSON"):
        LabelMap.open("labelIds", CAMVID)


def test_a_json_file(tmp_path: Path) -> None:
    names = {"0": "void", "7": "road", "8": "Traffic_Light", "30": "sidewalk", "9": "road", "31": "ignore"}
    with pytest.raises(DataError, match=r"map\.json: 'sidewalk' is no class; nearest is 'side-walk'; there are road,"):
        LabelMap.from_file(file(tmp_path, names), SMALL)
    found = LabelMap.open(str(file(tmp_path, names | {"30": "side walk"})), SMALL)
    assert classes_of(found, 0, 7, 8, 9, 30, 31, 255) == [IGNORE, 0, 1, 0, 2, IGNORE, IGNORE]
    with pytest.raises(
        DataError, match=r"ids\.png: label ids \[1, 2\] are neither .* map\.json knows \[0, 7, 8, 9, 30,"
    ):
        classes_of(found, 0, 1, 2)


def test_255_may_be_a_class_where_the_file_says_so(tmp_path: Path) -> None:
    """Masks of 0 and 255, as many tools save two classes."""
    two = ClassSet(("background", "vessel"), ((0, 0, 0), (255, 0, 0)))
    found = LabelMap.from_file(file(tmp_path, {"0": "background", "255": "vessel"}), two)
    assert classes_of(found, 0, 255) == [0, 1]


@pytest.mark.parametrize("colon", [":128,64,128::", ": 128, 64, 128"], ids=["cvat", "spaces"])
def test_what_cvat_exports(tmp_path: Path, colon) -> None:
    text = f"# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad{colon}\ntraffic light:1,2,3::\n"
    found = LabelMap.from_file(file(tmp_path, text, "labelmap.txt"), SMALL)
    assert classes_of(found, 0, 1, 2, 255) == [IGNORE, 0, 1, IGNORE]
    assert found.colors == {0: (0, 0, 0), 1: (128, 64, 128), 2: (1, 2, 3)}


def test_what_labelme_has(tmp_path: Path) -> None:
    text = "\ufeff__ignore__\n_background_\nroad\nside_walk\n"
    found = LabelMap.from_file(file(tmp_path, text, "labels.txt"), SMALL)
    assert classes_of(found, 0, 1, 2, 255) == [IGNORE, 0, 2, IGNORE]
    assert found.colors == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([0, 1], r'no label map, JSON as \{"0": "void"'),
        ('{"0": "void",', r"no label map, JSON as"),
        ('{"0": "void", "0": "road"}', r"has '0' twice"),
        ('{"0": "void", "00": "road"}', r"has id 0 twice"),
        ({"256": "road"}, r"'256' is no label id in 0\.\.255"),
        ({"-1": "road"}, r"'-1' is no label id"),
        ({"road": 0}, r"'road' is no label id"),
        ({"0": 0}, r"id 0 has 0, wanted the name of a class"),
        ({"0": None}, r"id 0 has None, wanted the name of a class"),
        ({"0": "void"}, r"names no class, only void"),
        ({}, r"names no class, only void"),
        ("", r"wanted JSON as .* or a name a line, 0 found"),
        ("road:1,2::\n", r"'road:1,2::' is no line as name:red,green,blue"),
        ("road:1,2,256::\n", r"is no line as name:red,green,blue"),
        ("road:1,2,3::\ntraffic light\n", r"1 of the 2 lines have no colour"),
        ("road:1,2,3::\ntraffic light:1,2,3::\n", r"two lines have one colour"),
        ("raod\n", r"'raod' is no class; nearest is 'road'"),
        ("[" * 100_000, r"no label map, JSON as .*nested too deeply"),
        ('{"0": ' + "1" * 5000 + "}", r"(no label map, JSON as|id 0 has 1)"),
        ({"1" * 5000: "road"}, r"'1{59}\.\.\. is no label id"),
        ("road:" + "1" * 5000 + ",2,3::\n", r"is no line as name:red,green,blue"),
        ("road:\u0661,2,3::\n", r"is no line as name:red,green,blue"),
        ("zzz\n", r"'zzz' is no class; there are road, traffic light, side-walk, void"),
    ],
)  # fmt: skip
def test_files_that_are_no_map(tmp_path: Path, content, message) -> None:
    with pytest.raises(DataError, match=rf"map\.json: .*{message}"):
        LabelMap.from_file(file(tmp_path, content), SMALL)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    for name in ("none.json", ".", "binary"):
        with pytest.raises(DataError, match="no label map that can be read"):
            LabelMap.from_file(tmp_path / name, SMALL)


HINTS = {
    "scaled": (LabelMap.of(11), [0, 20, 40, 60, 220], "all are multiples of 20: divide them by it"),
    "scaled_without_void": (LabelMap.of(11), [40, 60, 200, 255], "all are multiples of 20"),
    "two_classes": (LabelMap.of(2), [0, 128], "all are multiples of 128"),
    "label_ids": (LabelMap.of(19), [0, 7, 8, 11, 33], "give --label-map labelIds"),
    "shifted_already": (LabelMap.ade20k(), [0, 4, 149, 255], "give --first-id 0"),
    "training_ids": (LabelMap.cityscapes(), [0, 4, 18, 255], "give --first-id 0"),
}


@pytest.mark.parametrize("name", HINTS)
def test_how_strange_ids_may_have_come_about(name) -> None:
    label_map, ids, hint = HINTS[name]
    with pytest.raises(DataError, match=hint):
        classes_of(label_map, *ids)


@pytest.mark.parametrize("ids", [[77], [0, 77], [0, 150, 255], [12, 13, 40]], ids=str)
def test_no_hint_where_nothing_is_known(ids) -> None:
    with pytest.raises(DataError, match=r"classes are 0\.\.10, void \[11, 255\]$"):
        classes_of(LabelMap.of(11), *ids)
