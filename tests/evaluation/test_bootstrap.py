"""The paired bootstrap, against scipy's and against cases that are plain."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.evaluation.bootstrap import FEWEST_FRAMES, PairedDifference, block_of, paired_bootstrap


def counts_of(truths, labels, classes) -> np.ndarray:
    rows = []
    for truth, label in zip(truths, labels, strict=True):
        matrix = ConfusionMatrix(classes)
        matrix.add(truth, label)
        rows.append([np.diag(matrix.counts), matrix.counts.sum(axis=1), matrix.counts.sum(axis=0)])
    return np.array(rows)


def frames(seed, count=30, classes=3, rates=(0.2, 0.25)):
    """Counts of two methods that err at different rates on the same frames."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, classes, (count, 8, 9)).astype(np.uint8)
    both = []
    for rate in rates:
        noise = rng.integers(0, classes, truths.shape).astype(np.uint8)
        # Frames differ in how hard they are.
        hard = rng.random((count, 1, 1)) * 2 * rate
        both.append(counts_of(truths, np.where(rng.random(truths.shape) < hard, noise, truths), classes))
    return both


def miou(counts, axis=0):
    """Mean IoU of counts `[..., F, 3, C]`, the frames at an axis counted from that end."""
    hits, truth, labels = np.moveaxis(counts.sum(axis=axis if axis >= 0 else axis - 2), -2, 0)
    return np.mean(hits / (truth + labels - hits), axis=-1)


def test_equals_the_bootstrap_of_scipy() -> None:
    first, second = frames(0)

    def statistic(index, axis=-1):
        return miou(first[index], axis) - miou(second[index], axis)

    wanted = scipy.stats.bootstrap(
        (np.arange(30),), statistic, n_resamples=4000, vectorized=True, method="percentile", random_state=1
    ).confidence_interval
    found = paired_bootstrap(first, second, resamples=4000, block=1)
    assert found.block == 1
    assert found.difference == pytest.approx(miou(first) - miou(second))
    # Ends of an interval of 4000 draws scatter by a twentieth of its width.
    width = wanted.high - wanted.low
    assert found.low == pytest.approx(wanted.low, abs=0.1 * width)
    assert found.high == pytest.approx(wanted.high, abs=0.1 * width)


def test_a_method_ties_with_itself() -> None:
    first, _ = frames(1)
    found = paired_bootstrap(first, first)
    assert found == PairedDifference(0, 0, 0, block=5)
    assert found.is_tie


def test_pairs_tell_what_frames_alone_would_not() -> None:
    rng = np.random.default_rng(2)
    truths = np.zeros((40, 10, 10), np.uint8)
    truths[:, :, 5:] = 1
    labels, better = truths.copy(), truths.copy()
    for index in range(40):
        bad = rng.integers(5, 50)
        labels[index].flat[rng.permutation(100)[:bad]] ^= 1
        better[index] = labels[index]
        better[index].flat[np.flatnonzero(labels[index] != truths[index])[:2]] ^= 1  # two pixels less, in every frame
    found = paired_bootstrap(counts_of(truths, better, 2), counts_of(truths, labels, 2))
    assert 0 < found.low <= found.difference <= found.high
    assert not found.is_tie
    spread = np.std([counts[0].sum() for counts in counts_of(truths, labels, 2)]) / 100
    assert found.high - found.low < spread / 5


def test_the_other_way_round_is_the_negative() -> None:
    first, second = frames(3)
    one, other = paired_bootstrap(first, second), paired_bootstrap(second, first)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def test_a_seed_decides_the_draws() -> None:
    pair = frames(4)
    assert paired_bootstrap(*pair, seed=5) == paired_bootstrap(*pair, seed=5)
    assert paired_bootstrap(*pair, seed=5) != paired_bootstrap(*pair, seed=6)


def test_batches_of_draws_cover_all_of_them(monkeypatch) -> None:
    pair = frames(5)
    whole = paired_bootstrap(*pair, resamples=500)
    monkeypatch.setattr("errseg_rt.evaluation.bootstrap._BATCH", 30 * 64)
    parts = paired_bootstrap(*pair, resamples=500)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high))


def test_classes_and_frames_that_are_empty() -> None:
    first, second = frames(6)
    padded = [np.pad(counts, ((0, 1), (0, 0), (0, 2))) for counts in (first, second)]
    found = paired_bootstrap(*padded)
    assert found.difference == pytest.approx(miou(first) - miou(second))
    assert np.isfinite([found.low, found.high]).all()


@pytest.mark.parametrize("frames", [0, 3])
def test_without_a_valid_pixel_there_is_no_difference(frames) -> None:
    assert paired_bootstrap(np.zeros((frames, 3, 2), int), np.zeros((frames, 3, 2), int)) is None


def test_few_frames_have_a_difference_alone() -> None:
    first, second = frames(8)
    for count in (1, 2, FEWEST_FRAMES - 1):
        found = paired_bootstrap(first[:count], second[:count])
        assert found.difference == pytest.approx(miou(first[:count]) - miou(second[:count]))
        assert (found.low, found.high, found.block, found.is_tie) == (None, None, None, None)
    void = np.zeros_like(first[:5])
    few, enough = first[: FEWEST_FRAMES - 1], first[:FEWEST_FRAMES]
    assert paired_bootstrap(np.concatenate([few, void]), np.concatenate([few, void])).is_tie is None
    assert paired_bootstrap(enough, enough).is_tie


def test_other_frames_are_refused() -> None:
    first, second = frames(7)
    with pytest.raises(ValueError, match="wanted counts of the same frames"):
        paired_bootstrap(first, second[1:])
    with pytest.raises(ValueError, match="wanted counts of the same frames"):
        paired_bootstrap(first, 2 * second)
    with pytest.raises(ValueError, match="wanted counts of the same frames"):
        paired_bootstrap(first, second[:, :, [1, 0, 2]])  # as many pixels, of other classes


@pytest.mark.parametrize("block", [0, 31])
def test_blocks_hold_frames_of_those_there_are(block) -> None:
    with pytest.raises(ValueError, match=f"blocks hold from 1 to all of 30 frames, got {block}"):
        paired_bootstrap(*frames(7), block=block)


@pytest.mark.parametrize(("count", "block"), [(0, 1), (1, 1), (10, 3), (30, 5), (101, 10), (233, 15), (2000, 45)])
def test_blocks_are_about_as_long_as_many(count, block) -> None:
    assert block_of(count) == block


@pytest.mark.parametrize("block", [1, 2, 7, 30])
def test_equals_blocks_drawn_one_by_one(block) -> None:
    first, second = frames(9)
    found = paired_bootstrap(first, second, block=block, resamples=4000)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        index = []
        while len(index) < 30:
            start = rng.integers(30)
            index += [(start + step) % 30 for step in range(block)]
        index = index[:30]
        drawn.append(miou(first[index]) - miou(second[index]))
    wanted = np.quantile(drawn, [0.025, 0.975])
    width = max(wanted[1] - wanted[0], 1e-9)
    assert [found.low, found.high] == pytest.approx(wanted, abs=0.1 * width)


def test_a_clip_is_worth_the_scenes_in_it() -> None:
    """Every scene ten times: blocks know as much as the scenes say, single frames more than there is to know."""
    scenes = frames(10, count=12)
    clip = [np.repeat(counts, 10, axis=0) for counts in scenes]
    truth, single, blocks = (
        found.high - found.low
        for found in (paired_bootstrap(*scenes, block=1), paired_bootstrap(*clip, block=1), paired_bootstrap(*clip))
    )
    assert single < truth / 2.5
    assert truth / 1.5 < blocks < truth * 1.5


def test_frames_that_know_nothing_of_each_other_lose_nothing_by_blocks() -> None:
    widths = []
    for seed in range(8):
        pair = frames(20 + seed, count=100)
        single, blocks = paired_bootstrap(*pair, block=1), paired_bootstrap(*pair)
        widths.append((blocks.high - blocks.low) / (single.high - single.low))
    # The spread of ten blocks is known to a quarter of itself; the mean of eight, to a tenth.
    assert np.mean(widths) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("method", [0, 1])
def test_a_stray_pixel_of_another_class_costs_no_point(method) -> None:
    """Of 2160 pixels one becomes a class that is nowhere in the truth: the others' mean hardly moves."""
    pair = frames(11)
    plain = paired_bootstrap(*pair)
    wider = [np.pad(counts, ((0, 0), (0, 0), (0, 1))) for counts in pair]
    wrong = wider[method][:, 2] - wider[method][:, 0]  # labelled so, and not right
    frame, label = np.argwhere(wrong[:, :3] > 0)[0]
    wider[method][frame, 2, label] -= 1
    wider[method][frame, 2, 3] += 1
    found = paired_bootstrap(*wider)
    assert found.difference == pytest.approx(plain.difference, abs=2e-3)
    assert [found.low, found.high] == pytest.approx([plain.low, plain.high], abs=2e-3)
    # By its definition, over the classes of the truth.
    hits, truth, labels = (np.moveaxis(np.array([counts.sum(axis=0) for counts in wider]), 1, 0))[..., :3]
    ious = hits / (truth + labels - hits)
    assert found.difference == pytest.approx(ious[0].mean() - ious[1].mean())
