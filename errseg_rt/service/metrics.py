"""What `/metrics` tells, in Prometheus' text form; labels are bounded: routes, statuses, stages, classes, states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from errseg_rt.service.drift import Drift
from errseg_rt.video.picture import CONNECTED, ENDED, LOST, WAITING

if TYPE_CHECKING:
    from errseg_rt.bundle.classes import ClassSet
    from errseg_rt.frames.segmentation import Segmentation
    from errseg_rt.video.stream import Stats

_STAGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
_REQUESTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Counts and times of one service.

    Args:
        classes: The classes that labels are of.

    Attributes:
        drift: Of recent frames, whoever sent them.
    """

    def __init__(self, classes: ClassSet) -> None:
        self.drift, self._registry = Drift(classes), CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "errseg_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "errseg_request_seconds",
            "Time of a request.",
            ["route"],
            buckets=_REQUESTS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "errseg_stage_seconds",
            "Time of a stage of a frame.",
            ["stage"],
            buckets=_STAGES,
            registry=self._registry,
        )
        self._dropped = Counter(
            "errseg_client_dropped_frames",
            "Frames of clients' streams in whose stead a newer one was taken.",
            registry=self._registry,
        )
        self._gauge("errseg_flagged_ratio", "Mean share of flagged pixels of recent frames.").set_function(
            lambda: _number(self.drift.flagged_share)
        )
        self._gauge(
            "errseg_expected_error_ratio",
            "Mean calibrated error probability of recent frames: the share of pixels that is expected to be wrong.",
        ).set_function(lambda: _number(self.drift.expected_error))
        self._registry.register(_Doubts(self.drift))

    def watch(self, *, queue: Callable[[], int], clients: Callable[[], int]) -> None:
        """Ask these for the depth of the queue, and for the number of clients."""
        self._gauge("errseg_queue_depth", "Frames that wait to be computed.").set_function(queue)
        self._gauge("errseg_clients", "Requests and streams that are being served.").set_function(clients)

    def watch_source(self, stats: Callable[[], Stats]) -> None:
        """Ask this for what has happened in the stream of the service's own source."""
        self._registry.register(_SourceCollector(stats))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def frame(self, result: Segmentation, more: Mapping[str, float] | None = None) -> None:
        """Count a frame; `more` are seconds of stages beside those of the runtime."""
        for stage, milliseconds in result.timings.items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        self.stages(more or {})
        self.drift.add(result)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Count times of stages."""
        for stage, value in seconds.items():
            self._stages.labels(stage).observe(value)

    def dropped(self, frames: int) -> None:
        """Count frames of a client's stream that were dropped."""
        self._dropped.inc(frames)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)


class _Doubts(Collector):
    def __init__(self, drift: Drift) -> None:
        self._drift = drift

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "errseg_doubtful_ratio",
            "Share of a class's pixels in recent frames that are rather wrong than right.",
            labels=["class"],
        )
        for name, share in self._drift.doubtful.items():
            if share is not None:
                family.add_metric([name], share)
        yield family


class _SourceCollector(Collector):
    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text, value in (
            ("frames", "Frames that the source gave.", stats.read),
            ("segmented_frames", "Frames of the source that were segmented.", stats.segmented),
            ("dropped_frames", "Frames of the source that nobody was free for.", stats.dropped),
            ("corrupt_packets", "Packets or frames of the source that could not be decoded.", stats.corrupt),
            ("reconnects", "How often the source was opened again.", stats.reopened),
        ):
            yield CounterMetricFamily(f"errseg_source_{name}", text, value=value)
        state = GaugeMetricFamily("errseg_source_state", "1 for the state that the source is in.", labels=["state"])
        for name in (CONNECTED, WAITING, LOST, ENDED):
            state.add_metric([name], float(stats.state == name))
        yield state


def _number(value: float | None) -> float:
    return math.nan if value is None else value
