"""N changes under traffic, up and down: nothing is lost, split, decided twice or counted twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.configuration.config_file import load
from pipeline.roles import wait_for_servers
from schemas.errors import ConfigError
from schemas.ids import trace_key
from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import RAW_PARTITIONS, SESSION_TIMEOUT, Pipeline, Worker, running
from tests.end_to_end.observed import SOON_SECONDS, decided, policies
from tests.end_to_end.traffic import Batches, Feed, Message, Shop, encode, producer, send
from tests.end_to_end.truth import Log, Span, Trace
from tests.services import Kafka, eventually

RATE = 40.0  # requests per second, five spans each
DECIDED = 60  # traces, before a resize: some of each kind
LATE = 40  # traces of which more comes after a resize

# The command, killed when everything is written but not committed.
KILLED = """
import os, signal
from pipeline.cli import main
from pipeline.operating.resize import Resize
Resize._move_offsets = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


async def test_a_resize_under_traffic(kafka: Kafka, tmp_path: Path) -> None:
    async with running(Pipeline(kafka, tmp_path, "resize", {"kafka": {"partitions": 4}})) as pipeline:
        killed, stopped, _ = await asyncio.gather(*map(pipeline.start, ("ingest,sample", "ingest,sample", "aggregate")))
        batches = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(11))
        feed = Feed(kafka.bootstrap, batches, Shop(11), RATE)
        feed.start()
        first = await decided(pipeline, DECIDED, set())

        # Up. Workers that run are in the way; one ends as it should, one does not.
        code, said = await resized(pipeline, 6, "--dry-run")
        assert code == 0, said
        assert "N: 4 → 6" in said
        assert "to be stopped first" in said
        code, said = await resized(pipeline, 6)
        assert code == 1, said
        assert "stop them first" in said
        killed.kill()
        await asyncio.to_thread(stopped.stop)
        await eventually(lambda: gone(pipeline), SESSION_TIMEOUT + SOON_SECONDS, "no worker is in the groups")
        code, said = await pipeline.run(
            "topics", "resize", str(pipeline.file), "--partitions", "6", program=("-c", KILLED)
        )
        assert code == -signal.SIGKILL, said
        code, said = await resized(pipeline, 6)
        assert code == 0, said
        code, said = await resized(pipeline, 6)
        assert code == 0, said
        assert "in force already" in said
        with pytest.raises(ConfigError, match="N = 6 partitions are in force, the configuration says 4"):
            await wait_for_servers(load(str(pipeline.file), {}), ["ingest", "sample"])
        workers = await started(pipeline, 6)
        await more_of(feed, kafka, pipeline, first)
        second = await decided(pipeline, DECIDED, first)

        # Down: the partitions beyond N are still there, and nobody gets them.
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
        await eventually(lambda: gone(pipeline), SOON_SECONDS, "no worker is in the groups")
        code, said = await resized(pipeline, 3)
        assert code == 0, said
        workers = await started(pipeline, 3)
        assert sorted(p.partition for w in workers for p in w.assigned("sample")) == [0, 0, 1, 1, 2, 2]
        await more_of(feed, kafka, pipeline, first | second)
        await decided(pipeline, DECIDED, first | second)

        sent = await feed.finish()
        await pipeline.settled()
        truth.assert_true(sent, await holdings.of_topics(pipeline, sent))
        verdicts, kept = await policies(pipeline), sent.kept
        twice = {i for i in sent.traces if verdicts[trace_key(bytes.fromhex(i))] != {kept.get(i, "")}}
        assert not twice


async def resized(pipeline: Pipeline, partitions: int, *options: str) -> tuple[int, str]:
    """The command: its exit code, and what it said."""
    words = ["topics", "resize", str(pipeline.file), "--partitions", str(partitions), *options]
    result = await asyncio.to_thread(CliRunner().invoke, cli, words)
    return result.exit_code, result.output


async def started(pipeline: Pipeline, partitions: int) -> list[Worker]:
    """Two workers, configured with another N, that share it."""
    pipeline.settings["kafka"]["partitions"] = partitions
    pipeline.write()
    workers = list(await asyncio.gather(*map(pipeline.start, ("ingest,sample", "ingest,sample"))))

    async def shared() -> bool:
        return await pipeline.members("sample") == 2 and all(worker.assigned("sample") for worker in workers)

    await eventually(shared, SOON_SECONDS, "both workers sample")
    return workers


async def gone(pipeline: Pipeline) -> bool:
    """Whether the groups that a resize wants to itself have no members."""
    for role in ("ingest", "sample"):
        (answer,) = await pipeline.admin.describe_consumer_groups([pipeline.topics.group(role)])
        if answer.groups[0][2] != "Empty":
            return False
    return True


async def more_of(feed: Feed, kafka: Kafka, pipeline: Pipeline, keys: set[int]) -> None:
    """A late span and a late log of traces that are decided: they change nothing, and follow the verdict."""
    traces = {i: t for i, t in feed.truth.traces.items() if trace_key(bytes.fromhex(i)) in keys}
    kept = [i for i, trace in traces.items() if trace.expected(i)][: LATE // 2]
    dropped = [i for i, trace in traces.items() if not trace.expected(i)][: LATE // 2]
    assert kept
    assert dropped
    late = [fact for i in (*kept, *dropped) for fact in straggling(i, traces[i])]
    messages = [Message(topic_of(pipeline, fact), 0, time.time(), encode([fact]), (fact,)) for fact in late]
    async with producer(kafka.bootstrap) as client:
        await send(client, messages, feed.truth)


def straggling(trace_id: str, trace: Trace) -> list[Span | Log]:
    """One more span and one more log of a trace, of the least remarkable kind."""
    number = len(trace.spans)
    root = next(span for span in trace.spans.values() if not span.parent)
    uid = f"late-{trace_id}-{number}"
    return [
        Span(trace_id, f"{number:016x}", root.span_id, "payments", "late", root.start_ns, root.start_ns + 1),
        Log(uid, root.service, "INFO", "late", root.start_ns, trace_id, root.span_id),
    ]


def topic_of(pipeline: Pipeline, fact: Span | Log) -> str:
    """The raw topic of a fact."""
    return pipeline.spans_topic if isinstance(fact, Span) else pipeline.logs_topic
