"""A second worker joins, both work, one leaves: nothing is lost, split or counted twice."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import RAW_PARTITIONS, Destinations, Pipeline, Worker, running
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.services import Kafka, eventually

RATE = 40.0  # requests per second, five spans each
LEAST_SHARE = 0.15
SPANS_BETWEEN = 2000
SESSION_TIMEOUT = 45.0
LEFT_SECONDS = 15.0  # a worker that said that it leaves is not waited for; one that did not is, for the session
SHARED_SECONDS = 40.0
SHARED_ROLES = ("ingest", "sample")


async def test_a_worker_joins_and_leaves(kafka: Kafka, destinations: Destinations, tmp_path: Path) -> None:
    settings = {"kafka": {"session_timeout": SESSION_TIMEOUT, "heartbeat_interval": 1.0}}
    async with running(Pipeline(kafka, tmp_path, "scaling", settings, destinations)) as pipeline:
        stays = await pipeline.start("all")
        batches = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(2))
        feed = Feed(kafka.bootstrap, batches, Shop(2), RATE)
        feed.start()
        leaves = await pipeline.start("all")
        await eventually(lambda: shared(pipeline), SHARED_SECONDS, "both workers have partitions of every role")

        before = {worker: await spans_handled(worker) for worker in (stays, leaves)}

        async def handled() -> dict[Worker, dict[str, float]] | None:
            now = {worker: await spans_handled(worker) for worker in before}
            between = {w: {role: now[w][role] - before[w][role] for role in SHARED_ROLES} for w in before}
            enough = all(sum(each[role] for each in between.values()) >= SPANS_BETWEEN for role in SHARED_ROLES)
            return between if enough else None

        between = await eventually(handled, SHARED_SECONDS, f"{SPANS_BETWEEN} spans handled by both together")
        assert between is not None
        assert await shared(pipeline), "the partitions moved meanwhile"
        for role in SHARED_ROLES:
            total = sum(each[role] for each in between.values())
            assert min(each[role] for each in between.values()) >= LEAST_SHARE * total, between

        assert feed.flows
        began = time.monotonic()
        await asyncio.to_thread(leaves.stop)
        assert leaves.wait() == 0
        await eventually(lambda: owns_all(pipeline, stays), LEFT_SECONDS, "the other worker has every partition")
        assert time.monotonic() - began < SESSION_TIMEOUT / 2, "the group waited for a session to expire"
        sent_before = sum(feed.truth.made.values())
        await eventually(lambda: more(feed, sent_before), LEFT_SECONDS, "input goes on")

        sent = await feed.finish()
        await pipeline.settled()
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent))


async def spans_handled(worker: Worker) -> dict[str, float]:
    """Spans by role, as the worker's page says."""
    return {
        role: await asyncio.to_thread(worker.metric, "tailrace_spans_read_total", role=role) for role in SHARED_ROLES
    }


async def shared(pipeline: Pipeline) -> bool:
    """Whether each of the two workers has partitions of its own in both roles."""
    for role in SHARED_ROLES:
        owned = [worker.assigned(role) for worker in pipeline.workers]
        if await pipeline.members(role) != 2 or not all(owned) or set.intersection(*owned):
            return False
    return all([await asyncio.to_thread(worker.is_ready) for worker in pipeline.workers])


async def owns_all(pipeline: Pipeline, worker: Worker) -> bool:
    """Whether the groups have this one member, and it holds everything."""
    alone = [await pipeline.members(role) == 1 for role in SHARED_ROLES]
    topics = [pipeline.spans_topic, pipeline.logs_topic, pipeline.topics.spans, pipeline.topics.logs]
    everything = set(await pipeline.partitions(topics))
    owned = set.union(*(worker.assigned(role) for role in SHARED_ROLES))
    return all(alone) and owned == everything and await asyncio.to_thread(worker.is_ready)


async def more(feed: Feed, before: int) -> bool:
    """Whether something was sent since."""
    return sum(feed.truth.made.values()) > before
