"""SIGKILL in the middle of a batch, in every role: nothing is lost, split, or counted twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from aiokafka import TopicPartition

from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import ALL_ROLES, DECISION_WAIT, RAW_PARTITIONS, Destinations, Pipeline, running
from tests.end_to_end.traffic import Batches, Feed, Message, Shop, encode, producer, send
from tests.end_to_end.truth import Span
from tests.end_to_end.victims import Killed, Victim
from tests.services import Kafka, eventually

RATE = 40.0  # requests per second
TAKEN_OVER_SECONDS = 40.0


async def test_every_role_is_killed_with_a_batch_in_hand(
    kafka: Kafka, destinations: Destinations, tmp_path: Path
) -> None:
    async with running(Pipeline(kafka, tmp_path, "kills", destinations=destinations)) as pipeline:
        topics = pipeline.topics
        reads = {
            "ingest": [pipeline.spans_topic, pipeline.logs_topic],
            "sample": [topics.spans, topics.logs],
            "aggregate": [topics.points],
            "sink.jaeger": [topics.kept_spans],
            "sink.elasticsearch": [topics.kept_logs, topics.untraced_logs],
            "sink.prometheus": [topics.samples],
        }
        workers = await asyncio.gather(*map(pipeline.start, [*reads, "ingest"]))
        await eventually(lambda: ingest_is_shared(pipeline), TAKEN_OVER_SECONDS, "ingest is shared")
        # These two hold transactions open often enough to be caught in one.
        writes = {"ingest": [topics.spans, topics.logs], "sample": [topics.kept_spans, topics.decisions]}
        ingest, *rest = [
            await Victim(pipeline, worker, role, of_role, writes.get(role, [])).watch()
            for worker, (role, of_role) in zip(workers, reads.items(), strict=False)
        ]
        batches = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(3))
        feed = Feed(kafka.bootstrap, batches, Shop(3), RATE)
        feed.start()
        await eventually(lambda: works(pipeline), TAKEN_OVER_SECONDS, "every role has committed something")

        killed = await ingest.kill()
        unowned = asyncio.create_task(time_unowned(pipeline, killed))
        restarted = []
        for victim in rest:
            gone = await victim.kill()
            assert feed.flows
            restarted.append(asyncio.create_task(pipeline.start(gone.role)))
        others_moved, seconds = await unowned
        assert seconds > DECISION_WAIT
        assert others_moved > 0
        await asyncio.gather(*restarted, pipeline.start(killed.role))
        made = sum(feed.truth.made.values())
        await eventually(lambda: more(feed, made), TAKEN_OVER_SECONDS, "input goes on")
        sent = await feed.finish()

        await pipeline.settled()
        # Jaeger keeps both copies of a request whose answer the dead sink did not live to see.
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent), spans_twice=True)
        assert not await pipeline.records([topics.dlq])


async def ingest_is_shared(pipeline: Pipeline) -> bool:
    """Whether both workers with this role have partitions of their own."""
    owned = [worker.assigned("ingest") for worker in pipeline.workers if worker.roles == ("ingest",)]
    return await pipeline.members("ingest") == len(owned) and all(owned) and not set.intersection(*owned)


async def works(pipeline: Pipeline) -> bool:
    """Whether every role runs: none is killed before the first input."""
    return all([await pipeline.committed(role) for role in ALL_ROLES])


async def more(feed: Feed, before: int) -> bool:
    """Whether something was sent since."""
    return sum(feed.truth.made.values()) > before


async def time_unowned(pipeline: Pipeline, killed: Killed) -> tuple[int, float]:
    """Until somebody commits the dead worker's partitions: records others committed, and seconds it took."""
    before = await pipeline.committed(killed.role)
    moved = 0

    async def taken_over() -> bool:
        nonlocal moved
        now = await pipeline.committed(killed.role)
        if any(now[p] > before[p] for p in killed.partitions):
            return True
        moved = sum(now[p] - before.get(p, 0) for p in now)
        return False

    await eventually(taken_over, TAKEN_OVER_SECONDS, "the dead worker's partitions move")
    return moved, time.monotonic() - killed.at


BACKLOG_SECONDS = 10 * DECISION_WAIT
FILLER = 400, 50, 1500  # traces, spans of each, bytes of each span


async def test_a_cold_start_on_an_uneven_backlog(kafka: Kafka, destinations: Destinations, tmp_path: Path) -> None:
    # Small transactions: the large raw partition needs many, the others one or two.
    small = {"kafka": {"commit_bytes": 256 << 10}}
    async with running(Pipeline(kafka, tmp_path, "backlog", small, destinations)) as pipeline:
        batches, shop = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(5)), Shop(5)
        end = time.time() - DECISION_WAIT
        begin = end - BACKLOG_SECONDS
        count = round(RATE * BACKLOG_SECONDS / 2)
        for i in range(count):
            at = begin + i * BACKLOG_SECONDS / count
            spans, logs = shop.request(at)
            batches.add(at, spans)
            batches.add(at, logs)
        sent = truth.Truth()
        backlog = sorted([*batches.due(end + 1), *filler(pipeline, begin)], key=lambda message: message.at)
        async with producer(kafka.bootstrap) as client:
            await send(client, backlog, sent)
        uneven = asyncio.create_task(drains_unevenly(pipeline, by_partition(backlog)))
        await asyncio.gather(*map(pipeline.start, ("ingest", "ingest,sample", "aggregate,sinks")))
        assert await uneven > 3 * DECISION_WAIT
        await pipeline.settled()
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent))


def filler(pipeline: Pipeline, begin: float) -> Iterator[Message]:
    """Traces that nobody keeps, all of them on the first raw partition: it takes many times as long to read."""
    rng = random.Random(6)
    traces, size, weight = FILLER
    for number in range(traces):
        at = begin + number * BACKLOG_SECONDS / traces
        start = int(at * 1e9)
        trace_id = f"{rng.getrandbits(64):016x}00{rng.getrandbits(32):014x}"  # below the share's threshold
        spans = [
            Span(
                trace_id, f"{i + 1:016x}", "", "filler", "sweep", start, start + 1, attributes={"padding": "x" * weight}
            )
            for i in range(size)
        ]
        yield Message(pipeline.spans_topic, 0, at, encode(spans), tuple(spans))


def by_partition(messages: Iterable[Message]) -> dict[TopicPartition, list[Message]]:
    """Messages by raw partition."""
    found: dict[TopicPartition, list[Message]] = {}
    for message in messages:
        found.setdefault(TopicPartition(message.topic, message.partition), []).append(message)
    return found


async def drains_unevenly(pipeline: Pipeline, backlog: dict[TopicPartition, list[Message]]) -> float:
    """How far, in seconds of raw timestamps, the large raw partition was behind one that was read to its end."""
    large = TopicPartition(pipeline.spans_topic, 0)

    async def seen() -> float:
        committed = await pipeline.committed("ingest")
        done = [p for p, messages in backlog.items() if committed.get(p, 0) >= len(messages)]
        behind = committed.get(large, 0)
        if not done or behind >= len(backlog[large]):
            return 0
        return max(backlog[p][-1].at for p in done) - backlog[large][behind].at

    return await eventually(seen, TAKEN_OVER_SECONDS, "a raw partition is drained while the large one is not")
