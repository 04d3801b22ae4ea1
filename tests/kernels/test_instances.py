"""Instances on the CPU against the definition, and the definition against what is known of a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import Geometry, fuse_labels_reference
from errseg_rt.kernels.instances import InstanceSpec, instances, instances_reference
from errseg_rt.kernels.instances.cpu import reach_of
from errseg_rt.kernels.instances.operands import ONE
from tests.kernels.instance_scenes import GEOMETRIES, Scene, scene, spec

EVERYTHING = [
    {},
    {"top": 2},
    {"top": 3, "region_overlap": 0.3},
    {"least_pixels": 4, "least_score": 0.6},
    {"least_fill": 0.4, "top": 2},
    {"hops": 1},
    {"agreement": True},
    {"hops": 2, "agreement": True, "top": 2, "least_fill": 0.2},
]


def same(found, wanted):
    """Equal in every bit."""
    for name in ("map", "classes", "scores", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), strict=True)


def check(made, geometry, wanted_spec, detail=None, flagged=None, threads=1):
    """Both on a scene; what the definition finds."""
    labels = fuse_labels_reference(made.logits, detail, flagged, geometry).labels
    operands = made.logits, detail, flagged, made.boxes, labels, geometry, wanted_spec
    wanted = instances_reference(*operands)
    same(instances(*operands, threads=threads), wanted)
    return wanted


def cells(grid, stride=1):
    """A frame on whose pixels the grid lies."""
    size = grid[0] * stride, grid[1] * stride
    return Geometry(grid, size, size, size, False)


def drawn(label_of, boxes, classes=3, things=(1, 2)):
    """A scene of labels that leave no doubt, and the same boxes for all things."""
    logits = np.where(np.arange(classes)[:, None, None] == label_of, 9, 0).astype(np.float32)
    boxes = np.tile(np.asarray(boxes, np.float32), (len(things), 1, 1))
    return Scene(logits, boxes, np.zeros(label_of.shape, np.int32), things)


def boxes_of(ids):
    """The true boxes of instances on a grid."""
    rows, cols = np.mgrid[: ids.shape[0], : ids.shape[1]]
    boxes = np.zeros((4, *ids.shape))
    for number in np.unique(ids[ids > 0]):
        i, j = np.nonzero(ids == number)
        tall, broad = np.ptp(i) + 1, np.ptp(j) + 1
        y, x = (i.min() + i.max()) / 2, (j.min() + j.max()) / 2
        true = np.stack([y - rows, x - cols, np.full(ids.shape, tall), np.full(ids.shape, broad)])
        boxes[:, ids == number] = true[:, ids == number]
    return boxes


@pytest.mark.parametrize("changes", EVERYTHING, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_is_the_definition(name, changes):
    geometry = GEOMETRIES[name]
    made = scene(1, geometry.grid_size, 9)
    check(made, geometry, spec(made.things, **changes), threads=2)


@given(
    seed=st.integers(0, 1 << 16),
    grid=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    count=st.integers(0, 12),
    top=st.integers(1, 5),
    overlap=st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.97]),
    most=st.sampled_from([1, 3, 50]),
    box_noise=st.sampled_from([0.0, 0.1, 1.0]),
    stride=st.sampled_from([1, 3, 4]),
    hops=st.integers(0, 3),
    agreement=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_is_the_definition_of_any_scene(seed, grid, count, top, overlap, most, box_noise, stride, hops, agreement):
    made = scene(seed, grid, count, box_noise=box_noise, noise=2.0)
    changes = {"top": top, "overlap": overlap, "most": most, "hops": hops, "agreement": agreement}
    check(made, cells(grid, stride), spec(made.things, **changes))


@pytest.mark.parametrize("layout", ["map", "rows"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_flagged_pixels_take_their_detail_logits(layout, dtype):
    geometry = GEOMETRIES["ceil_half_pixel"]
    made = scene(2, geometry.grid_size, 8)
    true = made.logits.astype(dtype)
    semantic, flagged = true.copy(), np.random.default_rng(3).random(geometry.grid_size) < 0.3
    semantic[:, flagged] = np.random.default_rng(4).normal(size=(4, flagged.sum()))
    detail, where = true, flagged
    if layout == "rows":
        where = np.full(geometry.grid_size, -1, np.int32)
        where[flagged] = np.arange(flagged.sum())[::-1]
        detail = np.ascontiguousarray(true[:, flagged].T[::-1])
    found = check(made._replace(logits=semantic), geometry, spec(made.things, least_pixels=2), detail, where)
    same(found, check(made._replace(logits=true), geometry, spec(made.things, least_pixels=2)))


def test_ellipses_come_back():
    geometry = Geometry((40, 60), (157, 237), (157, 237), (157, 237), True)
    made = scene(5, geometry.grid_size, 12, radius=6, noise=0.5, box_noise=0.02)
    found = check(made, geometry, spec(made.things, least_pixels=8))
    at_grid = found.map[::4, ::4]
    for number in np.unique(made.truth[made.truth > 0]):
        mask = made.truth == number
        if mask.sum() < 30:
            continue  # hidden by others
        ious = [(mask & (at_grid == k)).sum() / (mask | (at_grid == k)).sum() for k in range(1, found.count + 1)]
        assert max(ious) > 0.8
    assert (np.diff(found.scores[: found.count]) <= 0).all()


def test_no_thing_in_sight():
    grid = (7, 9)
    found = check(drawn(np.zeros(grid, int), np.ones((4, *grid))), cells(grid, 4), spec((1, 2), top=1))
    assert found.count == 0
    assert not found.map.any()


def test_instances_of_one_pixel():
    ids = np.zeros((9, 11), int)
    ids[::2, ::2] = np.arange(1, 31).reshape(5, 6)
    made = drawn((ids > 0).astype(int), boxes_of(ids))
    found = check(made, cells(ids.shape), spec((1, 2)))
    assert found.count == 30
    assert np.array_equal(found.map > 0, ids > 0)
    assert len(np.unique(found.map)) == 31
    assert check(made, cells(ids.shape), spec((1, 2), least_pixels=2)).count == 0


def test_instances_that_touch():
    """Two of one class side by side, and one of another class below."""
    ids = np.zeros((8, 12), int)
    ids[:5, :5], ids[:5, 5:11], ids[5:, :] = 1, 2, 3
    label_of = np.where(ids == 3, 2, (ids > 0).astype(int))
    found = check(drawn(label_of, boxes_of(ids)), cells(ids.shape), spec((1, 2)))
    assert found.count == 3
    assert {tuple(np.unique(found.map[ids == k])) for k in (1, 2, 3)} == {(1,), (2,), (3,)}
    assert found.classes[found.map[0, 0] - 1] == 1
    assert found.classes[found.map[7, 0] - 1] == 2


def test_an_instance_in_several_pieces_has_one_number():
    ids = np.zeros((9, 12), int)
    ids[2:7, 1:4] = ids[2:7, 8:11] = 1
    found = check(drawn((ids > 0).astype(int), boxes_of(ids)), cells(ids.shape, 2), spec((1, 2)))
    assert found.count == 1
    assert (found.map[4:14:, 2:8] == 1).all()
    assert (found.map[4:14:, 16:22] == 1).all()


def test_a_frame_pixel_takes_the_larger_share():
    """Two pixels of the grid, each an instance: the border lies half-way, and there the more confident one wins."""
    ids = np.array([[1, 2]])
    made = drawn((ids > 0).astype(int), boxes_of(ids))
    made.logits[1, 0, 1] += 1
    geometry = Geometry((1, 2), (1, 9), (1, 9), (1, 9), True)
    found = check(made, geometry, spec((1, 2)))
    assert found.map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1, 1]]


def test_pixels_of_another_label_are_nobodys():
    ids = np.ones((4, 4), int)
    made = drawn(ids, boxes_of(ids))
    geometry = cells(ids.shape, 2)
    labels = np.ones((8, 8), np.uint8)
    labels[3], labels[:, 5] = 0, 2
    for implementation in (instances, instances_reference):
        found = implementation(made.logits, None, None, made.boxes, labels, geometry, spec((1, 2)))
        assert np.array_equal(found.map, labels == 1)


def test_the_mask_of_two_classes_finds_what_is_labelled_otherwise():
    """Half of an object is taken for another class: the top-2 mask sees all of it, as one."""
    label_of = np.ones((6, 8), int)
    label_of[:, 4:] = 2
    made = drawn(label_of, boxes_of(np.ones((6, 8), int)))
    made.logits[1] += 1
    single = check(made, cells((6, 8)), spec((1, 2)))
    assert single.count == 2
    both = check(made, cells((6, 8)), spec((1, 2), top=2, region_overlap=0.4))
    assert both.count == 2
    assert np.array_equal(both.map > 0, single.map > 0)


def test_region_nms_drops_the_less_confident():
    label_of = np.ones((6, 8), int)
    made = drawn(label_of, boxes_of(label_of))
    made.logits[2] += 2  # the second-best class, everywhere
    found = check(made, cells((6, 8)), spec((1, 2), top=2))
    assert found.count == 1
    assert found.classes[0] == 1


def test_rims_fill_little_of_their_boxes():
    """Between two that touch, boxes lie between theirs: two columns that fill a sixth of their box."""
    ids = np.zeros((6, 24), int)
    ids[:, :12], ids[:, 12:] = 1, 2
    boxes = boxes_of(ids)
    boxes[1, :, 11:13] = 12 - 0.5 - np.arange(11, 13)
    made = drawn((ids > 0).astype(int), boxes)
    assert check(made, cells(ids.shape), spec((1, 2))).count == 3
    found = check(made, cells(ids.shape), spec((1, 2), least_fill=0.3))
    assert found.count == 2
    assert (found.map[:, 11:13] == 0).all()


def centred(columns):
    """A row of pixels of a thing, each of which says a box of ten by ten cells with its centre in such a column."""
    boxes = np.full((4, 1, len(columns)), 10.0)
    boxes[0], boxes[1] = 0, np.array(columns) - np.arange(len(columns))
    return drawn(np.ones((1, len(columns)), int), boxes)


@pytest.mark.parametrize(
    ("hops", "owners"),
    [(0, [1, 1, 1, 2, 2, 3, 4]), (1, [1, 1, 1, 1, 2, 2, 3]), (2, [1, 1, 1, 1, 1, 2, 3]), (3, [1, 1, 1, 1, 1, 1, 2])],
)
def test_a_box_gives_way_to_that_of_the_pixel_at_its_centre(hops, owners):
    """From pixel to pixel to the left: boxes a cell apart have an IoU of 9 / 11, those two cells apart of 8 / 12.

    The last one says a place beyond the grid, and stays.
    """
    made = centred([0, 0, 1, 2, 3, 4, 9])
    assert check(made, cells((1, 7)), spec((1, 2), overlap=0.7, hops=hops)).map.tolist() == [owners]


@pytest.mark.parametrize(("column", "is_hop"), [(-0.6, False), (-0.5, True), (0.49, True), (0.5, False)])
def test_a_pixel_is_half_a_cell_to_either_side(column, is_hop):
    """The second pixel is two cells from the surest one, the third; by the first one's box it is one cell from it."""
    made = centred([column + 1, column, column + 2])
    made.logits[1, 0, 2] += 1
    made.boxes[::4, 0, 2] = 0.6  # beyond the grid
    found = check(made, cells((1, 3)), spec((1, 2), overlap=0.7, hops=1))
    assert (found.map[0, 1] == found.map[0, 2]) == is_hop


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("case", ["same", "other_class", "padding", "hidden"])
def test_no_hop_to_what_is_another(case, top):
    """All say a box around one pixel, which says a box that is smaller, with an IoU of 0.8 with theirs."""
    size = (16, 20) if case == "padding" else (16, 32)
    geometry, label_of = Geometry((4, 8), (16, 32), size, size, False), np.ones((4, 8), int)
    boxes, (rows, cols) = np.full((4, 4, 8), 10.0), np.mgrid[:4, :8]
    boxes[0], boxes[1] = 1 - rows, 7 - cols
    boxes[3, 1, 7] = 4 if case == "hidden" else 8
    label_of[1, 7] = 2 if case == "other_class" else 1
    asked = spec((1, 2), top=top, hops=2, agreement=True, overlap=0.7, least_pixels=9, region_overlap=0.01)
    found = check(drawn(label_of, boxes), geometry, asked)
    share = (31 * 0.8 + 1) / 32 if case == "same" else 1
    assert found.count == 1
    assert found.scores[0] == pytest.approx(share / (1 + 2 * np.exp(-9)), abs=3 / ONE)


def test_agreement_is_of_the_boxes_before_any_hop():
    """Of four pixels, one says a box that is shifted by half of its width: an IoU of a third."""
    ids = np.ones((1, 4), int)
    boxes = boxes_of(ids)
    boxes[1, 0, 3] += 2
    made = drawn(ids, boxes)
    softmax = 1 / (1 + 2 * np.exp(-9))
    for hops in (0, 2):
        asked = spec((1, 2), hops=hops, overlap=0.3)
        for agreement, share in ((False, 1), (True, (3 + 1 / 3) / 4)):
            found = check(made, cells((1, 4)), replace(asked, agreement=agreement))
            assert found.count == 1
            assert found.scores[0] == pytest.approx(share * softmax, abs=3 / ONE)


def test_agreement_of_equal_boxes_is_whole():
    boxes = np.full((4, 7, 9), 5 / 3)
    boxes[0], boxes[1] = 4 / 3, 1 / 7
    made, geometry = drawn(np.ones((7, 9), int), boxes), cells((7, 9))
    same(check(made, geometry, spec((1, 2), agreement=True)), check(made, geometry, spec((1, 2))))


def test_scores_are_means_of_the_softmax():
    made = scene(6, (12, 15), 3, radius=4)
    geometry = cells((12, 15))
    found = check(made, geometry, spec(made.things))
    powers = np.exp(made.logits.astype(float))
    probabilities = powers / powers.sum(axis=0)
    for number in range(1, found.count + 1):
        mean = probabilities[found.classes[number - 1]][found.map == number].mean()
        assert found.scores[number - 1] == pytest.approx(mean, abs=2 / ONE)


def test_padding_takes_no_part():
    """What a network sees beyond the frame's edge makes no instance, and leads none."""
    geometry = Geometry((4, 8), (16, 32), (16, 16), (16, 16), False)
    ids = np.ones((4, 8), int)
    made = drawn(ids, boxes_of(ids))
    made.logits[1, :, 6:] = 90  # the surest pixels
    made.boxes[2:4, :, 6:] = 2
    found = check(made, geometry, spec((1, 2)))
    assert found.count == 1
    assert (found.map == 1).all()


def test_thousands_of_candidates_of_noise():
    rng = np.random.default_rng(7)
    grid = (90, 130)
    boxes = rng.uniform(-30, 30, (8, *grid))
    boxes[[2, 3, 6, 7]] = np.exp(rng.uniform(0, 5, (4, *grid)))
    made = Scene(rng.normal(size=(3, *grid)).astype(np.float32), boxes.astype(np.float32), None, (1, 2))
    for top, most, hops in ((1, 1024, 0), (2, 300, 2)):
        changes = {"top": top, "most": most, "hops": hops, "agreement": hops > 0}
        found = check(made, cells(grid, 2), InstanceSpec((1, 2), **changes))
        assert 0 < found.count <= most


def test_no_more_than_the_most():
    ids = np.arange(1, 301).reshape(15, 20)
    made = drawn(np.ones_like(ids), boxes_of(ids))
    made.logits[1] += np.random.default_rng(8).random(ids.shape)
    assert check(made, cells(ids.shape), spec((1, 2), most=300)).count == 300
    found = check(made, cells(ids.shape), spec((1, 2), most=299))
    assert (found.count, found.map.max()) == (299, 299)
    assert (found.map == 0).sum() == 1
    with pytest.raises(ValueError, match="most must be a whole number, 1 to 65535, got 65536"):
        spec((1, 2), most=65536)


def test_more_instances_than_eight_bits_of_number():
    ids = np.arange(1, 1 + 20 * 15).reshape(20, 15)
    found = check(drawn(np.ones_like(ids), boxes_of(ids)), cells(ids.shape), InstanceSpec((1, 2), most=65535))
    assert found.count == ids.max()
    assert np.array_equal(np.sort(found.map.ravel()), np.arange(1, 1 + 20 * 15))


@pytest.mark.parametrize("side", [-3.0, 0.0, 1e-30])
def test_sides_below_one_count_as_one(side):
    ids = np.ones((4, 5), int)
    boxes = boxes_of(ids)
    boxes[2:] = side
    found = check(drawn(ids, boxes), cells(ids.shape), spec((1, 2)))
    assert found.count == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e9])
def test_boxes_that_are_none_do_no_harm(value):
    """The pipeline refuses values that are not finite; here they belong to nobody else, and end."""
    made = scene(9, (12, 15), 3)
    boxes = made.boxes.copy()
    boxes[:, 2:7, 3:9] = value
    with np.errstate(all="ignore"):
        for changes in ({}, {"hops": 2, "agreement": True}):
            asked = spec(made.things, top=2, **changes)
            instances(made.logits, None, None, boxes, made.labels(cells((12, 15))), cells((12, 15)), asked)


def test_float_ties_are_broken_by_the_lower_index():
    """Everything alike but the boxes: the first pixel leads, and takes the others as far as it overlaps with them."""
    ids = np.ones((1, 9), int)
    boxes = np.zeros((4, 1, 9))
    boxes[2], boxes[3] = 1, 3
    found = check(drawn(ids, boxes), cells(ids.shape), spec((1, 2), overlap=0.4))
    assert found.map.tolist() == [[1, 1, 2, 2, 3, 3, 4, 4, 5]]
    # An IoU of exactly a half is not above it.
    assert check(drawn(ids, boxes), cells(ids.shape), spec((1, 2), overlap=0.5)).map.max() == 9


@pytest.mark.parametrize("overlap", [0.03, 0.2, 0.4, 0.5, 0.7, 0.95])
def test_centres_lie_as_near_as_the_bins_assume(overlap):
    rng = np.random.default_rng(10)
    a = np.exp(rng.uniform(-1, 1, (2, 400_000)))
    b = a * overlap ** rng.uniform(-1, 1, (2, 400_000))
    distance = rng.uniform(0, 1.1 * reach_of(overlap), (2, 400_000)) * a
    shared = np.clip(np.minimum(np.minimum(a, b), (a + b) / 2 - distance), 0, None).prod(axis=0)
    is_over = shared > overlap * (a.prod(axis=0) + b.prod(axis=0) - shared)
    assert is_over.any()
    assert (distance[:, is_over] < reach_of(overlap) * np.minimum(a, b)[:, is_over] * (1 + 1e-6)).all()


def test_bad_operands_are_named():
    made, geometry = scene(11, (6, 7), 2), cells((6, 7))
    labels = made.labels(geometry)
    good = {"semantic": made.logits, "detail": None, "flagged": None, "boxes": made.boxes, "labels": labels}
    good |= {"geometry": geometry, "spec": spec(made.things)}
    for changes, message in [
        ({"boxes": made.boxes[:4]}, r"boxes must be float32 \[8, 6, 7\], got float32 \[4, 6, 7\]"),
        ({"boxes": made.boxes.astype(float)}, r"boxes must be float32"),
        ({"labels": labels[:, :4]}, r"labels must be uint8 \[6, 7\], got uint8 \[6, 4\]"),
        ({"spec": spec((1, 7))}, "the last thing is class 7, and semantic has 4 classes"),
        ({"semantic": made.logits[:1]}, "2 to 255 classes"),
    ]:
        for implementation in (instances, instances_reference):
            with pytest.raises(ValueError, match=message):
                implementation(**(good | changes))
    with pytest.raises(ValueError, match="threads must be at least 1"):
        instances(**good, threads=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "classes must be ids of one or more classes"),
        ({"classes": (2, 1)}, "classes must ascend"),
        ({"classes": (1, 1)}, "classes must ascend"),
        ({"classes": (255,)}, "classes must be ids"),
        ({"top": 0}, "top must be a whole number, 1 to 8"),
        ({"overlap": 1}, "overlap must lie between 0 and 1"),
        ({"region_overlap": 0.0}, "region_overlap must lie between 0 and 1"),
        ({"least_score": 1.5}, r"least_score must be in 0..1, got 1.5"),
        ({"least_fill": -0.5}, r"least_fill must be in 0..1, got -0.5"),
        ({"least_pixels": True}, "least_pixels must be a whole number"),
        ({"most": 0}, "most must be a whole number"),
        ({"hops": -1}, "hops must be a whole number, 0 to 8, got -1"),
        ({"hops": True}, "hops must be a whole number"),
        ({"agreement": 1}, "agreement must be true or false, got 1"),
    ],
)
def test_bad_specs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(InstanceSpec((1,)), **changes)
