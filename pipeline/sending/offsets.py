"""The offsets of a sink, committed together: as soon as something is settled, but a few times a second at most.

What a worker that is killed has delivered since its last commit, its successor delivers again. A commit is an answer to
another question too: whether the group still counts this worker in. One that was stopped for longer than its session
wakes with a queue that its successor has delivered by then, so nothing is sent that long after the last commit; nor
while one is not answered, since a broker that is away may give the partition to another worker when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from math import inf

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetMetadataTooLargeError
from aiokafka.structs import OffsetAndMetadata

from pipeline.kafka import expired
from pipeline.kafka.consume import Group
from pipeline.sending.settled import MOST_CHARACTERS
from pipeline.sending.settlement import Account

COMMIT_EVERY = 0.25  # seconds at least between two commits, for all partitions of a sink
ANSWER_LIMIT = 1.0  # seconds that a commit may take before nothing more is sent
ASK_EVERY = 0.05  # seconds between two looks at whether it is answered

log = logging.getLogger(__name__)


class Offsets:
    """What a sink's group knows of the partitions that this worker has, beside what has become of them."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._accounts: dict[TopicPartition, Account] = {}
        self._committed: dict[TopicPartition, tuple[int, str]] = {}
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()
        self._next, self._heard = 0.0, -inf  # monotonic
        self._asked = inf  # since when no commit has succeeded
        self._most = MOST_CHARACTERS  # of the metadata of an offset, as far as the brokers took it

    def changed(self) -> None:
        """Something may have to be committed."""
        self._changed.set()

    def begin(self, partition: TopicPartition, account: Account, offset: int, metadata: str) -> None:
        """The group has this offset of a partition."""
        self._accounts[partition], self._committed[partition] = account, (offset, metadata)
        self._changed.set()

    def end(self, partition: TopicPartition, account: Account) -> None:
        """Somebody else may have it."""
        if self._accounts.get(partition) is account:
            del self._accounts[partition]

    async def commit_regularly(self) -> None:
        """Commit whatever is settled, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._next - time.monotonic())
            try:
                await self.commit()
            except KafkaError as error:
                # Nothing is lost but time: the position is committed next time, by us or by the next owner.
                log.warning("commit failed", extra={"role": self._group.role, "error": repr(error)})

    async def commit(self, unchanged: bool = False) -> None:
        """What has changed, now, or everything; one at a time. Raises KafkaError."""
        async with self._turn:
            self._changed.clear()
            assigned, began = self._group.consumer.assignment(), time.monotonic()
            mine = {p: a for p, a in self._accounts.items() if p in assigned and not a.closed}
            found = {p: (a.position, a.settled().pack(a.position, self._most)) for p, a in mine.items()}
            changed = {p: mark for p, mark in found.items() if unchanged or mark != self._committed[p]}
            if not changed:
                return
            self._next, self._asked = began + COMMIT_EVERY, min(self._asked, began)
            try:
                while True:
                    try:
                        await self._group.commit({p: OffsetAndMetadata(*mark) for p, mark in changed.items()})
                        break
                    except OffsetMetadataTooLargeError:  # offset.metadata.max.bytes is less than usual
                        if not (longest := max(len(metadata) for _, metadata in changed.values())):
                            raise
                    self._most = longest // 2
                    changed = {p: (at, mine[p].settled().pack(at, self._most)) for p, (at, _) in changed.items()}
            except BaseException:
                self._changed.set()
                raise
            self._committed |= changed
            self._heard, self._asked = began, inf
            for partition in changed:
                self._count_lost(partition, mine[partition])

    def _count_lost(self, partition: TopicPartition, account: Account) -> None:
        lost, account.lost = account.lost, 0
        expired.count(self._group.kafka.prefix, partition, lost)

    async def confirmed(self) -> bool:
        """Whether the group has counted this worker in within a session, and answers; if not, it is asked."""
        if self._counted_in:
            return True
        if not self._turn.locked():
            with contextlib.suppress(KafkaError):
                await self.commit(unchanged=True)
        await asyncio.sleep(0 if self._counted_in else ASK_EVERY)
        return False

    @property
    def _counted_in(self) -> bool:
        now = time.monotonic()
        return now - self._heard < self._group.kafka.session_timeout and now - self._asked < ANSWER_LIMIT
