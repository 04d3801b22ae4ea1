"""Files of instances: index maps, COCO's run lengths and JSON, and panoptic maps, read back by others."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets import open_dataset
from errseg_rt.errors import FrameError
from errseg_rt.frames.coco import coco_annotations, write_coco
from errseg_rt.frames.index_map import write_index_map
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.panoptic import panoptic_map, write_panoptic_json, write_panoptic_map
from errseg_rt.frames.reading import read_instance_ids
from errseg_rt.frames.run_lengths import decode_mask, encode_masks

ANIMALS = ClassSet(("grass", "cat", "dog", "sky"), ((0, 255, 0), (255, 0, 0), (0, 0, 255), (9, 9, 9)))
SHAPES = [(1, 1), (1, 9), (9, 1), (7, 13), (65, 64), (90, 201)]


def blocks(shape: tuple[int, int], ids: int, block: int, seed: int = 0) -> np.ndarray:
    """Ids 0..`ids` in blocks, in no order."""
    coarse = [-(-side // block) for side in shape]
    many = np.random.default_rng(seed).integers(0, ids + 1, coarse)
    return np.kron(many, np.ones((block, block), np.int32)).astype(np.int32)[: shape[0], : shape[1]]


def some(shape: tuple[int, int], count: int = 9, seed: int = 0) -> Instances:
    rng = np.random.default_rng(seed)
    error_map = rng.random(shape).astype(np.float32)
    return Instances.of(blocks(shape, count, 5), rng.integers(1, 3, count), rng.random(count), ANIMALS, error_map)


def by_definition(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, those of pixels outside first."""
    counts, inside = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != inside:
            counts.append(0)
            inside = not inside
        counts[-1] += 1
    return counts


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", [1, 3, 50])
def test_run_lengths_are_those_of_pycocotools(shape: tuple[int, int], block: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    index = blocks(shape, 5, block)
    for number, mask in enumerate(encode_masks(index, 7), 1):  # ids 6 and 7 are not there
        wanted = coco.encode(np.asfortranarray((index == number).astype(np.uint8)))
        assert mask == {"size": list(shape), "counts": wanted["counts"].decode()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", [1, 3, 50])
def test_run_lengths_are_read_back(shape: tuple[int, int], block: int) -> None:
    index = blocks(shape, 5, block)
    for number, mask in enumerate(encode_masks(index, 6), 1):
        np.testing.assert_array_equal(decode_mask(mask), index == number)
        raw = {**mask, "counts": mask["counts"].encode()}
        np.testing.assert_array_equal(decode_mask(raw), index == number)


def test_run_lengths_by_hand() -> None:
    index = np.array([[1, 0, 1], [1, 1, 1]])
    assert by_definition(index == 1) == [0, 2, 1, 3]
    # The fourth is written less the second: 0, 2, 1, 3 - 2.
    assert encode_masks(index, 1)[0]["counts"] == "0211"
    assert encode_masks(np.zeros((2, 3), int), 1)[0]["counts"] == "6"
    assert encode_masks(np.zeros((2, 3), int), 0) == []


@pytest.mark.parametrize("counts", ["7", "5", "W", "!", "6o", "o" * 30 + "0", ""], ids=repr)
def test_what_are_no_run_lengths(counts: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_mask({"size": [2, 3], "counts": counts})


def test_an_index_map_is_read_back(tmp_path: Path) -> None:
    index = np.array([[0, 1, 300], [65535, 256, 2]], np.int32)
    path = write_index_map(index, tmp_path / "deep" / "a_instances.png")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, index)
    np.testing.assert_array_equal(read_instance_ids(path, (2, 3)), index)
    assert [each.name for each in path.parent.iterdir()] == ["a_instances.png"]


def test_more_instances_than_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(FrameError, match=r"a\.png: 65536 instances, but a 16-bit PNG tells 65535 apart"):
        write_index_map(np.array([[0, 65536]], np.int32), path)
    assert not path.exists()


def test_coco_json_is_opened_by_pycocotools(tmp_path: Path, capsys) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    frames = {"a.png": some((33, 47)), "b/c.jpg": Instances.none((5, 6), ANIMALS), "d.png": some((21, 8), seed=1)}
    path = write_coco(frames.items(), ANIMALS, tmp_path / "instances.json")
    opened = coco.COCO(str(path))
    keys = ("image_id", "category_id", "segmentation", "score")  # with a box, it would take that for the mask
    results = opened.loadRes([{key: each[key] for key in keys} for each in opened.dataset["annotations"]])
    capsys.readouterr()
    assert [each["name"] for each in opened.loadCats([0, 1, 2, 3])] == list(ANIMALS.names)
    for number, (name, instances) in enumerate(frames.items(), 1):
        (image,) = opened.loadImgs([number])
        assert (image["file_name"], image["height"], image["width"]) == (name, *instances.map.shape)
        annotations = results.loadAnns(results.getAnnIds([number]))
        assert len(annotations) == len(instances)
        for place, (each, own) in enumerate(zip(annotations, opened.imgToAnns[number], strict=True)):
            np.testing.assert_array_equal(opened.annToMask(each), instances.mask(place))
            for one in (each, own):
                np.testing.assert_array_equal(one["bbox"], instances.boxes[place])
                assert one["area"] == instances.areas[place]
            assert each["category_id"] == instances.classes[place]
            assert each["score"] == instances.scores[place]


def test_coco_json_without_instances(tmp_path: Path) -> None:
    path = write_coco([], ANIMALS, tmp_path / "instances.json")
    document = json.loads(path.read_text())
    assert (document["annotations"], document["images"], len(document["categories"])) == ([], [], 4)


def test_annotations_say_the_error_where_it_is_known() -> None:
    known = some((33, 47))
    errors = [each["error_probability"] for each in coco_annotations(known, 5, 10)]
    assert known.error_probability is not None
    np.testing.assert_array_equal(errors, known.error_probability)
    unknown = Instances.of(np.ones((2, 2), int), [1], [1.0], ANIMALS)
    (only,) = coco_annotations(unknown, 5, 10)
    assert "error_probability" not in only
    assert (only["id"], only["image_id"]) == (10, 5)


def test_panoptic_map_by_its_definition() -> None:
    index = np.array([[1, 1, 0, 0], [0, 2, 0, 0]], np.int32)
    labels = np.array([[1, 0, 1, 3], [0, 3, 3, 255]], np.uint8)
    instances = Instances.of(index, [1, 2], [0.25, 0.75], ANIMALS)
    ids, segments = panoptic_map(labels, instances, things=(1, 2))
    # Two instances, by score; the cat's label without an instance and what has no class are void.
    np.testing.assert_array_equal(ids, [[2, 2, 0, 6], [3, 1, 6, 0]])
    assert segments == [
        {"id": 1, "category_id": 2, "area": 1, "bbox": [1, 1, 1, 1], "iscrowd": 0, "score": 0.75},
        {"id": 2, "category_id": 1, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0, "score": 0.25},
        {"id": 3, "category_id": 0, "area": 1, "bbox": [0, 1, 1, 1], "iscrowd": 0},
        {"id": 6, "category_id": 3, "area": 2, "bbox": [2, 0, 2, 2], "iscrowd": 0},
    ]
    with pytest.raises(ValueError, match="differ in size"):
        panoptic_map(labels[:1], instances, (1, 2))


def test_panoptic_files_are_read_back_as_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frames = []
    for name, shape in (("a", (33, 47)), ("b", (8, 21))):
        frame, labels = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 4, shape, np.uint8)
        (tmp_path / "mine").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "mine" / f"{name}.png"), frame)
        ids, segments = panoptic_map(labels, some(shape), (1, 2))
        ids = np.where(ids > 0, ids + 70000, 0).astype(np.int32)  # of three bytes
        segments = [{**each, "id": each["id"] + 70000} for each in segments]
        write_panoptic_map(ids, tmp_path / "panoptic_mine" / f"{name}_x.png")
        frames.append((f"{name}.png", f"{name}_x.png", shape, segments))
    write_panoptic_json(frames, ANIMALS, (1, 2), tmp_path / "panoptic_mine.json")
    data = open_dataset(tmp_path, ANIMALS)
    for index, (_, _, shape, segments) in enumerate(frames):
        _, labels = data[index]
        found = data.instances(index, labels)
        things = [each for each in segments if each["category_id"] in (1, 2)]
        assert found.map.shape == shape
        assert found.classes.tolist() == [each["category_id"] for each in things]
        assert np.bincount(found.map[found.map > 0])[1:].tolist() == [each["area"] for each in things]
        np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=4)[[0, 3]], [
            sum(each["area"] for each in segments if each["category_id"] == label) for label in (0, 3)
        ])  # fmt: skip


def test_segment_ids_of_more_than_three_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"segment ids are 0\.\.16777215"):
        write_panoptic_map(np.array([[1 << 24]], np.int32), tmp_path / "a.png")
