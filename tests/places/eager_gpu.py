"""In the stead of a GPU: everything is done when it is enqueued, and noted down."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch

from errseg_rt.places.torch_gpu import TorchGpu
from tests.places.streams import Event, Stream


class EagerGpu(TorchGpu):
    """In the stead of a GPU: work is done when it is enqueued, and replayed by being done again."""

    def __init__(self):
        self.device = torch.device("cpu")
        self.log, self.made, self.captures = [], [], 0
        self.here = self.active = Stream(self, "caller")

    def entered(self):
        return nullcontext()

    def stream(self):
        self.made.append(Stream(self, f"stream {len(self.made)}"))
        return self.made[-1]

    def current(self):
        return self.here

    @contextmanager
    def on(self, stream):
        before, self.active = self.active, stream
        yield
        self.active = before

    def event(self):
        return Event(self)

    def capture(self, work):
        self.captures += 1
        work()

        def replay():
            self.log.append(("replay", self.active.name))
            work()

        return replay
