"""Checkpoints that TensorFlow wrote, read without it."""

from errseg_rt.networks.tensorflow.checkpoint import checkpoint_files, read_checkpoint

__all__ = ["checkpoint_files", "read_checkpoint"]
