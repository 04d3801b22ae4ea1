"""The losses: eq. 2 and 3 of Gong et al. 2021, and those that choose hard pixels instead."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.networks.cascade import error_map


def cross_entropy(logits: Tensor, truth: Tensor, sets: Tensor | None = None) -> Tensor:
    """Minus the logarithm of the true class's probability, or of the summed probability of the true set's classes.

    Args:
        logits: `[B, classes, h, w]`.
        truth: Truth ids, `int64 [B, h, w]`, `IGNORE` where void.
        sets: Which classes are right where a truth id is true, `bool [truth ids, classes]`, at least one in each row;
            None: the ids are the classes.

    Returns:
        `[B, h, w]`; zero where void.
    """
    if sets is None:
        return F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="none")
    outside = ~sets.to(truth.device)[_known(truth)].movedim(-1, 1)
    of_set = logits.masked_fill(outside, -math.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - of_set).masked_fill(truth == IGNORE, 0)


def wrong_pixels(labels: Tensor, truth: Tensor, sets: Tensor | None = None) -> Tensor:
    """Eq. 1: where a label is not the true class, or not in the true set; never where void.

    Args:
        labels: Classes, `int64 [B, h, w]`.
        truth: Truth ids, as `cross_entropy` takes them, with `sets`.
        sets: As there.

    Returns:
        `bool [B, h, w]`.
    """
    wrong = error_map(labels, truth) if sets is None else ~sets.to(truth.device)[_known(truth), labels]
    return wrong & (truth != IGNORE)


def _known(truth: Tensor) -> Tensor:
    """Truth ids, with some id where void."""
    return truth.masked_fill(truth == IGNORE, 0)


def error_loss(
    error_logit: Tensor,
    semantic_logits: Tensor,
    truth: Tensor,
    *,
    sets: Tensor | None = None,
    rho: float = 0.95,
    easy_weight: float = 1.0,
    hard_weight: float = 1.5,
    correct_weight: float = 0.0,
) -> Tensor:
    """Eq. 2: balanced cross-entropy of the error-prediction branch.

    Per image, `-[w1 sum_easy log P + w2 sum_hard log P + w3 sum_correct log(1 - P)] / N_valid`, where an error is easy
    when max P_sb <= rho, and `w3 = N_err / N_valid`; then the mean over the batch.

    Args:
        error_logit: `[B, 1, h, w]`.
        semantic_logits: `[B, classes, h, w]`.
        truth: Labels on the grid, `int64 [B, h, w]`, `IGNORE` where void.
        sets: What truth ids mean, as in `cross_entropy`: an error is a label outside the true set.
        rho: Confidence from which an error is hard.
        easy_weight: w1.
        hard_weight: w2.
        correct_weight: w3; 0: that of the equation, image by image.

    Returns:
        A scalar; an image without a valid pixel counts as zero.
    """
    p_sb = semantic_logits.softmax(dim=1)
    confidence, labels = p_sb.max(dim=1)
    valid = truth != IGNORE
    wrong = wrong_pixels(labels, truth, sets)
    count = valid.sum(dim=(1, 2)).clamp_min(1)
    balance = (
        torch.full_like(count, correct_weight, dtype=torch.float) if correct_weight else error_shares(wrong, valid)
    )
    logit = error_logit[:, 0]
    weight = torch.where(confidence > rho, hard_weight, easy_weight)
    likelihood = torch.where(wrong, weight * F.logsigmoid(logit), balance[:, None, None] * F.logsigmoid(-logit))
    return -((likelihood * valid).sum(dim=(1, 2)) / count).mean()


def error_shares(wrong: Tensor, valid: Tensor) -> Tensor:
    """N_err / N_valid of each image, `[B]`, from masks `[B, h, w]`; zero without a valid pixel."""
    return wrong.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp_min(1)


def detail_loss(
    detail_logits: Tensor, flagged: Tensor, truth: Tensor, sets: Tensor | None = None, boundary: float = 0.0
) -> Tensor:
    """Eq. 3: cross-entropy over the flagged pixels; for sets, of the set's summed probability.

    The sum of the paper is divided by that of its weights, the number of its terms where all are alike, so that the
    rate does not depend on the crop.

    Args:
        detail_logits: `[B, classes, h, w]`.
        flagged: E_ep of eq. 4, `bool [B, h, w]`.
        truth: Labels on the grid, `int64 [B, h, w]`, `IGNORE` where void.
        sets: What truth ids mean, as in `cross_entropy`.
        boundary: Weight, on top of 1, of pixels near a boundary (`near_boundary`).

    Returns:
        A scalar; zero when no valid pixel is flagged.
    """
    counted = flagged & (truth != IGNORE)
    losses = cross_entropy(detail_logits, truth.where(counted, IGNORE), sets)
    weights = counted * (1 + boundary * near_boundary(truth)) if boundary else counted
    return (losses * weights).sum() / weights.sum().clamp_min(1)


def near_boundary(truth: Tensor, reach: int = 2) -> Tensor:
    """Where two different truth ids lie within so many rows and columns, void aside.

    Args:
        truth: `int64 [B, h, w]`, `IGNORE` where void.
        reach: Rows and columns.

    Returns:
        `bool [B, h, w]`.
    """
    ids, void = truth[:, None].float(), truth[:, None] == IGNORE
    side = 2 * reach + 1
    largest: Tensor = F.max_pool2d(ids.masked_fill(void, -math.inf), side, 1, reach)
    smallest: Tensor = -F.max_pool2d(-ids.masked_fill(void, math.inf), side, 1, reach)
    return (largest > smallest)[:, 0]


def loss_rank_mining(logits: Tensor, truth: Tensor, share: float, sets: Tensor | None = None) -> Tensor:
    """Cross-entropy over the valid pixels of the batch with the highest loss (Yu et al. 2018).

    Args:
        logits: `[B, classes, h, w]`.
        truth: `int64 [B, h, w]`, `IGNORE` where void.
        share: Share of the valid pixels that count, rounded up.
        sets: What truth ids mean, as in `cross_entropy`.

    Returns:
        A scalar; zero when no pixel is valid.
    """
    losses = _losses(logits, truth, sets)
    return _mean(losses.topk(_share(losses, share)).values)


def bootstrapped_loss(
    logits: Tensor, truth: Tensor, probability: float, keep: float, sets: Tensor | None = None, pixels: int = 0
) -> Tensor:
    """Online bootstrapping: cross-entropy over the hard pixels of the batch (Wu et al. 2016, eq. 1).

    Args:
        logits: `[B, classes, h, w]`.
        truth: `int64 [B, h, w]`, `IGNORE` where void.
        probability: A pixel is hard where the probability of its true class is below this.
        keep: Where fewer than this share of the valid pixels are hard, rounded up, the hardest make it up.
        sets: What truth ids mean, as in `cross_entropy`.
        pixels: Where fewer than this many of a crop's are, its hardest make it up: its threshold adapts (section 3.3
            finds 512 the best). 0: one threshold for the batch, and `keep` alone.

    Returns:
        A scalar; zero when no pixel is valid.
    """
    crops = range(len(logits)) if pixels else [slice(None)]
    kept = []
    for crop in crops:
        part = slice(crop, crop + 1) if isinstance(crop, int) else crop
        losses = _losses(logits[part], truth[part], sets).sort(descending=True).values
        hard = int((losses.detach() > -math.log(probability)).sum())
        kept.append(losses[: max(hard, _share(losses, keep), pixels)])
    return _mean(torch.cat(kept))


def _losses(logits: Tensor, truth: Tensor, sets: Tensor | None) -> Tensor:
    """Cross-entropy of each valid pixel, `[N]`."""
    return cross_entropy(logits, truth, sets)[truth != IGNORE]


def _share(losses: Tensor, share: float) -> int:
    return math.ceil(share * losses.numel())


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(losses.numel(), 1)
