"""Frames in time: sources (files, cameras, URLs), a runtime over them, and what is written of it."""
