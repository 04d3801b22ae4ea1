"""True instances, and the layouts that hold them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from errseg_rt.bundle.classes import CITYSCAPES, IGNORE, ClassSet
from errseg_rt.datasets import open_dataset
from errseg_rt.datasets.instances import VOID, Meaning, TrueInstances
from errseg_rt.datasets.label_map import LabelMap
from errseg_rt.errors import DataError

SHAPE = (33, 47)


def class_set(*names: str) -> ClassSet:
    return ClassSet(names, tuple((index, 0, 0) for index in range(len(names))))


NUCLEI = class_set("background", "nucleus")
ANIMALS = class_set("background", "cat", "dog")


@pytest.fixture
def ids() -> np.ndarray:
    """Blocks of ids 0..300, of which several are missing."""
    rng = np.random.default_rng(3)
    return np.kron(rng.choice([0, 0, 1, 2, 7, 255, 256, 300], (11, 16)), np.ones((3, 3), int))[:, :47].astype(np.uint16)


# --- ids to instances


def test_ids_become_instances_in_their_order() -> None:
    ids = np.array([[0, 9, 9, 4], [2, 2, 7, 4]], np.int32)
    meanings = {2: Meaning(1), 4: Meaning(IGNORE), 9: Meaning(2, crowd=True)}  # 7 is nobody's
    found = TrueInstances.of(ids, meanings)
    np.testing.assert_array_equal(found.map, [[0, 2, 2, VOID], [1, 1, 0, VOID]])
    assert (found.classes.tolist(), found.crowd.tolist(), len(found)) == ([1, 2], [False, True], 2)
    assert (found.map.dtype, found.classes.dtype) == (np.int32, np.int32)


def test_an_instance_has_the_class_of_most_of_its_pixels() -> None:
    ids = np.array([[1, 1, 1, 2, 2, 3, 0, 9]], np.int32)
    labels = np.array([[4, 4, 5, IGNORE, 3, IGNORE, 2, 1]], np.uint8)
    found = TrueInstances.of_labels(ids, labels, void=9)
    np.testing.assert_array_equal(found.map, [[1, 1, 1, 2, 2, VOID, 0, VOID]])
    assert found.classes.tolist() == [4, 3]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (4, 5)], ids=str)
def test_no_instance(shape: tuple[int, int]) -> None:
    nobody = np.zeros(shape, np.int32)
    for found in (TrueInstances.of(nobody, {}), TrueInstances.of_labels(nobody, nobody.astype(np.uint8))):
        assert (len(found), found.map.shape, found.map.any()) == (0, shape, False)


# --- plain folders


def test_labels_follow_from_instances(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    frame = noise()
    write(tmp_path, {"images/a.png": frame, "instances/a.png": ids})
    data = open_dataset(tmp_path, NUCLEI)
    assert data.has_instances
    got, labels = data[0]
    np.testing.assert_array_equal(got, frame)
    np.testing.assert_array_equal(labels, ids > 0)
    found = data.instances(0, labels)
    assert found.classes.tolist() == [1] * 6
    for number, each in enumerate([1, 2, 7, 255, 256, 300], 1):
        np.testing.assert_array_equal(found.map == number, ids == each)


def test_the_class_that_is_a_thing(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids})
    for classes, things, background, thing in (
        (class_set("cell", "background"), (), 1, 0),
        (class_set("rest", "cell"), (), 0, 1),
        (ANIMALS, (2,), 0, 2),
        (class_set("road", "car", "sky"), (1,), IGNORE, 1),
    ):
        data = open_dataset(tmp_path, classes, things=things)
        _, labels = data[0]
        np.testing.assert_array_equal(labels, np.where(ids > 0, thing, background))
        assert set(data.instances(0, labels).classes.tolist()) == {thing}
    with pytest.raises(DataError, match=r"of which of the 3 classes .* write classes\.csv .* ,,dog"):
        open_dataset(tmp_path, ANIMALS)


@pytest.mark.parametrize("layout", ["{kind}/val/{name}", "val/{kind}/{name}"], ids=["inside", "beside"])
def test_splits_of_instances(tmp_path: Path, write, noise, ids: np.ndarray, layout: str) -> None:
    for kind, picture in (("images", noise()), ("instances", ids)):
        write(tmp_path, {layout.format(kind=kind, name="deep/a.png"): picture})
    data = open_dataset(tmp_path, NUCLEI, split="val")
    assert (list(data.names), len(data.instances(0, data[0][1]))) == (["deep/a"], 6)
    with pytest.raises(DataError, match="choose one of val"):
        open_dataset(tmp_path, NUCLEI, split="train")


def test_classes_in_a_file(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids})
    write(tmp_path, {"images/b.png": noise(), "instances/b.png": ids})
    (tmp_path / "classes.csv").write_text("name,id,class,crowd\n,,cat,\na,7,dog,\na,255,Dog,1\nb,,dog,0\n")
    data = open_dataset(tmp_path, ANIMALS)
    first, second = (data.instances(index, data[index][1]) for index in (0, 1))
    assert first.classes.tolist() == [1, 1, 2, 2, 1, 1]
    assert first.crowd.tolist() == [False, False, False, True, False, False]
    assert second.classes.tolist() == [2] * 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na,cat\n", "no column 'id'"),
        ("name,id,class\na,1,cot\n", "line 2: 'cot' is no class; nearest is 'cat'|line 2: 'cot' is no class"),
        ("name,id,class\na,-1,cat\n", "line 2: '-1' is no instance id"),
        ("name,id,class,crowd\na,1,cat,maybe\n", "crowd is 0 or 1, got 'maybe'"),
        ("name,id,class\n", "names no instance"),
    ],
    ids=["column", "class", "id", "crowd", "empty"],
)
def test_a_file_of_classes_that_is_none(tmp_path: Path, write, noise, ids, text: str, message: str) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids})
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=rf"classes\.csv: .*(?:{message})"):
        open_dataset(tmp_path, ANIMALS)


def test_an_id_without_class(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids})
    (tmp_path / "classes.csv").write_text("name,id,class\na,1,cat\n")
    with pytest.raises(DataError, match=r"instances/a\.png: instance id 2 has no class; classes\.csv names none"):
        open_dataset(tmp_path, ANIMALS)[0]


def test_a_folder_with_labels_and_instances(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    labels = (ids % 3).astype(np.uint8)
    write(tmp_path, {"images/a.png": noise(), "labels/a.png": labels, "instances/a.png": ids})
    data = open_dataset(tmp_path, ANIMALS)
    found = data.instances(0, data[0][1])
    np.testing.assert_array_equal(data[0][1], labels)
    assert found.classes.tolist() == [each % 3 for each in (1, 2, 7, 255, 256, 300)]
    without = open_dataset(tmp_path, ANIMALS).subset([])
    assert without.has_instances


def test_data_without_instances(folder) -> None:
    root, _, labels = folder
    data = open_dataset(root, class_set(*map(str, range(11))))
    assert not data.has_instances
    with pytest.raises(DataError, match=r"f000\.png: no instance map"):
        data.instances(0, labels[0])


def test_a_missing_map_is_named_when_it_is_read(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids, "images/b.png": noise()})
    data = open_dataset(tmp_path, NUCLEI)
    assert list(data.names) == ["a", "b"]
    assert len(data.instances(0, data[0][1])) == 6
    with pytest.raises(DataError, match=r"instances/b\.png: cannot be read \(No such file"):
        data[1]
    (tmp_path / "labels").mkdir()
    write(tmp_path, {f"labels/{name}.png": noise(0, 2) for name in "ab"})
    both = open_dataset(tmp_path, NUCLEI)
    assert len(both.instances(0, both[0][1])) == 6
    with pytest.raises(DataError, match=r"instances/b\.png: cannot be read"):
        both.instances(1, both[1][1])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            np.zeros((*SHAPE, 3), np.uint8),
            "instance ids in RGB; save the instance ids, not their colours, as an 8- or 16",
        ),
        (np.zeros((33, 46), np.uint16), "instance ids of 33x46 pixels, wanted 33x47 as the frame"),
        (np.zeros((*SHAPE, 4), np.uint16), "instance ids in RGBA"),
    ],
    ids=["colours", "size", "deep-colours"],
)
def test_what_is_no_instance_map(tmp_path: Path, write, noise, picture: np.ndarray, message: str) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": picture})
    with pytest.raises(DataError, match=rf"instances/a\.png: {message}"):
        open_dataset(tmp_path, NUCLEI)[0]
    write(tmp_path, {"labels/a.png": noise(0, 2)})
    both = open_dataset(tmp_path, NUCLEI)
    with pytest.raises(DataError, match=rf"instances/a\.png: {message}"):
        both.instances(0, both[0][1])


def test_a_map_that_is_no_png(tmp_path: Path, noise) -> None:
    for name in ("images", "instances"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), noise())
    (tmp_path / "instances/a.png").write_bytes(cv2.imencode(".jpg", noise(0))[1].tobytes())
    with pytest.raises(DataError, match="instance ids are PNG, this is JPEG by what is in it; save the instance ids"):
        open_dataset(tmp_path, NUCLEI)[0]


def test_a_label_map_has_nothing_to_map(tmp_path: Path, write, noise, ids: np.ndarray) -> None:
    write(tmp_path, {"images/a.png": noise(), "instances/a.png": ids})
    with pytest.raises(DataError, match=r"holds instances/ and no labels/, .* classes\.csv says"):
        open_dataset(tmp_path, NUCLEI, first_id=1)


@pytest.mark.parametrize("drawn", ["as seen", "as stored"])
def test_instances_of_a_turned_image(tmp_path: Path, noise, ids: np.ndarray, drawn: str) -> None:
    stored, exif = noise(), Image.Exif()
    exif[0x112] = 6  # a quarter to the right
    for name in ("images", "instances"):
        (tmp_path / name).mkdir()
    Image.fromarray(stored[..., ::-1]).save(tmp_path / "images/a.png", exif=exif)
    turned = np.rot90(stored, -1) if drawn == "as seen" else stored
    index = np.rot90(ids, -1) if drawn == "as seen" else ids
    cv2.imwrite(str(tmp_path / "instances/a.png"), np.ascontiguousarray(index))
    data = open_dataset(tmp_path, NUCLEI)
    frame, labels = data[0]
    np.testing.assert_array_equal(frame, turned)
    np.testing.assert_array_equal(labels, index > 0)
    np.testing.assert_array_equal(data.instances(0, labels).map > 0, index > 0)


# --- Cityscapes


def test_cityscapes(tmp_path: Path, write, noise) -> None:
    stem, city = "ulm_000000_000019", "val/ulm"
    # car 0 and 12, a group of cars, a caravan (no class that counts), road, unlabeled, trailer's group
    ids = np.array([[26000, 26012, 26, 29001], [7, 0, 30, 24000]], np.uint16)
    labels = np.array([[26, 26, 26, 29], [7, 0, 30, 24]], np.uint8)
    write(tmp_path / "leftImg8bit" / city, {f"{stem}_leftImg8bit.png": noise()[:2, :4]})
    write(tmp_path / "gtFine" / city, {f"{stem}_gtFine_labelIds.png": labels, f"{stem}_gtFine_instanceIds.png": ids})
    data = open_dataset(tmp_path, CITYSCAPES)
    found = data.instances(0, data[0][1])
    car, person = CITYSCAPES.names.index("car"), CITYSCAPES.names.index("person")
    np.testing.assert_array_equal(found.map, [[3, 4, 1, VOID], [0, VOID, VOID, 2]])
    assert found.classes.tolist() == [car, person, car, car]
    assert found.crowd.tolist() == [True, False, False, False]
    ids[0, 0] = 40000
    write(tmp_path / "gtFine" / city, {f"{stem}_gtFine_instanceIds.png": ids})
    with pytest.raises(DataError, match=r"instanceIds\.png: instance id 40000 has no class; label ids of Cityscapes"):
        data.instances(0, data[0][1])


# --- VOC and SBD


def test_voc(tmp_path: Path, write, noise) -> None:
    labels = np.array([[0, 1, 1, 255], [2, 2, 0, 1]], np.uint8)
    objects = np.array([[0, 1, 1, 255], [2, 2, 0, 3]], np.uint8)
    write(tmp_path, {"JPEGImages/a.png": noise()[:2, :4]})
    for folder, picture in (("SegmentationClass", labels), ("SegmentationObject", objects)):
        (tmp_path / folder).mkdir()
        indexed = Image.fromarray(picture)
        indexed.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        indexed.save(tmp_path / folder / "a.png")
    data = open_dataset(tmp_path, ANIMALS)
    found = data.instances(0, data[0][1])
    np.testing.assert_array_equal(found.map, [[0, 1, 1, VOID], [2, 2, 0, 3]])
    assert found.classes.tolist() == [1, 2, 1]


def test_sbd(tmp_path: Path, write, noise) -> None:
    labels, objects = np.array([[0, 1, 1], [2, 2, 0]], np.uint8), np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    write(tmp_path, {f"img/{name}.png": noise()[:2, :3] for name in "ab"})
    for folder, key, picture in (("cls", "GTcls", labels), ("inst", "GTinst", objects)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            savemat(tmp_path / folder / f"{name}.mat", {key: {"Segmentation": picture, "Categories": [[1]]}})
    (tmp_path / "val.txt").write_text("b\n")
    data = open_dataset(tmp_path, ANIMALS, split="val")
    assert list(data.names) == ["b"]
    np.testing.assert_array_equal(data[0][1], labels)
    found = data.instances(0, data[0][1])
    np.testing.assert_array_equal(found.map, objects)
    assert found.classes.tolist() == [1, 2]
    (tmp_path / "inst/b.mat").write_bytes(b"no matlab file")
    with pytest.raises(DataError, match=r"inst/b\.mat: no MATLAB file with GTinst\.Segmentation"):
        data.instances(0, labels)
    (tmp_path / "inst/b.mat").unlink()
    with pytest.raises(DataError, match=r"inst/b\.mat: cannot be read"):
        data.instances(0, labels)
    savemat(tmp_path / "cls/b.mat", {"GTcls": {"Segmentation": labels[:, :2]}})
    with pytest.raises(DataError, match=r"cls/b\.mat: labels are uint8 \(2, 2\), wanted integers of 2x3"):
        data[0]


# --- COCO panoptic

CATEGORIES = [
    {"id": 17, "name": "cat", "isthing": 1},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 200, "name": "background", "isthing": 0},
]
SEGMENTS = {70000: (17, 0), 5: (200, 0), 300: (18, 1), 301: (18, 0)}


@pytest.fixture
def panoptic(tmp_path: Path, write, noise):
    """A tree of one frame; gives its root and ids, which may be written anew with other categories."""
    ids = np.array([[70000, 70000, 5], [300, 0, 301]], np.int64)

    def make(categories=CATEGORIES, segments=SEGMENTS, ids=ids):
        write(tmp_path / "val2017", {"a.png": noise()[: ids.shape[0], : ids.shape[1]]})
        colors = np.dstack([ids >> 16 & 255, ids >> 8 & 255, ids & 255]).astype(np.uint8)  # BGR
        write(tmp_path / "annotations/panoptic_val2017", {"a_panoptic.png": colors})
        info = [{"id": each, "category_id": label, "iscrowd": crowd} for each, (label, crowd) in segments.items()]
        document = {
            "images": [{"id": 9, "file_name": "a.png", "height": 2, "width": 3}],
            "annotations": [{"image_id": 9, "file_name": "a_panoptic.png", "segments_info": info}],
            "categories": categories,
        }
        (tmp_path / "annotations/panoptic_val2017.json").write_text(json.dumps(document))
        return tmp_path, ids

    return make


def test_coco_panoptic(panoptic) -> None:
    root, _ = panoptic()
    data = open_dataset(root, ANIMALS)
    assert list(data.names) == ["a"]
    _, labels = data[0]
    np.testing.assert_array_equal(labels, [[1, 1, 0], [2, IGNORE, 2]])
    found = data.instances(0, labels)
    np.testing.assert_array_equal(found.map, [[3, 3, 0], [1, VOID, 2]])
    assert (found.classes.tolist(), found.crowd.tolist()) == ([2, 2, 1], [True, False, False])


def test_coco_panoptic_with_a_label_map(panoptic) -> None:
    root, _ = panoptic(
        [{"id": 17, "name": "Katze"}, {"id": 18, "name": "Hund"}, {"id": 200, "name": "x", "isthing": 0}]
    )
    with pytest.raises(DataError, match=r"panoptic_val2017\.json: 'Katze' is no class"):
        open_dataset(root, ANIMALS)
    data = open_dataset(root, ANIMALS, label_map=LabelMap({17: 1, 18: IGNORE, 200: 0}, "of the test"))
    _, labels = data[0]
    np.testing.assert_array_equal(labels, [[1, 1, 0], [IGNORE, IGNORE, IGNORE]])
    np.testing.assert_array_equal(data.instances(0, labels).map, [[1, 1, 0], [VOID, VOID, VOID]])


def test_coco_panoptic_that_does_not_fit_its_json(panoptic, tmp_path: Path) -> None:
    root, _ = panoptic(segments={each: meant for each, meant in SEGMENTS.items() if each != 300})
    data = open_dataset(root, ANIMALS, split="val2017")
    with pytest.raises(DataError, match=r"a_panoptic\.png: segment 300 is not in segments_info of panoptic_val2017"):
        data[0]
    with pytest.raises(DataError, match="no split 'train2017': choose one of val2017"):
        open_dataset(root, ANIMALS, split="train2017")
    cv2.imwrite(str(root / "annotations/panoptic_val2017/a_panoptic.png"), np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"a_panoptic\.png: instance ids of one channel, wanted the colours of COCO"):
        data[0]
    (root / "annotations/panoptic_val2017.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"panoptic_val2017\.json: not of COCO's panoptic format"):
        open_dataset(root, ANIMALS)


# --- real data

DATA = Path(os.environ.get("ERRSEG_DATA", "/nowhere"))


@pytest.mark.skipif(not (DATA / "dsb2018_nuclei").is_dir(), reason="no nuclei under $ERRSEG_DATA")
def test_real_nuclei() -> None:
    data = open_dataset(DATA / "dsb2018_nuclei", NUCLEI)
    rows = (DATA / "dsb2018_nuclei/train.csv").read_text().splitlines()[1:]
    assert len(data) == len(rows) == 641
    for index in range(0, 641, 80):
        name, *_, nuclei, _ = rows[index].split(",")
        _, labels = data[index]
        assert data.names[index] == name
        assert len(data.instances(index, labels)) == int(nuclei)


@pytest.mark.skipif(not (DATA / "penn_fudan").is_dir(), reason="no pedestrians under $ERRSEG_DATA")
def test_real_pedestrians() -> None:
    data = open_dataset(DATA / "penn_fudan", class_set("background", "pedestrian"))
    rows = (DATA / "penn_fudan/index.csv").read_text().splitlines()[1:]
    for index in range(0, len(rows), 40):
        assert len(data.instances(index, data[index][1])) == int(rows[index].split(",")[3])


@pytest.mark.skipif(not (DATA / "cityscapes/gtFine").is_dir(), reason="no Cityscapes under $ERRSEG_DATA")
def test_real_streets() -> None:
    data = open_dataset(DATA / "cityscapes", CITYSCAPES, split="train")
    assert data.has_instances
    _, labels = data[0]
    found = data.instances(0, labels)
    assert len(found) > 5
    for number, label in enumerate(found.classes.tolist(), 1):
        assert (labels[found.map == number] == label).all()
    np.testing.assert_array_equal(found.map == VOID, labels == IGNORE)
