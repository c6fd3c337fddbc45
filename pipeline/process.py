"""How a worker's process runs: its event loop, and when Python looks for garbage.

uvloop: a worker moves few, large batches, so what a loop costs is mostly sockets; `bench.compare` says which loop ran.

Garbage: what a span leaves behind is freed by counting references; only cycles need the collector, and batches make
none. Python's own threshold (700 new containers) makes it walk a batch's rows in the making several times, and a full
collection walks every remembered verdict. So modules are set apart once (`gc.freeze`), and the collector comes rarely,
but it does come: libraries make cycles (a task and its exception's traceback).

Open files: each lease has connections of its own, 32 of them 97 sockets to one broker. The limit that processes begin
with (1,024) is there for select(), which none of the loops uses: it goes up to the hard one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

NEW_CONTAINERS = 50_000  # between two collections of the young: about one batch of a thousand messages
YOUNG_PER_OLD = 20
OPEN_MAX = 10_240  # files that macOS gives a process where the hard limit is none

T = TypeVar("T")


def run(main: Coroutine[None, None, T]) -> T:
    """`asyncio.run` for a process that stays."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for files in (most, max(now, min(most, OPEN_MAX))):
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
            break
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_CONTAINERS, YOUNG_PER_OLD, YOUNG_PER_OLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
