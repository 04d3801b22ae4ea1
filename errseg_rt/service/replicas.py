"""A runtime that lies in replicas of Ray Serve: what stands for it in the service, which then holds no model itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import EngineError, ErrsegError
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.options import Options
from errseg_rt.runtime import Runtime
from errseg_rt.service.refusal import BusyError

_TRIES = 2  # of a frame whose replica dies: segmenting it once more does no harm
_END = 1.0  # seconds that a replica gets to end; the service has waited for its frames already


class Replica:
    """Holds one runtime. What is wrong is given back: Ray would wrap what is raised in a traceback of its own.

    Args:
        bundle: What `Bundle.open` finds it by.
        sha256: Of its manifest.
        options: How it is run.
    """

    def __init__(self, bundle: str, sha256: str, options: Options) -> None:
        self._runtime: Runtime | None = None
        self._fault: str | None = None
        try:
            self._runtime = Runtime(bundle, options=options)
            if self._runtime.bundle.stamp()["sha256"] != sha256:
                self._fault = f"{bundle}: is another bundle at a replica; give all machines the same one"
            elif self._runtime.device == "cpu":
                self._runtime.warm_up()
        except (ErrsegError, ImportError, OSError) as error:
            self._fault = f"at a replica: {error}"

    def detail(self) -> tuple[str | None, str | None]:
        """How the runtime refines, and what is wrong with it."""
        return None if self._runtime is None else self._runtime.detail, self._fault

    def segment(self, frame: npt.NDArray[np.uint8], asked: dict[str, Any]) -> Segmentation | Exception:
        """What `Runtime.segment` gives or raises."""
        assert self._runtime is not None
        try:
            return self._runtime.segment(frame, **asked)
        except (ErrsegError, ValueError, MemoryError) as error:
            return error


class Remote:
    """Stands for a `Runtime` that lies in replicas: the service asks no more of one than this.

    Args:
        bundle: The bundle that the replicas run.
        options: How they run it.
        handle: A handle of theirs, whose `segment` is a `Replica`'s.
        detail: How they refine.

    Attributes:
        bundle, manifest, options, limits, detail: As those of a `Runtime`.
    """

    def __init__(self, bundle: Bundle, options: Options, handle: Any, detail: str | None) -> None:
        self.bundle, self.manifest, self.options = bundle, bundle.manifest, options
        self.limits = options.limits(bundle.manifest.threshold)
        self.detail = detail
        self._handle = handle

    @property
    def threshold(self) -> float:
        """As `Runtime.threshold`."""
        return self.limits.threshold

    def segment(self, frame: npt.NDArray[np.uint8], **asked: Any) -> Segmentation:
        """As `Runtime.segment`; may be called from several threads.

        Raises:
            BusyError: As many frames wait for replicas as may.
            EngineError: Two replicas died over it.
        """
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError

        for _ in range(_TRIES):
            try:
                result = self._handle.segment.remote(frame, asked).result()
            except BackPressureError:
                raise BusyError("more frames wait for replicas than may; try again") from None
            except RayActorError:
                continue
            if isinstance(result, Exception):
                raise result
            return result  # type: ignore[no-any-return]
        raise EngineError("the replicas of the model that this frame was given to died; try again")


@contextmanager
def deployed(bundle: Bundle, options: Options, replicas: int, queue: int) -> Iterator[Remote]:
    """Replicas of a runtime in the Ray cluster that this process is in, for the length of a `with` block.

    Each does one frame at a time; HTTP is not Ray's here, whose proxy would take longer for it than uvicorn.

    Args:
        bundle: The bundle.
        options: How each runs it; it gets a CPU for each thread, or a GPU.
        replicas: How many.
        queue: Frames that may wait for one.

    Raises:
        EngineError: They cannot run the bundle.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    is_gpu = options.kind == "gpu"
    kind = serve.deployment(
        Replica,
        num_replicas=replicas,
        max_ongoing_requests=1,
        max_queued_requests=queue + 2 * replicas,  # what runs is given once more where replicas die
        ray_actor_options={"num_cpus": 1 if is_gpu else options.cores, "num_gpus": int(is_gpu)},
        graceful_shutdown_timeout_s=_END,
        graceful_shutdown_wait_loop_s=_END / 10,
        health_check_period_s=2.0,
    )
    name = f"errseg-rt-{bundle.manifest.name}-{os.getpid()}"
    serve.start(proxy_location="Disabled")
    try:
        handle = serve.run(
            kind.bind(bundle.address, bundle.stamp()["sha256"], options),
            name=name,
            route_prefix=None,
        )
        detail, fault = handle.detail.remote().result()
        if fault is not None:
            raise EngineError(fault)
        yield Remote(bundle, options, handle, detail)
    finally:
        with suppress(Exception):  # the cluster may be gone
            serve.delete(name)
