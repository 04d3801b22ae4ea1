"""How a street looks under its seed: light, weather, season, lens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errseg_rt.scenes.canvas import Color


@dataclass(frozen=True)
class Look:
    """Light and lens of one street.

    Attributes:
        sun_side: -1 if the sun stands left of the street, 1 if right.
        sun: Strength of direct light, 0 overcast .. 1 clear.
        exposure: Gain on the linear picture.
        tint: BGR factors of the light.
        sky_top: BGR of the zenith.
        sky_low: BGR of the sky at the horizon, also the colour of haze.
        haze: Distance in metres after which two thirds of a colour are lost to haze.
        clouds: Contrast of clouds, 0..1.
        leafy: Share of trees that carry leaves, 0..1.
        foliage: BGR of leaves.
        defocus: Sigma of the lens blur in pixels at 360 rows; it grows with the root of the size.
        noise: Sigma of sensor noise in grey levels.
        zoom_blur: Share of the motion between frames that smears.
        vignette: Loss of light in the corners, 0..1.
    """

    sun_side: int
    sun: float
    exposure: float
    tint: Color
    sky_top: Color
    sky_low: Color
    haze: float
    clouds: float
    leafy: float
    foliage: Color
    defocus: float
    noise: float
    zoom_blur: float
    vignette: float

    def lit(self, normal_x: float) -> float:
        """Brightness of an upright face whose outward normal has this x component; 0 faces along the street."""
        return 0.78 - 0.12 * self.sun + 0.34 * self.sun * max(normal_x * self.sun_side, 0.0) + 0.06 * abs(normal_x)


_SKIES: tuple[tuple[Color, Color, Color, float, float], ...] = (
    # zenith BGR, horizon BGR, tint BGR, sun, exposure
    ((225, 165, 110), (250, 235, 215), (0.98, 1.0, 1.02), 0.9, 1.05),  # clear noon
    ((246, 244, 240), (254, 253, 250), (1.0, 1.0, 1.0), 0.35, 1.0),  # white, overexposed
    ((170, 165, 160), (215, 212, 208), (1.05, 1.0, 0.96), 0.1, 0.9),  # overcast
    ((200, 160, 135), (190, 220, 250), (0.85, 0.97, 1.1), 1.0, 0.95),  # low sun
    ((135, 120, 110), (165, 160, 165), (1.08, 0.98, 0.94), 0.15, 0.74),  # dusk
)


def random_look(rng: np.random.Generator) -> Look:
    """Draws one of five skies and varies it."""
    top, low, tint, sun, exposure = _SKIES[int(rng.choice(len(_SKIES), p=[0.25, 0.25, 0.2, 0.15, 0.15]))]
    wobble = rng.uniform(0.97, 1.03, 3)
    green = rng.uniform(0, 1)
    return Look(
        sun_side=int(rng.choice((-1, 1))),
        sun=sun * float(rng.uniform(0.7, 1.0)),
        exposure=exposure * float(rng.uniform(0.85, 1.15)),
        tint=tuple(float(a * b) for a, b in zip(tint, rng.uniform(0.97, 1.03, 3), strict=True)),  # type: ignore[arg-type]
        sky_top=tuple(float(min(a * b, 255)) for a, b in zip(top, wobble, strict=True)),  # type: ignore[arg-type]
        sky_low=tuple(float(min(a * b, 255)) for a, b in zip(low, wobble, strict=True)),  # type: ignore[arg-type]
        haze=float(rng.uniform(110, 420)),
        clouds=float(rng.uniform(0.1, 0.9)),
        leafy=float(rng.choice((0.15, 0.6, 1.0))),
        foliage=(30 + 25 * green, 62 + 30 * green, 45 + 45 * float(rng.uniform(0, 1)) * green),
        defocus=float(rng.uniform(0.45, 0.85)),
        noise=float(rng.uniform(1.0, 4.5)),
        zoom_blur=float(rng.uniform(0.1, 0.6)),
        vignette=float(rng.uniform(0.0, 0.25)),
    )
