"""The way of a frame on an NVIDIA GPU; imports torch, and is imported only where a GPU is asked for."""
