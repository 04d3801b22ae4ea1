"""Video files."""

from errseg_rt.video.writer import VideoWriter

__all__ = ["VideoWriter"]
