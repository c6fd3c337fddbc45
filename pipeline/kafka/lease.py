"""What a role does with the partitions that its group was given: one lease for each unit that moves as a whole."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from math import inf

from aiokafka import ConsumerRecord, TopicPartition

from pipeline.kafka.alarm import Alarm


class Lease(ABC):
    """The ownership of some partitions for one epoch; without one (`fenced`) only the group says whose they are."""

    fenced = True

    @abstractmethod
    async def open(self) -> Mapping[TopicPartition, int]:
        """Take over: fence the predecessor, load state, and return where to read each partition from.

        Raises Retryable or KafkaError to be tried again, ProtocolError to stop the worker.
        """

    def opening(self) -> Hashable | None:
        """What changes as long as `open` gets on; None: it waits for something that may be away for long.

        What stands for `watchdog.timeout` stops the worker.
        """
        return "open"

    @abstractmethod
    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """What one fetch returned for a partition, in order, piece by piece if it is long. Never waits."""

    @abstractmethod
    def positions(self) -> Mapping[TopicPartition, int]:
        """Where reading goes on after a rebalance that gave the partitions back."""

    @abstractmethod
    async def work(self) -> None:
        """Run until cancelled: commit what is due. Any error ends the lease."""

    async def pause(self) -> None:  # noqa: B027  an epoch needs no such care
        """A rebalance begins, and somebody else may get the partitions: commit what can be, begin nothing new."""

    def resume(self, kept: bool) -> None:  # noqa: B027
        """The rebalance is over; without `kept` the partitions are somebody else's, and `close` will follow."""

    def progress(self) -> Hashable | None:
        """What changes as long as it gets on with what it has to do.

        None: it has nothing to do, or waits for something that may be away for long. What stands for
        `watchdog.timeout` stops the worker.
        """
        return None

    async def finish(self) -> None:  # noqa: B027  most leases have nothing more to do than what work() does
        """The worker stops: commit what can be committed now. Never waits for a window to pass."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; must not raise and must not commit."""

    def saturated(self) -> bool:
        """True while no more records should be fetched for this lease."""
        return False

    def due(self) -> float:
        """When it will commit what it has been given by then, by the monotonic clock; infinite if that is not known."""
        return inf

    def held(self) -> Collection[TopicPartition]:
        """Its partitions of which no more records should be fetched now."""
        return self.positions() if self.saturated() else ()


class Rounds(Lease):
    """One whose `work` goes round and round: `_rounds` are counted, `_alarm` says when the next one begins."""

    def __init__(self) -> None:
        self._rounds, self._alarm = 0, Alarm()
        self._turn = asyncio.Lock()  # finish() comes while work() may be in a transaction

    def progress(self) -> Hashable | None:
        """Rounds of `work`: each ends with the answer to a transaction, or soon; None while it waits for the next."""
        return None if self._alarm.waiting else self._rounds
