"""Computing for clients: so many side by side, so many waiting, and none for those that are gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from errseg_rt.service.refusal import BusyError, GoneError

T = TypeVar("T")


class Wanted:
    """Tells a job whether its result is still wanted, and how long the job has waited.

    Attributes:
        waited: Seconds from when it was given to when it was begun.
    """

    def __init__(self) -> None:
        self.waited, self._given, self._gone = 0.0, time.perf_counter(), threading.Event()

    def begin(self) -> None:
        """Note that the job begins; raises as `check`."""
        self.waited = time.perf_counter() - self._given
        self.check()

    def check(self) -> None:
        """Raise GoneError where nobody wants the result any more."""
        if self._gone.is_set():
            raise GoneError

    def drop(self) -> None:
        """Say that nobody wants it any more."""
        self._gone.set()


class Work:
    """Runs jobs in threads, first come, first served.

    Args:
        workers: Jobs that run side by side.
        queue: Jobs that wait, at most.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self.workers, self._most = workers, workers + queue
        self._under_way = 0
        self._pool = ThreadPoolExecutor(workers, "errseg-serve")

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return max(0, self._under_way - self.workers)

    @property
    def under_way(self) -> int:
        """Jobs that run or wait."""
        return self._under_way

    def check(self) -> None:
        """Raise BusyError where the queue is full."""
        if self._under_way >= self._most:
            raise BusyError(f"{self.waiting} requests are waiting, and no more may; try again")

    async def do(
        self, job: Callable[[Wanted], T], gone: Callable[[], Awaitable[None]] | None = None, *, is_patient: bool = False
    ) -> T:
        """What a job gives.

        Args:
            job: Runs in a thread.
            gone: Returns when the client is gone; None: nobody looks.
            is_patient: Whether it waits where the queue is full, as streams do, of which each has one job at a time.

        Raises:
            BusyError: The queue is full.
            GoneError: The client is gone; a job that has not begun never does.
        """
        if not is_patient:
            self.check()
        wanted, loop = Wanted(), asyncio.get_running_loop()

        def begun() -> T:
            wanted.begin()
            return job(wanted)

        self._under_way += 1
        future = self._pool.submit(begun)
        future.add_done_callback(partial(self._tell, loop))
        if gone is None:
            return await asyncio.wrap_future(future)
        return await self._unless_gone(future, wanted, gone)

    def close(self) -> None:
        """Take no more; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _unless_gone(self, future: Future[T], wanted: Wanted, gone: Callable[[], Awaitable[None]]) -> T:
        result, watch = asyncio.wrap_future(future), asyncio.ensure_future(gone())
        try:
            await asyncio.wait((result, watch), return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise GoneError
        finally:
            watch.cancel()
            if not result.done():
                wanted.drop()
                future.cancel()
                result.cancel()

    def _tell(self, loop: asyncio.AbstractEventLoop, _: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended meanwhile
            loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._under_way -= 1
