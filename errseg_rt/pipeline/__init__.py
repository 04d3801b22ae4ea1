"""The way of a frame, once, and how frames go it: at once on a CPU, in flight on a GPU."""
