"""How far raw partitions are read ahead of the slowest of all, whichever worker of `ingest` reads that.

The clock of `sample` is the smallest mark of all raw partitions, and it remembers every trace between that and the
largest. So a raw partition that is far ahead is not read on until the slowest has come after it. The marks of this
worker's partitions are known; those of the others are in the metadata of their committed offsets, which are asked for
as often as they may matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from math import inf

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from pipeline.config import Config
from pipeline.kafka.consume import Group
from pipeline.kafka.pace import AHEAD_OF_SLOWEST, LONGEST_SILENCE
from pipeline.kafka.topics import Topics
from schemas.errors import Retryable
from schemas.raw_offset import RawOffset

log = logging.getLogger(__name__)

ASKS_PER_LIMIT = 4  # times that the others are asked for while a partition goes on by as much as it may be ahead
ASKED_EVERY = 0.5  # seconds between two questions at least
ANSWER_LIMIT = 5.0  # seconds that an answer may take
ANSWERS_PER_STALL = 4  # in which a raw partition has to be silent, at least, before it holds nobody


def is_later(one: OffsetAndMetadata, other: OffsetAndMetadata) -> bool:
    """Whether what was committed of one raw partition, by two groups, is later in `one`.

    Marks go on where no records come. An offset may have been set back, but places in the log of marks never go back.
    """
    places = [RawOffset.unpack(found.metadata).place for found in (one, other)]
    at, before = (inf if place is None else place for place in places)
    return (one.offset, at) > (other.offset, before) and (None in places or at >= before)


class RawPace:
    """The marks (ms) of raw partitions: of those that one group of this worker reads, and of all others.

    An own one that was read to its end holds nobody. Of the others that is not known: an idle one's mark is repeated
    rarely, so each of them counts as further on by that much.

    As for the sample clock, one for which nothing was committed during its stall limit holds nobody either. The time
    between two answers counts, a long one little: after an outage, or a pause of this worker, nobody seems silent.
    """

    def __init__(self, config: Config) -> None:
        self._topics = {item.topic: item for item in config.inputs if item.topic in config.traced}
        self._stall_limits = {topic: config.stall_limit(item) for topic, item in self._topics.items()}
        whole = Topics(config.kafka.prefix).group("ingest")
        self._groups = {whole: set(self._topics)}  # which may have committed an offset, and of which topics
        for topic, item in self._topics.items():
            self._groups.setdefault(f"{whole}.{item.signal}", set()).add(topic)
        slowest = max((config.commit_interval(item) for item in self._topics.values()), default=0.0)
        self._late = int((slowest + LONGEST_SILENCE) * 1000)
        self._limit = int(config.sampling.decision_wait * 1000) * AHEAD_OF_SLOWEST
        self._marks: dict[TopicPartition, int] = {}
        self._at_end: set[TopicPartition] = set()
        self._others: dict[TopicPartition, int] = {}  # those that hold, by the last answer
        self._heard: dict[TopicPartition, tuple[OffsetAndMetadata, float]] = {}  # and seconds since it was new
        self._answered: tuple[float, int] | None = None  # when, and the newest own mark then
        self._slowest: int | None = None
        self._settled = False  # whether `_slowest` is still the answer
        self._missed = False
        self._following: asyncio.Future[None] | None = None

    # ---- the own ones --------------------------------------------------------------------------------------

    def move(self, partition: TopicPartition, mark: int | None, at_end: bool) -> None:
        """It was read up to there."""
        if mark is not None:
            self._marks[partition] = mark
        (self._at_end.add if at_end else self._at_end.discard)(partition)
        self._settled = False

    def leave(self, partition: TopicPartition) -> None:
        """It is not read here, or nobody can read it on: until the next answer it is where it was."""
        if (mark := self._marks.pop(partition, None)) is not None:
            self._others[partition] = mark
        self._at_end.discard(partition)
        self._settled = False

    def ahead(self, partition: TopicPartition) -> bool:
        """Whether it has to wait for the slowest."""
        return self._too_far(self._marks.get(partition))

    def _too_far(self, mark: int | None) -> bool:
        if not self._settled:
            behind = [mark for other, mark in self._marks.items() if other not in self._at_end]
            behind += [mark + self._late for other, mark in self._others.items() if other not in self._marks]
            self._slowest, self._settled = min(behind, default=None), True
        return mark is not None and self._slowest is not None and mark - self._slowest > self._limit

    # ---- those of others -----------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether to ask for the others: own ones have got on since the last answer, or wait."""
        newest = max(self._marks.values(), default=None)
        if newest is None:
            return False
        if self._answered is None or self._too_far(newest):
            return True
        return abs(newest - self._answered[1]) * ASKS_PER_LIMIT > self._limit + self._late

    def others(self, counts: Mapping[str, int]) -> list[TopicPartition]:
        """The raw partitions that are not read here, of topics with so many partitions."""
        everywhere = (TopicPartition(t, number) for t in self._topics for number in range(counts.get(t, 0)))
        return [partition for partition in everywhere if partition not in self._marks]

    def hear(self, found: Mapping[TopicPartition, OffsetAndMetadata], now: float) -> None:
        """What is committed for them, at `now` (seconds)."""
        elapsed = 0.0 if self._answered is None else now - self._answered[0]
        self._answered, self._settled = (now, max(self._marks.values(), default=0)), False
        before, self._heard, self._others = self._heard, {}, {}
        for partition, offset in found.items():
            mark, limit = RawOffset.unpack(offset.metadata).mark, self._stall_limits[partition.topic]
            known, silent = before.get(partition, (None, 0.0))
            silent = silent + min(elapsed, limit / ANSWERS_PER_STALL) if known == offset else 0.0
            self._heard[partition] = offset, silent
            if mark is not None and silent <= limit:
                self._others[partition] = mark

    def miss(self) -> None:
        """There is no answer: nobody waits for what is not known."""
        self._others, self._answered, self._settled = {}, None, False

    def follow(self, owner: Group) -> None:
        """Ask from now on, as long as there are own marks."""
        if self._following is None or self._following.done():
            self._following = owner.add_future(self._follow(owner))

    async def _follow(self, owner: Group) -> None:
        while self._marks:
            await self.look(owner)
            await asyncio.sleep(ASKED_EVERY)

    async def look(self, owner: Group) -> None:
        """Ask for the others if it is time to. An error is not raised: it is said once, and nobody waits for them."""
        if not self.due():
            return
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                found = await self._ask(owner, self.others(owner.raw_topics()))
        except (TimeoutError, Retryable, KafkaError) as error:
            self.miss()
            if not self._missed:
                log.warning(
                    "the marks of other workers are not known, nobody waits for them",
                    extra={"group": owner.group_id, "error": repr(error)},
                )
            self._missed = True
        else:
            self.hear(found, time.monotonic())
            self._missed = False

    async def _ask(self, owner: Group, others: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the groups of all topics and of one signal have committed, whichever of the two is later."""
        asked = [
            owner.brokers.offsets(group, wanted)
            for group, topics in self._groups.items()
            if (wanted := [partition for partition in others if partition.topic in topics])
        ]
        found: dict[TopicPartition, OffsetAndMetadata] = {}
        for answer in await asyncio.gather(*asked):
            for partition, offset in answer.items():
                known = found.get(partition)
                if known is None or is_later(offset, known):
                    found[partition] = offset
        return found
