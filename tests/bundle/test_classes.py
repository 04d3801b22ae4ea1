"""Class sets: the customary names and colours, in the customary order."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import ADE20K, CAMVID, CITYSCAPES, CLASS_SETS, ClassSet


def test_class_sets_by_name():
    assert dict(CLASS_SETS) == {"camvid": CAMVID, "cityscapes": CITYSCAPES, "ade20k": ADE20K}
    assert {name: len(classes) for name, classes in CLASS_SETS.items()} == {
        "camvid": 11,
        "cityscapes": 19,
        "ade20k": 150,
    }


@pytest.mark.parametrize("classes", CLASS_SETS.values(), ids=CLASS_SETS)
def test_names_differ(classes: ClassSet):
    assert len(set(classes.names)) == len(classes)
    assert all(name == name.strip().lower() != "" for name in classes.names)


# Label in the benchmark's list (1..150), where the list has it.
ADE20K_LABELS = {
    1: "wall", 2: "building", 3: "sky", 10: "grass", 13: "person", 21: "car", 30: "field", 45: "chest of drawers",
    50: "fireplace", 59: "screen door", 66: "toilet", 77: "boat", 81: "bus", 90: "television", 100: "buffet",
    110: "swimming pool", 124: "trade name", 128: "bicycle", 131: "screen", 137: "traffic light", 142: "crt screen",
    145: "bulletin board", 150: "flag",
}  # fmt: skip


@pytest.mark.parametrize(("label", "name"), ADE20K_LABELS.items())
def test_order_of_ade20k(label, name):
    assert ADE20K.names[label - 1] == name


@pytest.mark.parametrize(
    ("classes", "name", "color"),
    [
        (CAMVID, "road", (128, 64, 128)),
        (CITYSCAPES, "road", (128, 64, 128)),
        (CITYSCAPES, "sky", (70, 130, 180)),
        (CITYSCAPES, "bicycle", (119, 11, 32)),
        (ADE20K, "wall", (120, 120, 120)),
        (ADE20K, "sky", (6, 230, 230)),
        (ADE20K, "skyscraper", (140, 140, 140)),
        (ADE20K, "flag", (92, 0, 255)),
    ],
)
def test_colours(classes, name, color):
    palette = classes.palette_bgr()
    assert (palette.shape, palette.dtype) == ((256, 3), np.uint8)
    assert tuple(palette[classes.names.index(name)][::-1]) == color
    assert not palette[len(classes) :].any()


@pytest.mark.parametrize(("one", "other"), [("road", "skyscraper")])
def test_only_two_classes_of_ade20k_share_a_colour(one, other):
    colors = dict(zip(ADE20K.names, ADE20K.colors, strict=True))
    assert colors[one] == colors.pop(other)
    assert len(set(colors.values())) == len(ADE20K) - 1
