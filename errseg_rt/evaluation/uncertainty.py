"""What the semantic branch alone says of its doubts: the free baselines that an error-prediction branch must beat.

Each is a score in 0..1 that grows with doubt. It is kept as its logit, computed without ever forming the score: near 0,
where most pixels lie, the score itself saturates into ties. As a logit it takes the same calibration map as P_ep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BASELINES = ("max_softmax", "entropy", "margin")

Logits = npt.NDArray[np.float64]


def baseline_logits(logits: npt.NDArray[np.floating]) -> dict[str, Logits]:
    """The logit of each baseline score.

    `max_softmax` is 1 - max P_sb, `entropy` that of P_sb over its largest value log C, `margin` is 1 minus the
    difference of the two largest P_sb.

    Args:
        logits: Of the semantic branch, `[C, ...]`, finite.

    Returns:
        By the names in `BASELINES`, `float64 [...]`; +inf where a score is 1 (a tie of the two largest), -inf where it
        is 0 in float64.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    powers = np.exp(shifted)
    top = np.expand_dims(shifted.argmax(axis=0), 0)
    np.put_along_axis(powers, top, 0, axis=0)
    others = powers.sum(axis=0)  # relative to the top's power, which is 1
    second = powers.max(axis=0)
    # log1p: the entropy is exact also where the others are tiny.
    entropy = np.log1p(others) - (powers * shifted).sum(axis=0) / (1 + others)
    with np.errstate(divide="ignore"):
        return {
            "max_softmax": np.log(others),
            "entropy": np.log(entropy) - np.log(np.maximum(np.log(len(logits)) - entropy, 0)),
            "margin": np.log(others + second) - np.log(1 - second),
        }
