"""The losses of the two branches (Gong et al. 2021, eq. 2 and 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from errseg_rt.classes import IGNORE
from errseg_rt.networks.cascade import error_map, flag


def error_loss(
    error_logit: Tensor,
    semantic_logits: Tensor,
    truth: Tensor,
    *,
    rho: float = 0.95,
    easy_weight: float = 1.0,
    hard_weight: float = 1.5,
) -> Tensor:
    """Eq. 2: balanced cross-entropy of the error-prediction branch.

    Per image, `-[w1 sum_easy log P + w2 sum_hard log P + w3 sum_correct log(1 - P)] / N_valid`, where an error is easy
    when max P_sb <= rho, and `w3 = N_err / N_valid`; then the mean over the batch.

    Args:
        error_logit: `[B, 1, h, w]`.
        semantic_logits: `[B, classes, h, w]`.
        truth: Labels on the grid, `int64 [B, h, w]`, `IGNORE` where void.
        rho: Confidence from which an error is hard.
        easy_weight: w1.
        hard_weight: w2.

    Returns:
        A scalar; an image without a valid pixel counts as zero.
    """
    p_sb = semantic_logits.softmax(dim=1)
    confidence, labels = p_sb.max(dim=1)
    valid = truth != IGNORE
    wrong = error_map(labels, truth) & valid
    count = valid.sum(dim=(1, 2)).clamp_min(1)
    correct_weight = (wrong.sum(dim=(1, 2)) / count)[:, None, None]
    logit = error_logit[:, 0]
    weight = torch.where(confidence > rho, hard_weight, easy_weight)
    likelihood = torch.where(wrong, weight * F.logsigmoid(logit), correct_weight * F.logsigmoid(-logit))
    return -((likelihood * valid).sum(dim=(1, 2)) / count).mean()


def detail_loss(detail_logits: Tensor, error_logit: Tensor, truth: Tensor, threshold: float) -> Tensor:
    """Eq. 3: cross-entropy over the flagged pixels.

    The sum of the paper is divided by the number of its terms, so that the rate does not depend on the crop.

    Args:
        detail_logits: `[B, classes, h, w]`.
        error_logit: `[B, 1, h, w]`.
        truth: Labels on the grid, `int64 [B, h, w]`, `IGNORE` where void.
        threshold: t of eq. 4.

    Returns:
        A scalar; zero when no valid pixel is flagged.
    """
    flagged = flag(error_logit[:, 0], threshold)
    target = truth.where(flagged, IGNORE)
    total = F.cross_entropy(detail_logits, target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp_min(1)
