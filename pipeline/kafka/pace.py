"""How transactions stay short where the machine is slow, or the brokers are.

A transaction has ten seconds. All that goes into it is ready before it begins; what it needs then is answers of the
brokers. But they are read in the one loop of the worker, which also decodes, decides and encodes for other partitions:
with a twentieth of a core, transactions of 7 kB took longer than that, again and again (docs/adr/0003). So work in long
pieces takes turns with the transactions that are open: `Turns`. And what does not get through in time is tried in
smaller parts: `BurstSize`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

TRANSACTION_TIMEOUT_MS = 10_000  # a dead owner's open transaction blocks readers at most this long plus the sweep
BESIDE_SECONDS = 2.0  # of work beside a transaction, while it is open; a share of its time-out
PIECE_SECONDS = 0.5  # after which a piece of work that can be cut ends; heartbeats wait for it as well
LONG_SECONDS = 0.01  # a piece of work after which sockets get their turn first
LOOKS = 3  # at the sockets, between two long pieces: an answer takes more than one
LEAD_SHARE = 1 / 3  # of an interval, at most, that a transaction begins before its end
SHORT_SHARE = 1 / 6  # of an interval: a transaction that usually takes longer is not a short one
LEAD_USUAL, LEAD_KEPT = 0.1, 0.95  # what one transaction counts in the mean; what each leaves of the slowest before it
LEAST_BYTES = 64 << 10  # what may always go into a transaction
AHEAD_OF_SLOWEST = 4  # decision_waits that a raw partition may run ahead of the slowest one: sample remembers as many
LONGEST_SILENCE = 10.0  # seconds that a raw partition without news may hold the sample clock: autoscalers act on 30
GROWTH = 4  # a quarter more is tried after a transaction that was full and quick


class Turns:
    """Who keeps the loop of a worker busy while transactions are open: one piece of work at a time.

    The oldest open transaction lets work go on beside it for `beside` seconds altogether, then work waits for its end.
    So each gets through if the brokers answer, and work never waits longer than one takes.
    """

    def __init__(self, beside: float = BESIDE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._beside, self._clock = beside, clock
        self._worked = 0.0  # seconds, of all work
        self._open: dict[object, float] = {}  # what `_worked` was when each began, the oldest first
        self._ended = asyncio.Event()
        self._working, self._was_long = asyncio.Lock(), False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction is open while the block runs."""
        key = object()
        self._open[key] = self._worked
        try:
            yield
        finally:
            del self._open[key]
            self._ended.set()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[Callable[[], bool]]:
        """Wait for a turn, then work while the block runs, which awaits nothing. Not from within a transaction.

        Yields what tells whether the piece has become so long that it should be cut.
        """
        async with self._working:
            for _ in range(LOOKS if self._was_long else 0):
                await asyncio.sleep(0)  # not at the end: whoever has worked must not be cancelled with it in hand
            while self._open and self._worked - next(iter(self._open.values())) >= self._beside:
                self._ended.clear()
                await self._ended.wait()
            began = self._clock()
            try:
                yield lambda: self._clock() - began >= PIECE_SECONDS
            finally:
                took = self._clock() - began
                self._worked += took
                self._was_long = took >= LONG_SECONDS


class Lead:
    """How long before the end of an interval a transaction begins, so that what it writes can be read at its end.

    As long as the slowest of the last ones took, `LEAD_SHARE` of the interval at most. None unless they are usually
    much shorter than the interval: where the machine or the brokers are busy, more of them would only make each slower.
    """

    def __init__(self, interval: float) -> None:
        """`interval` in seconds."""
        self._interval = interval
        self._usual = self._slowest = 0.0

    def took(self, seconds: float) -> None:
        """A transaction took so long."""
        self._usual += LEAD_USUAL * (seconds - self._usual)
        self._slowest = max(seconds, LEAD_KEPT * self._slowest)

    @property
    def has_room(self) -> bool:
        """Whether there is time for more transactions than one in an interval."""
        return self._usual <= SHORT_SHARE * self._interval

    @property
    def seconds(self) -> float:
        """Of the next one."""
        return min(self._slowest, LEAD_SHARE * self._interval) if self.has_room else 0.0


class BurstSize:
    """How many bytes the next transaction of one transactional id may hold, `most` at most, whoever's epoch it is.

    Half as many after one that failed or took half of its time-out; more again, bit by bit, while they are used up and
    quick. Whatever the brokers take in ten seconds, this comes down to it: the same is never tried for ever.
    """

    def __init__(self, most: int) -> None:
        self._most, self.bytes = most, most

    def failed(self) -> None:
        """A transaction failed: it may have been too large."""
        self.bytes = max(min(LEAST_BYTES, self._most), self.bytes // 2)

    def took(self, seconds: float, full: bool) -> None:
        """One was committed; `full`: more would have gone into it."""
        share = seconds * 1000 / TRANSACTION_TIMEOUT_MS
        if share > 1 / 2:
            self.failed()
        elif full and share < 1 / 4:
            self.bytes = min(self._most, self.bytes + self.bytes // GROWTH + 1)
