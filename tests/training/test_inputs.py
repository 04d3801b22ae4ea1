"""What label ids of a training's data mean, and what is taken of its files: one rule for all of its splits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from errseg_rt.bundle.classes import CAMVID, IGNORE
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.training.claim import claim, input_differences
from errseg_rt.training.inputs import look_at_splits, open_splits
from tests.networks.tensorflow.writer import write_checkpoint

IDS = {0: "void", 7: "road", 40: "car", 41: "car", 200: "sky"}
MEANT = {label: IGNORE if name == "void" else CAMVID.names.index(name) for label, name in IDS.items()}
# Image and label file of frame NN, of training and of validation.
LAYOUTS = {
    "folder": ["{0}/images/{1}.png", "{0}/labels/{1}.png", "train", "val"],
    "folders_within": ["images/{0}/{1}.png", "labels/{0}/{1}.png", "train", "val"],
    "cityscapes": [
        "leftImg8bit/{0}/a/a_{1}_leftImg8bit.png",
        "gtFine/{0}/a/a_{1}_gtFine_labelIds.png",
        "train",
        "val",
    ],
    "ade20k": ["images/{0}/{1}.jpg", "annotations/{0}/{1}.png", "training", "validation"],
    "voc": ["JPEGImages/{0}{1}.jpg", "SegmentationClass/{0}{1}.png", "train", "val"],
}


def bare(items, title, total):
    return items


def seen(data, recipe, *reading):
    return look_at_splits(open_splits(data, recipe, *reading), recipe, None, bare)


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_data(root, layout, ids):
    """Twenty frames to learn from, and two to score on, with random ids of some: those of the two."""
    image, label, *splits = LAYOUTS[layout]
    rng, drawn = np.random.default_rng(0), []
    for split, count in zip(splits, (20, 2), strict=True):
        for index in range(count):
            labels = rng.choice(np.array(list(ids), np.uint8), (7, 9))
            write(root / image.format(split, f"{index:02d}"), rng.integers(0, 256, (7, 9, 3), np.uint8))
            write(root / label.format(split, f"{index:02d}"), labels)
            drawn.append(labels)
        if layout == "voc":
            names = root / "ImageSets" / "Segmentation" / f"{split}.txt"
            names.parent.mkdir(parents=True, exist_ok=True)
            names.write_text("".join(f"{split}{index:02d}\n" for index in range(count)))
    return drawn[-2:]


@pytest.fixture
def mapped(recipe, tmp_path):
    """A recipe with a label map in a file."""
    path = tmp_path / "map.json"
    path.write_text(json.dumps(IDS))
    return replace(recipe, data=replace(recipe.data, void=(), label_map=str(path)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_splits_of_every_layout_are_read_by_one_map(mapped, tmp_path, layout):
    drawn = write_data(tmp_path / "data", layout, IDS)
    frames = seen(tmp_path / "data", mapped)
    assert len(frames.val) == 2
    for index, ids in enumerate(drawn):
        np.testing.assert_array_equal(frames.val[index][1], np.vectorize(MEANT.get)(ids))
    for split in (frames.learned, frames.held):
        found = {*np.unique([split[index][1] for index in range(len(split))]).tolist()}
        assert found == set(MEANT.values())


def test_ids_may_be_counted_from_1(recipe, tmp_path):
    from_1 = replace(recipe, data=replace(recipe.data, first_id=1, void=None))
    drawn = write_data(tmp_path, "folder", range(13))
    frames = seen(tmp_path, from_1)
    for index, ids in enumerate(drawn):
        wanted = np.where((ids == 0) | (ids == 12), IGNORE, ids.astype(int) - 1)
        np.testing.assert_array_equal(frames.val[index][1], wanted)
    void = replace(from_1, data=replace(from_1.data, void=(11,)))
    with pytest.raises(DataError, match=r"void ids lie outside the 11 classes, in 0\.\.0 or 12\.\.255, got \[11\]"):
        open_splits(tmp_path, void)


def test_a_map_is_what_it_says(mapped, recipe, tmp_path):
    write_data(tmp_path / "data", "folder", [0, 7])
    other, out = tmp_path / "labels.json", tmp_path / "out"
    claim(out, mapped, seen(tmp_path / "data", mapped).inputs, is_finished=False)

    def differences(names):
        other.write_text(json.dumps(names, indent=3))
        moved = replace(mapped, data=replace(mapped.data, label_map=str(other)))
        return input_differences(out, seen(tmp_path / "data", moved).inputs)

    assert differences(dict(sorted(IDS.items(), reverse=True))) == []
    assert differences({**IDS, 8: "tree"}) == ["label map: ids mean something else"]  # which no frame has
    assert differences({**IDS, 7: "pavement"}) == [
        "label map: ids mean something else",
        "train: 00 and 19 more with other labels",
    ]


MAPS = {
    "of_other_classes": ("labelIds", r"the label map labelIds has 19 classes, but 11 are wanted"),
    "missing": ("nowhere.json", r"nowhere\.json: no label map that can be read"),
}


@pytest.mark.parametrize(("label_map", "message"), MAPS.values(), ids=MAPS)
def test_a_map_that_is_none_is_told_before_any_frame_is_read(recipe, tmp_path, label_map, message):
    write_data(tmp_path, "folder", [0])
    (tmp_path / "train" / "images" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        open_splits(tmp_path, replace(recipe, data=replace(recipe.data, void=(), label_map=label_map)))


def test_files_are_taken_as_is_asked_for(recipe, tmp_path):
    write_data(tmp_path, "folder", [0, 1])
    path = tmp_path / "val" / "images" / "00.png"
    exif = Image.Exif()
    exif[0x112] = 3
    Image.fromarray(np.arange(189, dtype=np.uint8).reshape(7, 9, 3)).save(path, exif=exif.tobytes())
    turned, stored = (seen(tmp_path, recipe, Reading(ignore_orientation=rule)) for rule in (False, True))
    np.testing.assert_array_equal(turned.val[0][0], stored.val[0][0][::-1, ::-1])
    assert turned.inputs.val != stored.inputs.val  # another training's

    with pytest.raises(DataError, match=r"^20 of the 20 frames of .* cannot be used: .* over the limit of 62"):
        seen(tmp_path, recipe, Reading(max_pixels=62))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 20])
    with pytest.raises(DataError, match=r"00\.png: "):
        seen(tmp_path, recipe)
    assert len(seen(tmp_path, recipe, Reading(allow_damaged=True)).val) == 2


MERGE = {"ground": ("road", "pavement"), "sky": ("sky",), "thing": ("car", "pole")}


def test_merged_labels_are_truth_ids_where_they_are_learned_from(recipe, tmp_path):
    """Scores are of the coarse classes; what is learned from tells a class from a set of several."""
    merged = replace(recipe, data=replace(recipe.data, merge=MERGE, void=(3,)))
    drawn = write_data(tmp_path, "folder", range(4))
    frames = seen(tmp_path, merged)
    for index, ids in enumerate(drawn):
        np.testing.assert_array_equal(frames.val[index][1], np.where(ids == 3, IGNORE, ids))
    sky = CAMVID.names.index("sky")
    learned = {*np.unique([frames.learned[index][1] for index in range(len(frames.learned))]).tolist()}
    assert learned == {11, sky, 13, IGNORE}
    held = {*np.unique([frames.held[index][1] for index in range(len(frames.held))]).tolist()}
    assert held == {0, 1, 2, IGNORE}


def test_further_frames_are_learned_from_and_have_the_networks_classes(recipe, tmp_path, write_folder):
    merged = replace(recipe, data=replace(recipe.data, merge=MERGE, void=(3,), also=0.25))
    write_data(tmp_path / "data", "folder", range(4))
    pictures, labels = write_folder(tmp_path / "more", 3, size=(5, 6))
    splits = open_splits(tmp_path / "data", merged, Reading(), tmp_path / "more")
    frames = look_at_splits(splits, merged, None, bare)
    without = seen(tmp_path / "data", merged)
    assert (frames.also, len(frames.learned)) == (3, len(without.learned) + 3)
    for index in range(3):
        picture, ids = frames.learned[len(without.learned) + index]
        np.testing.assert_array_equal(picture, pictures[index])
        np.testing.assert_array_equal(ids, labels[index])
    assert frames.learned.shares[-3:] == pytest.approx([0.25 / 3] * 3)
    assert frames.learned.shares.sum() == pytest.approx(1)
    assert without.learned.shares is None
    assert len(frames.held) == len(without.held)
    # They are a part of what the training is of.
    claim(tmp_path / "out", merged, frames.inputs, is_finished=False)
    assert input_differences(tmp_path / "out", frames.inputs) == []
    assert input_differences(tmp_path / "out", without.inputs) == ["also: f000 and 2 more gone"]


def test_initial_weights_are_all_files_of_a_checkpoint(recipe, tmp_path):
    splits = open_splits(None, recipe)
    digests = []
    for value in (1.0, 2.0):
        write_checkpoint(tmp_path / "model.ckpt", {"weight": np.full(3, value, np.float32)})
        digests.append(look_at_splits(splits, recipe, tmp_path / "model.ckpt", bare).inputs.init)
    index, shard = tmp_path / "model.ckpt.index", tmp_path / "model.ckpt.data-00000-of-00001"
    assert digests[1] == hashlib.sha256(index.read_bytes() + shard.read_bytes()).hexdigest()
    assert digests[0] != digests[1]
    assert look_at_splits(splits, recipe, index, bare).inputs.init == digests[1]
    assert look_at_splits(splits, recipe, shard, bare).inputs.init == digests[1]
