"""In the stead of a GPU: everything is done when it is enqueued, and noted down."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch

from errseg_rt.device.torch_gpu import TorchGpu


class Event:
    """Marks a place in the log of a GPU that does everything at once."""

    def __init__(self, gpu):
        self.gpu, self.at, self.is_done = gpu, None, True

    def record(self, stream):
        self.at = len(self.gpu.log)
        self.gpu.log.append(("record", stream.name, id(self)))

    def synchronize(self):
        assert self.at is not None
        self.gpu.log.append(("host waits", id(self)))

    def query(self):
        return self.is_done

    def elapsed_time(self, other):
        assert other.at > self.at
        return float(other.at - self.at)


class Stream:
    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def wait_event(self, event):
        assert event.at is not None, "waits for an event that was never recorded"
        self.gpu.log.append(("wait", self.name, id(event)))


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
