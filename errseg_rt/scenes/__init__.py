"""Rendered street scenes with exact labels and instance ids."""

from errseg_rt.scenes.street import SceneFrame, StreetScene, render_clip

__all__ = ["SceneFrame", "StreetScene", "render_clip"]
