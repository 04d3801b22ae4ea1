"""Scores of instances against plain restatements of their definitions, and against pycocotools."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.instances import VOID, Meaning, TrueInstances
from errseg_rt.evaluation.instance_scores import COCO, VOLUME, InstanceScores
from errseg_rt.evaluation.overlaps import Overlaps
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.run_lengths import encode_masks

ANIMALS = ClassSet(("grass", "cat", "dog", "sky"), ((0, 255, 0), (255, 0, 0), (0, 0, 255), (9, 9, 9)))
THINGS = (1, 2)
SHAPE = (33, 47)
Frame = tuple[TrueInstances, np.ndarray, Instances, np.ndarray]


def blocks(rng: np.random.Generator, ids: int, block: int = 6) -> np.ndarray:
    coarse = rng.integers(0, ids + 1, [-(-side // block) for side in SHAPE])
    return np.kron(coarse, np.ones((block, block), np.int32)).astype(np.int32)[: SHAPE[0], : SHAPE[1]]


def frames(count: int, *, void: bool = False, crowd: bool = False, seed: int = 0, ties: bool = False) -> list[Frame]:
    """Instances in blocks, and found ones that are these, moved, exchanged, lost and of another class."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        index = blocks(rng, 9)
        classes, groups = rng.integers(1, 3, 9).tolist(), (rng.random(9) < (0.3 if crowd else 0)).tolist()
        meanings = {each: Meaning(*meant) for each, meant in enumerate(zip(classes, groups, strict=True), 1)}
        hidden = np.where(blocks(rng, 3) == 1, 99, index) if void else index
        true = TrueInstances.of(hidden, {**meanings, 99: Meaning(IGNORE)})
        labels = np.array([0, *true.classes, IGNORE], np.uint8)[true.map]
        labels[:5][true.map[:5] == 0] = 3
        moved = np.roll(index, rng.integers(0, 2, 2), (0, 1))
        moved[rng.random(SHAPE) < rng.choice([0, 0.02, 0.1])] = 0
        for each in rng.choice(np.arange(1, 10), 2, replace=False):
            moved[moved == each] = 0
        moved[:9, :9][moved[:9, :9] > 0] += 9  # what is cut in two
        of_class = np.tile(classes, 2)
        of_class[rng.random(18) < 0.1] = 1
        scores = rng.integers(0, 4, 18) / 4 if ties else rng.random(18)
        error_map = rng.random(SHAPE).astype(np.float32)
        found = Instances.of(moved, of_class, scores, ANIMALS, error_map)
        made.append((true, labels, found, np.where(rng.random(SHAPE) < 0.1, 3, labels % 4).astype(np.uint8)))
    return made


def scored(made: list[Frame]) -> InstanceScores:
    scores = InstanceScores(len(ANIMALS), THINGS)
    for frame in made:
        scores.add(*frame)
    return scores


# --- overlaps


def dense(overlaps: Overlaps, values: np.ndarray) -> np.ndarray:
    """Values of pairs as a matrix, true by found."""
    matrix = np.zeros((len(overlaps.true_areas), len(overlaps.found_areas)))
    matrix[overlaps.true, overlaps.found] = values
    return matrix


@pytest.mark.parametrize("void", [False, True], ids=["plain", "void"])
def test_overlaps_by_definition(void: bool) -> None:
    for true, _, found, _ in frames(3, void=void, crowd=True):
        got = Overlaps.of(true, found.map, found.classes)
        shared, iou = dense(got, got.shared), dense(got, got.iou)
        for m in range(len(true)):
            for n in range(len(found)):
                a, b = true.map == m + 1, found.mask(n)
                assert shared[m, n] == (a & b).sum()
                union = (a | (b & (true.map != VOID))).sum()
                alike = true.classes[m] == found.classes[n] and not true.crowd[m]
                assert iou[m, n] == ((a & b).sum() / union if alike and union else 0)
        in_void = [(found.mask(n) & (true.map == VOID)).sum() for n in range(len(found))]
        np.testing.assert_array_equal(got.void, in_void)
        np.testing.assert_array_equal(got.found_areas, found.areas)
        np.testing.assert_array_equal(got.true_areas, [(true.map == m + 1).sum() for m in range(len(true))])


def test_overlaps_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"differ in size: \(2, 3\) and \(3, 2\)"):
        Overlaps.of(TrueInstances.of(np.zeros((2, 3), np.int32), {}), np.zeros((3, 2), np.int32), np.zeros(0, np.int32))


# --- mAP^r


def ap_r(made: list[Frame], label: int, threshold: float) -> float | None:
    """AP^r of a class, hypothesis by hypothesis."""
    ranked = [
        (-float(found.scores[n]), frame, n)
        for frame, (_, _, found, _) in enumerate(made)
        for n in range(len(found))
        if found.classes[n] == label
    ]
    taken: set[tuple[int, int]] = set()
    truths = sum(int((true.classes[~true.crowd] == label).sum()) for true, *_ in made)
    if not truths:
        return None
    curve, right, wrong = [], 0, 0
    for _, frame, n in sorted(ranked):
        true, _, found, _ = made[frame]
        mask, known = found.mask(n), true.map != VOID
        best, at = 0.0, None
        for m in np.flatnonzero((true.classes == label) & ~true.crowd):
            other = true.map == m + 1
            iou = (mask & other).sum() / ((mask & known) | other).sum() if other.any() else 0
            if iou > best:
                best, at = iou, (frame, int(m))
        crowd = np.isin(true.map, 1 + np.flatnonzero(true.crowd & (true.classes == label)))
        if at and best >= threshold and at not in taken:
            taken.add(at)
            right += 1
        elif (mask & (~known | crowd)).sum() / mask.sum() > 0.5:
            continue
        else:
            wrong += 1
        curve.append((right / truths, right / (right + wrong)))
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(curve):
        area += (recall - before) * max(precision for _, precision in curve[place:])
        before = recall
    return area


@pytest.mark.parametrize("kind", [{}, {"void": True}, {"crowd": True}, {"void": True, "crowd": True}, {"ties": True}])
def test_ap_r_is_that_of_a_plain_restatement(kind: dict[str, bool]) -> None:
    made = frames(6, seed=1, **kind)
    scores = scored(made)
    wanted = {(label, t): ap_r(made, label, t) for label in THINGS for t in VOLUME}
    for (label, threshold), score in wanted.items():
        assert scores.ap_r(label, threshold) == pytest.approx(score)
    assert scores.map_r() == pytest.approx(np.mean(list(wanted.values())))
    assert scores.map_r([0.5]) == pytest.approx(np.mean([wanted[label, 0.5] for label in THINGS]))
    assert 0.1 < scores.map_r([0.5]) < 0.9


def test_a_perfect_segmentation_has_one_of_everything() -> None:
    for true, labels, _, _ in frames(1):
        found = Instances.of(true.map, true.classes, np.ones(len(true)), ANIMALS)
        scores = scored([(true, labels, found, labels)])
        told = scores.to_dict(ANIMALS)
        for name in ("map_r_0.5", "map_r_0.7", "map_r_vol", "map", "map50", "map75", "map_uncut"):
            assert told[name] == 1
        assert told["panoptic"]["all"] == {"pq": 1, "sq": 1, "rq": 1, "n": 4}
        assert told["auroc"] == {"error_probability": None, "score": None}


def test_precision_by_hand() -> None:
    # True, false, true of four: recall 1/4 at precision 1, then 2/4 at 2/3.
    true = TrueInstances(np.array([[1, 2, 3, 4, 0]], np.int32), np.ones(4, np.int32), np.zeros(4, bool))
    found = Instances.of(np.array([[1, 3, 0, 0, 2]], np.int32), [1, 1, 1], [0.9, 0.8, 0.7], ANIMALS)
    labels = np.array([[1, 1, 1, 1, 0]], np.uint8)
    scores = scored([(true, labels, found, labels)])
    assert scores.ap_r(1, 0.5) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    assert scores.coco_ap(1) == pytest.approx((26 + 25 * 2 / 3) / 101)  # recalls 0..0.25, and 0.26..0.5


# --- COCO


def by_pycocotools(made: list[Frame], most: int) -> Iterator[tuple[str, float]]:
    from pycocotools import coco as official
    from pycocotools.cocoeval import COCOeval

    truths, results = [], []
    for image, (true, _, found, _) in enumerate(made, 1):
        for mask, label, crowd in zip(encode_masks(true.map, len(true)), true.classes, true.crowd, strict=True):
            area = int((true.map == len(truths) + 1).sum())
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": int(label), "segmentation": mask,
                           "area": area, "iscrowd": int(crowd)})  # fmt: skip
        for mask, label, score in zip(encode_masks(found.map, len(found)), found.classes, found.scores, strict=True):
            results.append({"image_id": image, "category_id": int(label), "segmentation": mask, "score": float(score)})
    coco = official.COCO()
    coco.dataset = {
        "images": [{"id": image, "height": SHAPE[0], "width": SHAPE[1]} for image in range(1, len(made) + 1)],
        "annotations": truths,
        "categories": [{"id": label, "name": ANIMALS.names[label]} for label in THINGS],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.params.maxDets = [1, 2, most]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, classes], of all areas
    for name, chosen in (("ap", slice(None)), ("ap50", slice(0, 1)), ("ap75", slice(5, 6))):
        yield name, float(precision[chosen].mean())


@pytest.mark.parametrize("most", [100, 3])
@pytest.mark.parametrize("kind", [{}, {"crowd": True}, {"ties": True}], ids=str)
def test_coco_ap_is_that_of_pycocotools(kind: dict[str, bool], most: int, capsys) -> None:
    pytest.importorskip("pycocotools.cocoeval")
    made = frames(8, seed=2, **kind)
    scores = scored(made)
    thresholds = {"ap": COCO, "ap50": (0.5,), "ap75": (0.75,)}
    for name, wanted in by_pycocotools(made, most):
        got = np.mean([scores.coco_ap(label, thresholds[name], most) for label in THINGS])
        assert got == pytest.approx(wanted, abs=1e-9)
        assert 0.01 < got < 0.95
    capsys.readouterr()


def test_void_is_a_group_of_every_class_to_coco() -> None:
    true = TrueInstances(np.array([[1, 1, VOID, VOID, 0]], np.int32), np.array([1], np.int32), np.zeros(1, bool))
    labels = np.array([[1, 1, IGNORE, IGNORE, 0]], np.uint8)
    found = Instances.of(np.array([[2, 2, 2, 1, 0]], np.int32), [2, 1], [0.9, 0.8], ANIMALS)
    scores = scored([(true, labels, found, labels)])
    assert (scores.coco_ap(1), scores.coco_ap(2)) == (1, None)
    assert scores.ap_r(1, 0.9) == 1
    assert scores.auroc()["score"] is None  # the dog in void is neither true nor false


# --- panoptic quality


def quality(made: list[Frame]) -> dict[int, tuple[float, int, int, int]]:
    """Sum of IoU, matched, wrong and missed segments of each class, segment by segment."""
    counts = {label: [0.0, 0, 0, 0] for label in range(len(ANIMALS))}
    for true, true_labels, found, labels in made:
        truths = [
            (true.map == m + 1, int(c), bool(g)) for m, (c, g) in enumerate(zip(true.classes, true.crowd, strict=True))
        ]
        founds = [(found.mask(n), int(found.classes[n])) for n in range(len(found))]
        for stuff in (0, 3):
            truths.append(((true_labels == stuff) & (true.map == 0), stuff, False))
            founds.append(((labels == stuff) & (found.map == 0), stuff))
        truths, founds = [t for t in truths if t[0].any()], [f for f in founds if f[0].any()]
        void = ~np.any([mask for mask, *_ in truths], axis=0)
        matched: set[int] = set()
        for mask, label, is_group in truths:
            hit = False
            for place, (other, of_class) in enumerate(founds):
                if label == of_class and not is_group:
                    iou = (mask & other).sum() / ((mask | other) & ~(void & other)).sum()
                    if iou > 0.5:
                        counts[label][0] += iou
                        counts[label][1] += 1
                        hit = True
                        matched.add(place)
            counts[label][3] += not hit and not is_group
        for place, (other, label) in enumerate(founds):
            groups = np.any([void, *[mask for mask, of_class, group in truths if group and of_class == label]], axis=0)
            if place not in matched and (other & groups).sum() / other.sum() <= 0.5:
                counts[label][2] += 1
    return {label: tuple(each) for label, each in counts.items()}


@pytest.mark.parametrize("kind", [{}, {"void": True}, {"crowd": True}, {"void": True, "crowd": True}], ids=str)
def test_panoptic_quality_is_that_of_a_plain_restatement(kind: dict[str, bool]) -> None:
    made = frames(6, seed=3, **kind)
    panoptic = scored(made).panoptic
    pqs = []
    for label, (iou, matched, wrong, missed) in quality(made).items():
        assert panoptic.iou[label] == pytest.approx(iou)
        assert panoptic.counts[:, label].tolist() == [matched, wrong, missed]
        whole = matched + wrong / 2 + missed / 2
        pq, sq, rq = panoptic.by_class()[:, label]
        assert (pq, rq) == (pytest.approx(iou / whole), pytest.approx(matched / whole))
        assert sq == pytest.approx(iou / matched if matched else 0)
        pqs.append(pq)
    told = panoptic.to_dict()
    assert told["all"]["pq"] == pytest.approx(np.mean(pqs))
    assert told["things"]["pq"] == pytest.approx(np.mean(pqs[1:3]))
    assert told["stuff"]["n"] == 2


def test_instances_of_a_class_that_has_none_here() -> None:
    for true, labels, found, said in frames(2, seed=7):
        cats = InstanceScores(len(ANIMALS), (1,))
        only = Instances.of(np.where(np.isin(found.map, 1 + np.flatnonzero(found.classes == 1)), found.map, 0),
                            found.classes, found.scores, ANIMALS)  # fmt: skip
        cats.add(true, labels, only, said)
        told = cats.to_dict(ANIMALS)
        assert set(told["classes"]) == {"cat"}
        assert (told["truths"], told["found"]) == ((true.classes == 1).sum(), (found.classes == 1).sum())
        stuff, wanted = labels == 2, (said == 2) & (only.map == 0)
        iou = (stuff & wanted).sum() / ((stuff | wanted) & (labels != IGNORE)).sum()
        assert cats.panoptic.counts[:, 2].tolist() == ([1, 0, 0] if iou > 0.5 else [0, 1, 1])


# --- nothing, trust, comparison


def test_nothing_to_score() -> None:
    none = Instances.none(SHAPE, ANIMALS)
    nobody = TrueInstances.of(none.map, {})
    labels = np.full(SHAPE, IGNORE, np.uint8)
    for made in ([], [(nobody, labels, none, labels)]):
        told = scored(made).to_dict(ANIMALS)
        assert (told["truths"], told["found"], told["frames"]) == (0, 0, len(made))
        assert told["map_r_0.5"] is told["map"] is told["panoptic"]["all"]["pq"] is told["auroc"]["score"] is None
        assert scored(made).compared(scored(made)) is None
    true, true_labels, found, found_labels = frames(1)[0]
    missed = scored([(true, true_labels, none, true_labels)])
    assert (missed.map_r(), missed.coco_ap(1), missed.to_dict(ANIMALS)["panoptic"]["things"]["pq"]) == (0, 0, 0)
    invented = scored([(nobody, labels * 0, found, found_labels)])
    assert (invented.map_r(), invented.coco_ap(1)) == (None, None)
    assert invented.to_dict(ANIMALS)["panoptic"]["things"]["pq"] == 0


def test_a_class_without_truth_is_not_in_the_mean() -> None:
    true = TrueInstances(np.array([[1, 0]], np.int32), np.array([1], np.int32), np.zeros(1, bool))
    found = Instances.of(np.array([[1, 2]], np.int32), [1, 2], [0.5, 0.9], ANIMALS)
    labels = np.array([[1, 0]], np.uint8)
    scores = scored([(true, labels, found, labels)])
    assert (scores.ap_r(1, 0.5), scores.ap_r(2, 0.5), scores.map_r()) == (1, None, 1)


def test_trust_is_an_area_under_the_curve() -> None:
    made = frames(5, seed=4)
    right, score, error = [], [], []
    for true, _, found, _ in made:
        overlaps = Overlaps.of(true, found.map, found.classes)
        best = dense(overlaps, overlaps.iou)
        taken = set()
        for n in range(len(found)):
            at = int(best[:, n].argmax())
            right.append(best[at, n] >= 0.5 and at not in taken)
            taken |= {at} if right[-1] else set()
        score += found.scores.tolist()
        error += found.error_probability.tolist()
    told = scored(made).auroc()
    assert told["score"] == pytest.approx(roc_auc_score(right, score))
    assert told["error_probability"] == pytest.approx(roc_auc_score(right, -np.array(error)))


def test_trust_without_an_error_map() -> None:
    made = [
        (true, labels, Instances.of(found.map, found.classes, found.scores, ANIMALS), said)
        for true, labels, found, said in frames(5)
    ]
    told = scored(made).auroc()
    assert (told["error_probability"], told["score"] is None) == (None, False)


def test_comparison_on_the_same_frames() -> None:
    made = frames(12, seed=5)
    perfect = [
        (true, labels, Instances.of(true.map, true.classes, np.ones(len(true)), ANIMALS), labels)
        for true, labels, *_ in made
    ]
    first, second = scored(perfect), scored(made)
    compared = first.compared(second, [0.5], resamples=200)
    assert compared.difference == pytest.approx(1 - second.map_r([0.5]))
    assert 0 < compared.low < compared.difference < compared.high
    assert compared.is_tie is False
    same = second.compared(scored(made), resamples=50)
    assert (same.difference, same.low, same.high, same.is_tie) == (0, 0, 0, True)
    few = scored(perfect[:3]).compared(scored(made[:3]), [0.5])
    assert (few.low, few.high, few.is_tie) == (None, None, None)
    with pytest.raises(ValueError, match="same frames"):
        first.compared(scored(made[:5]))


def test_a_frame_that_is_drawn_twice_counts_twice() -> None:
    made = frames(4, seed=6)
    once, twice = scored(made), scored([*made, made[1], made[1]])
    weighted = once._map_r([0.5])(np.array([[1.0, 3.0, 1.0, 1.0]]))
    assert weighted[0] == pytest.approx(twice.map_r([0.5]))
