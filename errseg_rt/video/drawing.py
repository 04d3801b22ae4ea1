"""What a person is shown of a shot: frame, labels and error map side by side, with a colour bar and numbers."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.frames.segmentation import Segmentation

VIEWS = ("overlay", "labels", "errors", "side-by-side")
Picture = npt.NDArray[np.uint8]

_TEXT = 1 / 13  # height of capital letters, of a panel's height: four panels are read on a phone
_LETTER = 22  # pixels of a capital letter of OpenCV's font at scale 1
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PAPER = (255, 255, 255), (24, 24, 24)


def drawn(view: str, frame: Picture, result: Segmentation, timestamp: float | None = None) -> Picture:
    """A picture of a shot.

    Args:
        view: One of `VIEWS`. `"side-by-side"` has twice the frame's height and width: frame, overlay, error map, and
            what is seen in numbers.
        frame: BGR `uint8 [H, W, 3]`.
        result: What the runtime says of it.
        timestamp: Its time in seconds, which is shown.

    Raises:
        ValueError: There is no such view, or no error map for it.
    """
    if view == "overlay":
        return result.overlay(frame)
    if view == "labels":
        return result.colors()
    if view == "errors":
        return _with_bar(result.heat())
    if view != "side-by-side":
        raise ValueError(f"view must be {', '.join(VIEWS)}, got {view!r}")
    no_map = np.full_like(frame, 24)
    errors = no_map if result.error_probability is None else _with_bar(result.heat())
    above = [_captioned(frame, "frame"), _captioned(result.overlay(frame), "labels")]
    title = "no error map" if result.error_probability is None else "error probability"
    below = [_captioned(errors, title), _figures(result, timestamp)]
    return np.concatenate([np.concatenate(row, axis=1) for row in (above, below)])


def _captioned(panel: Picture, text: str) -> Picture:
    """A copy of a panel with a caption on a dark strip."""
    panel = panel.copy()
    scale = _scale(text, panel)
    strip = panel[: round(1.9 * _LETTER * scale)]
    strip[:] = strip // 3
    _write(panel, text, (round(0.02 * panel.shape[1]), round(1.45 * _LETTER * scale)), scale)
    return panel


def _figures(result: Segmentation, timestamp: float | None) -> Picture:
    """What is seen: error and work in numbers, then the classes by their shares."""
    height, width = result.labels.shape
    panel = np.full((height, width, 3), 24, np.uint8)
    lines: list[tuple[str, tuple[int, int, int] | None]] = []
    if timestamp is not None:
        lines.append((f"time {timestamp:.2f} s", None))
    if result.expected_error is not None:
        lines.append((f"expected error {100 * result.expected_error:.1f} %", None))
    if result.flagged.any() or result.work:
        lines.append((f"labelled again {100 * result.flagged_share:.1f} %", None))
    if result.instances is not None:
        found = np.bincount(result.instances.classes, minlength=len(result.classes))
        lines += [(f"{found[each]} x {result.classes.names[each]}", None) for each in np.flatnonzero(found)]
    for name, share in sorted(result.shares.items(), key=lambda item: -item[1]):
        red, green, blue = result.classes.colors[result.classes.names.index(name)]
        lines.append((f"{100 * share:.0f} % {name}", (blue, green, red)))
    step = round(1.55 * _TEXT * height)
    for row, (text, color) in enumerate(lines[: max(1, (height - step // 2) // max(step, 1))]):
        base = round((row + 1) * step)
        left = round(0.03 * width)
        if color is not None:
            size = round(_TEXT * height)
            panel[max(0, base - size) : base, left : left + size] = color
            left += round(1.5 * size)
        _write(panel, text, (left, base), _scale(text, panel, left))
    return panel


def _scale(text: str, panel: Picture, left: int = 0) -> float:
    """The font's scale at which a text is as high as it shall be, or fits."""
    scale = _TEXT * panel.shape[0] / _LETTER
    wide = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
    return float(scale * min(1.0, max(1.0, 0.96 * panel.shape[1] - left) / max(wide, 1)))


def _write(panel: Picture, text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(panel, text, at, _FONT, scale, _INK, max(1, round(1.8 * scale)), cv2.LINE_AA)


def _with_bar(heat: Picture) -> Picture:
    """A copy of an error map with its colours' scale at the right."""
    heat = heat.copy()
    height, width = heat.shape[:2]
    thick, scale = max(3, width // 32), 0.7 * _TEXT * height / _LETTER
    top, bottom, left = round(0.25 * height), round(0.93 * height), width - 2 * max(3, width // 32)
    ramp = np.linspace(255, 0, max(2, bottom - top)).astype(np.uint8)[:, None]
    bar = np.asarray(cv2.applyColorMap(np.repeat(ramp, thick, axis=1), cv2.COLORMAP_HOT), np.uint8)
    part = heat[top : top + len(bar), left : left + thick]
    part[:] = bar[: part.shape[0], : part.shape[1]]
    cv2.rectangle(heat, (left - 1, top - 1), (left + thick, bottom), (128, 128, 128), 1)
    for share in (1.0, 0.5, 0.0):
        text = f"{100 * share:.0f} %"
        (wide, tall), _ = cv2.getTextSize(text, _FONT, scale, 1)
        at = (max(0, left - wide - thick // 2), round(bottom - share * (bottom - top)) + tall // 2)
        cv2.putText(heat, text, at, _FONT, scale, _PAPER, max(3, round(4 * scale)), cv2.LINE_AA)
        cv2.putText(heat, text, at, _FONT, scale, _INK, max(1, round(1.5 * scale)), cv2.LINE_AA)
    return heat
