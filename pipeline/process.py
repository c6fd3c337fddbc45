"""How a worker's process runs: its event loop, and when Python looks for garbage.

uvloop: a worker moves few, large batches, so what a loop costs is mostly sockets; `bench.compare` says which loop ran.

Garbage: what a span leaves behind is freed by counting references; only cycles need the collector, and batches make
none. Python's own threshold (700 new containers) makes it walk a batch's rows in the making several times, and a full
collection walks every remembered verdict. So modules are set apart once (`gc.freeze`), and the collector comes rarely,
but it does come: libraries make cycles (a task and its exception's traceback).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

NEW_CONTAINERS = 50_000  # between two collections of the young: about one batch of a thousand messages
YOUNG_PER_OLD = 20

T = TypeVar("T")


def run(main: Coroutine[None, None, T]) -> T:
    """`asyncio.run` for a process that stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_CONTAINERS, YOUNG_PER_OLD, YOUNG_PER_OLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
