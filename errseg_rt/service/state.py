"""What the routes of one service share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from errseg_rt.runtime import Runtime
from errseg_rt.service.limits import Room
from errseg_rt.service.live import Live
from errseg_rt.service.metrics import Metrics
from errseg_rt.service.replicas import Remote
from errseg_rt.service.settings import Settings
from errseg_rt.service.work import Work


@dataclass(eq=False)
class Service:
    """A service: a runtime, and what is served with it.

    Attributes:
        runtime: Segments the frames, here or elsewhere.
        settings: What is taken, and of whom.
        live: The service's own source; None: there is none.
        workers: Frames that are segmented side by side; None: by the runtime's options.
        metrics: Its counts.
        room: Who is in.
        work: What is computed.
        closing: Set once the service is to end.
    """

    runtime: Runtime | Remote
    settings: Settings = field(default_factory=Settings)
    live: Live | None = None
    workers: int | None = None
    metrics: Metrics = field(init=False)
    room: Room = field(init=False)
    work: Work = field(init=False)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self.metrics = Metrics(self.runtime.manifest.classes)
        self.room = Room(settings.max_clients, settings.max_bytes)
        self.workers = self.workers or self.runtime.options.side_by_side
        self.work = Work(self.workers, settings.queue)
        self.metrics.watch(queue=lambda: self.work.waiting, clients=lambda: self.room.clients)

    @property
    def model(self) -> str:
        """Name of the model, as clients call it."""
        return self.runtime.manifest.name
