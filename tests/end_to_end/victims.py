"""Killing a worker at the worst moment: while it holds records that it has read and not committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from aiokafka import TopicPartition

from tests.end_to_end.harness import Pipeline, Worker
from tests.services.waiting import POLL_SECONDS

IN_HAND_SECONDS = 20.0
ENDING_SECONDS = 0.5  # that brokers take to end a transaction whose end was asked for
STUCK_SECONDS = 1.0  # a transaction that stays open for this long while its worker is frozen is that worker's


@dataclass(frozen=True, slots=True)
class Killed:
    """A worker that was killed, what it owned, and how many records it had read that its group had not committed."""

    role: str
    partitions: frozenset[TopicPartition]
    in_hand: int
    committed: dict[TopicPartition, int]
    at: float


class Victim:
    """One role of one worker, from before it reads its first record; its partitions must stay its own.

    With `writes` it dies in the middle of a transaction: outputs are written to these topics, and not committed.
    """

    def __init__(
        self, pipeline: Pipeline, worker: Worker, role: str, topics: Collection[str], writes: Collection[str] = ()
    ) -> None:
        self._pipeline, self._worker, self._role, self._topics = pipeline, worker, role, topics
        self._writes = writes
        self._before: dict[TopicPartition, int] = {}
        self._takeovers = 0.0

    async def watch(self) -> Victim:
        """Note what the group had read before this worker: nothing it reads is committed yet."""
        self._before = await self._pipeline.read(self._role, self._topics)
        self._takeovers = await asyncio.to_thread(self._worker.metric, "tailrace_takeovers_total", role=self._role)
        return self

    async def kill(self) -> Killed:
        """Freeze it, and kill it if it holds something; else let it go on and try again.

        What it had read is asked while it runs, what is committed when it is frozen and once more when it is dead:
        so at the moment of the kill it held at least the difference.
        """
        async with self._pipeline.open_transactions(self._writes) as opened:
            return await self._kill(opened)

    async def _kill(self, opened: Callable[[], Awaitable[set[tuple[TopicPartition, int]]]]) -> Killed:
        deadline = time.monotonic() + IN_HAND_SECONDS
        while time.monotonic() < deadline:
            owned = frozenset(self._worker.assigned(self._role))
            read = await asyncio.to_thread(self._records_read)
            taken = await asyncio.to_thread(self._worker.metric, "tailrace_takeovers_total", role=self._role)
            assert taken == self._takeovers, f"{self._role} took over again: some records were counted as read twice"
            self._worker.pause()
            stuck = await self._stuck(opened)
            if (stuck or not self._writes) and await self._holds(read, owned):
                at = time.monotonic()
                self._worker.kill()
                in_hand = await self._in_hand(read, owned)
                assert in_hand > 0, f"{self._role} committed while it was frozen"
                assert stuck <= await opened(), "the transaction was not the dead worker's"
                committed = await self._pipeline.committed(self._role)
                return Killed(self._role, owned, in_hand, committed, at)
            self._worker.resume()
            await asyncio.sleep(POLL_SECONDS)
        raise TimeoutError(f"not within {IN_HAND_SECONDS} s: {self._role} holds something uncommitted")

    async def _stuck(
        self, opened: Callable[[], Awaitable[set[tuple[TopicPartition, int]]]]
    ) -> set[tuple[TopicPartition, int]]:
        """The frozen worker's open transactions: they stay, those of others end in milliseconds, rarely in tenths."""
        stuck = await opened()
        until = time.monotonic() + STUCK_SECONDS
        while stuck and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
            stuck &= await opened()
        return stuck

    def _records_read(self) -> int:
        return round(self._worker.metric("tailrace_records_read_total", role=self._role))

    async def _holds(self, read: int, owned: Collection[TopicPartition]) -> bool:
        """Whether more is read than committed, also once a commit that was asked for before the freeze has ended."""
        if await self._in_hand(read, owned) <= 0:
            return False
        await asyncio.sleep(0 if self._writes else ENDING_SECONDS)
        return await self._in_hand(read, owned) > 0

    async def _in_hand(self, read: int, owned: Collection[TopicPartition]) -> int:
        now = await self._pipeline.read(self._role, self._topics)
        return read - sum(now[p] - self._before.get(p, 0) for p in owned)
