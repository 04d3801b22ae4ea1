"""Frames in over HTTP and WebSockets, labels and error maps out: the service of `errseg-rt serve`, and its page."""
