"""What holds partitions, has something to do and does not get on: noticed, logged, measured, and the end of the worker.

Libraries can fail in silence: aiokafka's fetcher may end while heartbeats go on, an answer may never come. The group
would go on believing in such a worker for ever. Another one, or this one started again, takes its partitions over.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Hashable, Mapping
from typing import Any

LOOKS = 6  # per timeout


class Watchdog:
    """Compares what it is shown with what it was shown before. `timeout` and times in (monotonic) seconds."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._since: dict[str, tuple[Hashable, float]] = {}

    def look(self, now: float, progress: Mapping[str, Hashable]) -> dict[str, float]:
        """Seconds that each of what has something to do has stood at the same `progress`."""
        known = self._since
        self._since = {
            what: known[what] if what in known and known[what][0] == at else (at, now) for what, at in progress.items()
        }
        return {what: now - since for what, (_, since) in self._since.items()}

    def forget(self) -> None:
        """Nothing can be said now: the brokers are away, or a rebalance came."""
        self._since.clear()


def awaited(task: asyncio.Task[Any]) -> str:
    """Where a task is, from its own coroutine down to what it awaits: `work:221 > _commit:310 > send:12`."""
    places: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        inner = getattr(inner, "cr_await", None)
    return " > ".join(places)


async def guard_loop(timeout: float) -> None:
    """End the process, with the stack of every thread on standard error, if the loop itself stands for `timeout`.

    Nothing in a loop that stands can say so; faulthandler's own thread does, and exits with 1. 0: never.
    """
    try:
        while timeout:
            faulthandler.dump_traceback_later(timeout, exit=True)
            await asyncio.sleep(timeout / LOOKS)
    finally:
        faulthandler.cancel_dump_traceback_later()
