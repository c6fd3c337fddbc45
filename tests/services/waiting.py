"""Wait for a condition with a deadline: the tests' only way to let time pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

POLL_SECONDS = 0.05

T = TypeVar("T")


def wait_for(condition: Callable[[], T], deadline_seconds: float, what: str) -> T:
    """The first true value of `condition()`; TimeoutError naming `what` once the deadline has passed.

    What the condition raises is the caller's: an error is a failure, not a "not yet".
    """
    deadline = time.monotonic() + deadline_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {deadline_seconds} s: {what} (last seen: {value!r})")
        time.sleep(POLL_SECONDS)


async def eventually(condition: Callable[[], Awaitable[T]], deadline_seconds: float, what: str) -> T:
    """`wait_for` for a coroutine function; a condition that hangs is cut off at the deadline too."""
    value: T | None = None
    try:
        async with asyncio.timeout(deadline_seconds):
            while True:
                value = await condition()
                if value:
                    return value
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"not within {deadline_seconds} s: {what} (last seen: {value!r})") from None
