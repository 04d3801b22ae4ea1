"""Rendered street scenes and cell nuclei with exact labels and instance ids."""

from errseg_rt.scenes.nuclei import NucleiScene
from errseg_rt.scenes.street import SceneFrame, StreetScene, render_clip

__all__ = ["NucleiScene", "SceneFrame", "StreetScene", "render_clip"]
