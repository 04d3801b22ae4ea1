"""Calibration on a GPU, as a launch."""

from __future__ import annotations

from typing import Any

from errseg_rt.kernels.launch import Launch, Launcher, cdiv, next_power_of_2

PIXELS, WARPS = 512, 4


def enqueue_calibrate(
    launcher: Launcher,
    error_logit: Any,  # [h, w]
    knots: Any,  # [2, n]
) -> Any:  # [h, w] float32
    """Error probability in float32; `errseg_rt.kernels.calibrate.reference` is the definition.

    Args:
        launcher: Of the GPU that holds the operands.
        error_logit: float32, float16 or bfloat16, contiguous.
        knots: float32, contiguous: logits, never decreasing, and probabilities, likewise. There is at least one.

    Raises:
        ValueError: An operand has another shape, or gaps.
    """
    if len(error_logit.shape) != 2 or not error_logit.is_contiguous():
        raise ValueError(f"error_logit must be contiguous [h, w], got {list(error_logit.shape)}")
    if len(knots.shape) != 2 or knots.shape[0] != 2 or not knots.shape[1] or not knots.is_contiguous():
        raise ValueError(f"knots must be contiguous [2, n] with n of at least 1, got {list(knots.shape)}")
    height, width, count = (int(length) for length in (*error_logit.shape, knots.shape[1]))
    pixels = height * width
    probability = launcher.empty((height, width), "float32")
    if pixels:
        launcher.launch(
            Launch(
                "calibrate.calibrate",
                (cdiv(pixels, PIXELS),),
                (error_logit, pixels, knots, count, next_power_of_2(count) // 2, probability),
                {"PIXELS": PIXELS},
                WARPS,
            )
        )
    return probability
