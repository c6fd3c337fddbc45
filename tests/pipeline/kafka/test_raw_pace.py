"""Who waits for whom, by the marks of this worker and of all others; and that nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

from pipeline.config import Config
from pipeline.ingest import RawPartition
from pipeline.kafka import fetching
from pipeline.kafka.consume import Group
from pipeline.kafka.pace import AHEAD_OF_SLOWEST
from pipeline.kafka.raw_pace import ANSWERS_PER_STALL, ASKS_PER_LIMIT, RawPace, is_later
from pipeline.worker import running
from schemas.errors import Unavailable
from schemas.raw_offset import RawOffset
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import DEADLINE, committed, fresh
from tests.pipeline.stages import Stages, administration, now, partition, traces
from tests.services import Kafka, eventually

MINUTE, HOUR = 60_000, 3_600_000
STALL = 300.0
CONFIG = Config.model_validate(
    {
        **MINIMAL,
        "inputs": [
            {"topic": "raw", "signal": "traces"},
            {"topic": "raw.logs", "signal": "logs"},
            {"topic": "raw.metrics", "signal": "metrics"},
        ],
    }
)
COUNTS = {"raw": 3, "raw.logs": 1, "raw.metrics": 2, "removed": 4}
LIMIT = int(CONFIG.sampling.decision_wait * 1000) * AHEAD_OF_SLOWEST
OWN, OTHER, THIRD = (TopicPartition("raw", number) for number in range(3))
LOGS = TopicPartition("raw.logs", 0)
T = 1_700_000_000_000
NOTHING = OffsetAndMetadata(-1, "")


def said(mark: int | None, place: int = 7) -> OffsetAndMetadata:
    return OffsetAndMetadata(5, RawOffset(mark, 3, 4, place).pack())


def paced(**marks: int) -> RawPace:
    """One that reads OWN, up to `own`."""
    pace = RawPace(CONFIG)
    pace.move(OWN, marks["own"], at_end=False)
    return pace


@pytest.mark.parametrize(
    ("one", "other", "later"),
    [
        ((6, 8), (5, 7), True),
        ((5, 8), (5, 7), True),
        ((5, 7), (5, 7), False),
        ((6, 7), (5, 8), False),  # whoever has the smaller offset was set back since
        ((5, 8), (6, 7), False),
        ((6, None), (5, 7), True),
        ((5, None), (6, 7), False),
        ((6, 7), (-1, None), True),
    ],
)
def test_what_two_groups_have_committed_last(
    one: tuple[int, int | None], other: tuple[int, int | None], later: bool
) -> None:
    first, second = (OffsetAndMetadata(at, RawOffset(T, 3, 4, place).pack()) for at, place in (one, other))
    assert is_later(first, second) == later


def test_own_ones_wait_for_the_slowest_of_them_that_is_not_at_its_end() -> None:
    pace = paced(own=T + LIMIT + 1)
    assert not pace.ahead(OWN)
    pace.move(OTHER, T, at_end=False)
    assert (pace.ahead(OWN), pace.ahead(OTHER)) == (True, False)
    pace.move(OTHER, T, at_end=True)
    assert not pace.ahead(OWN)
    pace.move(OTHER, T + 1, at_end=False)
    assert not pace.ahead(OWN), "as far as the limit"
    pace.move(OWN, T + LIMIT + 2, at_end=False)
    assert pace.ahead(OWN)
    pace.move(OWN, T + HOUR, at_end=False)
    pace.leave(OTHER)
    assert pace.ahead(OWN), "somebody else goes on with it from there"
    pace.hear({}, 0.0)
    assert not pace.ahead(OWN)


@pytest.mark.parametrize("slow", [OTHER, LOGS])
def test_they_wait_for_one_that_another_worker_reads(slow: TopicPartition) -> None:
    pace = paced(own=T + HOUR)
    pace.hear({slow: said(T), THIRD: said(T + HOUR)}, 0.0)
    assert pace.ahead(OWN)
    pace.hear({slow: said(T + HOUR - LIMIT), THIRD: said(T + HOUR)}, 1.0)
    assert not pace.ahead(OWN)


def test_the_slowest_waits_for_nobody() -> None:
    pace = paced(own=T)
    pace.hear({OTHER: said(T + HOUR)}, 0.0)
    assert not pace.ahead(OWN)


def test_an_idle_one_whose_mark_is_repeated_rarely_is_not_behind() -> None:
    """However short `decision_wait` is: its mark is ten seconds old, and nobody knows that it is at its end."""
    sampling = CONFIG.sampling.model_copy(update={"decision_wait": 0.1})
    pace = RawPace(CONFIG.model_copy(update={"sampling": sampling}))
    pace.move(OWN, T, at_end=False)
    pace.hear({OTHER: said(T - 10_000)}, 0.0)
    assert not pace.ahead(OWN)


@pytest.mark.parametrize(
    "found",
    [
        NOTHING,
        OffsetAndMetadata(5, ""),
        said(None),
    ],
    ids=["no offset", "set by hand", "no mark yet"],
)
def test_one_that_says_nothing_holds_nobody(found: OffsetAndMetadata) -> None:
    pace = paced(own=T + HOUR)
    pace.hear({OTHER: found}, 0.0)
    assert not pace.ahead(OWN)


def test_one_of_which_nothing_is_committed_holds_for_its_stall_limit() -> None:
    """Then the sample clock has left it out as well. When it is back, it holds again."""
    pace = paced(own=T + HOUR)
    for second in range(int(STALL) + 1):
        pace.hear({OTHER: said(T)}, float(second))
        assert pace.ahead(OWN), second
    pace.hear({OTHER: said(T)}, STALL + 1)
    assert not pace.ahead(OWN)
    pace.hear({OTHER: said(T, place=8)}, STALL + 2)
    assert pace.ahead(OWN)


def test_one_that_waits_itself_still_holds() -> None:
    """Its mark stands, but is written again and again: the sample clock waits for it, too."""
    pace = paced(own=T + HOUR)
    for second in range(2 * int(STALL)):
        pace.hear({OTHER: said(T, place=second // 10)}, float(second))
        assert pace.ahead(OWN)


def test_logs_have_a_limit_of_their_own() -> None:
    pace, limit = paced(own=T + HOUR), int(CONFIG.logs.max_skew)
    for second in range(limit + 2):
        pace.hear({LOGS: said(T)}, float(second))
        assert pace.ahead(OWN) == (second <= limit)


def test_an_outage_makes_nobody_look_silent() -> None:
    """Nobody could commit: a long time between two answers counts as little as may be, and none after an error."""
    pace = paced(own=T + HOUR)
    pace.hear({OTHER: said(T)}, 0.0)
    for answer in range(1, ANSWERS_PER_STALL + 1):
        pace.hear({OTHER: said(T)}, answer * 10 * STALL)
        assert pace.ahead(OWN)
    pace.miss()
    assert not pace.ahead(OWN), "nobody waits for what is not known"
    pace.hear({OTHER: said(T)}, 1_000 * STALL)
    assert pace.ahead(OWN)
    pace.hear({OTHER: said(T)}, 1_000 * STALL + 1)
    assert not pace.ahead(OWN)


def test_only_raw_partitions_with_marks_that_are_not_read_here_are_asked_for() -> None:
    """Not metrics, nor what is no input any more."""
    pace = paced(own=T)
    assert pace.others(COUNTS) == [OTHER, THIRD, LOGS]
    pace.move(LOGS, T, at_end=True)
    assert pace.others({"raw": 1, "raw.logs": 1}) == []


def test_one_that_came_here_is_known_and_one_that_left_is_not_forgotten() -> None:
    pace = paced(own=T + HOUR)
    pace.hear({OTHER: said(T)}, 0.0)
    pace.move(OTHER, T + HOUR, at_end=False)
    assert not pace.ahead(OWN)
    pace.move(OTHER, T, at_end=True)
    assert not pace.ahead(OWN)
    pace.leave(OTHER)
    assert pace.ahead(OWN)


def test_the_slowest_is_looked_for_once_for_all_that_ask() -> None:
    """Each fetch asks for every partition: with 400 of them that took ten milliseconds."""
    asked = 0

    class Marks(dict[TopicPartition, int]):
        def items(self) -> Any:
            nonlocal asked
            asked += 1
            return super().items()

    pace = paced(own=T)
    pace._marks = Marks(pace._marks)
    for _ in range(400):
        assert not pace.ahead(OWN)
    assert asked == 1


def test_questions_come_with_progress_or_while_somebody_waits() -> None:
    """About once in a `decision_wait` where all is read as it comes; never where nothing is read."""
    pace = RawPace(CONFIG)
    assert not pace.due()
    pace.move(OWN, T, at_end=True)
    assert pace.due()
    pace.hear({OTHER: said(T)}, 0.0)
    assert not pace.due()
    pace.move(OWN, T + LIMIT // ASKS_PER_LIMIT, at_end=False)
    assert not pace.due()
    pace.move(OWN, T + LIMIT // 2, at_end=False)
    assert pace.due()
    pace.hear({OTHER: said(T + LIMIT // 2 - HOUR)}, 1.0)
    assert pace.ahead(OWN)
    assert pace.due()
    pace.hear({OTHER: said(T + LIMIT // 2)}, 2.0)
    assert not pace.due()
    pace.miss()
    assert pace.due()


class Answers:
    """What groups have committed, without brokers; or an error."""

    def __init__(self, found: Mapping[str, Mapping[TopicPartition, OffsetAndMetadata]]) -> None:
        self.group_id, self.brokers = "tailrace.ingest", self
        self.found, self.counts = found, COUNTS
        self.error: Exception | None = None

    def raw_topics(self) -> dict[str, int]:
        return self.counts

    async def offsets(self, group: str, wanted: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        if self.error is not None:
            raise self.error
        return {partition: self.found.get(group, {}).get(partition, NOTHING) for partition in wanted}


async def test_of_two_groups_the_later_offset_counts() -> None:
    """With and without --signals: what the one has that was stopped is old."""
    old, new = said(T, place=7), said(T + HOUR, place=8)
    for found, waits in (
        ({"tailrace.ingest": {OTHER: old}, "tailrace.ingest.traces": {OTHER: new}}, False),
        ({"tailrace.ingest": {OTHER: new}, "tailrace.ingest.traces": {OTHER: old}}, False),
        ({"tailrace.ingest": {OTHER: new}, "tailrace.ingest.logs": {LOGS: old}}, True),
    ):
        pace = paced(own=T + HOUR)
        await pace.look(cast("Group", Answers(found)))
        assert pace.ahead(OWN) == waits


async def test_without_an_answer_nobody_waits_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pace, answers = paced(own=T + HOUR), Answers({"tailrace.ingest": {OTHER: said(T)}})
    for error in (None, CoordinatorNotAvailableError(), Unavailable("it loads"), TimeoutError(), None):
        answers.error = error
        await pace.look(cast("Group", answers))
        assert pace.ahead(OWN) == (error is None)
    assert len([record for record in caplog.records if record.name == "pipeline.kafka.raw_pace"]) == 1


async def test_a_topic_that_is_gone_holds_nobody() -> None:
    """Although nobody is left who could be asked for."""
    pace, answers = paced(own=T + HOUR), Answers({"tailrace.ingest": {LOGS: said(T)}})
    await pace.look(cast("Group", answers))
    assert pace.ahead(OWN)
    answers.counts = {"raw": 1, "raw.logs": 0}
    await pace.look(cast("Group", answers))
    assert not pace.ahead(OWN)


# ---- on a real Kafka -----------------------------------------------------------------------------------------

BACKLOG, STEP = HOUR, 10_000  # of records that far apart (ms): as much as one of them moves a mark
SIZE = 8_000  # bytes of a record and of a fetch: some of them make a batch, and each fetch brings one batch


class Behind(Stages):
    """Raw partition 0 has an hour of records. Partition 1 has one of that time, and a transaction that stays open."""

    async def fill(self) -> int:
        """How many records partition 0 has."""
        times = range(now() - BACKLOG, now(), STEP)
        async with self.producer() as producer:
            await self.produce(producer, "slow/1", partition=1, at=times[0])
            sent = [
                await producer.send(self.raw, traces(f"t{at}/{'x' * SIZE}"), partition=0, timestamp_ms=at)
                for at in times
            ]
            await asyncio.gather(*sent)
        return len(times)

    async def spread(self) -> int:
        """The most (ms) that raw partition 0 was ever ahead of 1, by the marks in the log."""
        marks: dict[int, int] = {}
        found = 0
        for record, envelope in await self.envelopes(self.topics.spans):
            if record.partition == 0 and envelope.mark >= 0:
                marks[envelope.partition] = envelope.mark
                found = max(found, marks[0] - marks[1]) if len(marks) == 2 else found
        return found


async def test_a_backlog_drains_evenly_across_workers(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sample remembers every trace between the slowest mark and the others: hours of them would be gigabytes."""
    monkeypatch.setattr(fetching, "PARTITION_FETCH_BYTES", SIZE)
    stages = Behind(kafka.bootstrap, tmp_path)
    await stages.create()
    fast, slow, group = partition(stages.raw, 0), partition(stages.raw, 1), stages.topics.group("ingest")
    own_open = RawPartition.open

    async def slow_is_marked() -> bool:
        async with administration(stages.bootstrap) as admin:
            metadata = (await admin.list_consumer_group_offsets(group, partitions=[slow]))[slow].metadata
        return RawOffset.unpack(metadata).mark is not None and await stages.has_members("ingest", 2)

    async def opened_late(self: RawPartition) -> Mapping[TopicPartition, int]:
        if self._partition == fast:
            await eventually(slow_is_marked, DEADLINE, "the other worker reads the other partition")
        return await own_open(self)

    monkeypatch.setattr(RawPartition, "open", opened_late)
    count = await stages.fill()

    async def drained() -> bool:
        return await committed(stages.bootstrap, group, fast) == count

    async with (
        stages.producer(fresh("open")) as hanging,
        running(stages.config, ["ingest"]) as one,
        running(stages.config, ["ingest"]) as two,
    ):
        await hanging.begin_transaction()
        await hanging.send_and_wait(stages.raw, traces("slow/2"), partition=1)

        async def waits_or_drained() -> bool:
            held = [lease for w in (one, two) for s in w.services if (lease := s.lease(fast)) and lease.held()]
            return bool(held) or await drained()

        await eventually(waits_or_drained, DEADLINE, "the fast one waits")
        await hanging.commit_transaction()
        await eventually(drained, DEADLINE, "it goes on when the slow one has come after it")
    assert 0 < await stages.spread() < BACKLOG / 2
