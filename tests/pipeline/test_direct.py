"""sample on keyed raw topics (`regroup: never`) on a real Kafka: no ingest, the same promises."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline import telemetry
from pipeline.config import Config
from pipeline.configuration.window_settings import settings
from pipeline.direct import AHEAD_OF_OTHER, RawPair, _asks_every
from pipeline.kafka.pace import LONGEST_SILENCE
from pipeline.roles import diagram, wait_for_servers
from pipeline.worker import running
from processors.keying import is_sampled
from processors.sampling.window import WAITS
from schemas.decision import Checkpoint, DecisionRecord
from schemas.errors import ConfigError
from schemas.ids import trace_key
from tests.pipeline.kafka import DEADLINE, committed, create
from tests.pipeline.keyed import Keyed
from tests.pipeline.stages import Stages, administration, busy, holds, more_kept, now, partition, refusal, trace_id
from tests.services import Kafka, eventually

HOUR = 3_600_000


@pytest.fixture
async def keyed(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Keyed]:
    found = await Keyed(kafka.bootstrap, tmp_path).create()
    yield found
    found.stop()


async def test_a_silent_partition_decides_and_every_output_is_the_diagrams(
    keyed: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    """One trace, logs and poison; no further traffic: the clock is the partition's own, at its end the broker's."""
    labels = {"stage": "sample", "reason": "malformed"}
    before = telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) or 0
    async with keyed.producer() as producer, running(keyed.config, ["sample"]) as worker:
        await holds(worker, "sample")
        gc.collect()
        assert "Unclosed" not in caplog.text
        await keyed.produce(producer, "a/1!", "a/2!", "b/1")
        await producer.send_and_wait(keyed.raw, b"\xff", partition=1, key=b"bad")
        await producer.send_and_wait(keyed.raw, None, partition=0, key=b"null")
        for name in ("a/1!", ""):
            await keyed.log(producer, name, "said")
        await keyed.settled()

        async def everything() -> bool:
            wanted = {keyed.topics.kept_logs: 1, keyed.topics.untraced_logs: 1, keyed.topics.dlq: 2}
            return all([len(await keyed.records(topic)) >= count for topic, count in wanted.items()])

        await eventually(everything, DEADLINE, "the log, the untraced one and the poison leave at the tail")
    letters = [
        {k: v.decode() for k, v in r.headers} | {"value": r.value} for r in await keyed.records(keyed.topics.dlq)
    ]
    assert sorted((v["topic"], v["partition"], v["stage"], v["reason"], v["value"]) for v in letters) == [
        (keyed.raw, "0", "sample", "empty_message", b""),
        (keyed.raw, "1", "sample", "malformed", b"\xff"),
    ]
    assert telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) == before + 1
    async with administration(keyed.bootstrap) as admin:
        known = [t["topic"] for t in await admin.describe_topics(None)]
    written = {t for t in known if t.startswith(keyed.topics.prefix) and await keyed.records(t)}
    (sample,) = [role for role in diagram(keyed.config) if role.name == "sample"]
    assert written == set(sample.writes)
    ((_, envelope),) = await keyed.envelopes(keyed.topics.kept_logs)
    (verdict,) = envelope.verdicts
    assert verdict is not None
    assert (verdict.policy, verdict.span and verdict.span.name) == ("errors", "a/1!")
    for _, kept in await keyed.envelopes(keyed.topics.kept_spans):
        assert (kept.topic, kept.partition) == (keyed.raw, keyed.placed("a"))
        assert list(kept.item) == [i for i, _ in enumerate(kept.item)]
        assert all(now() - HOUR < timestamp <= now() for _, timestamp in kept.messages)


async def test_killed_workers_lose_and_double_nothing(keyed: Keyed) -> None:
    """SIGKILL, again and again, while the others take over; poison comes to the dead-letter queue once."""
    workers = [keyed.start("sample"), keyed.start("sample")]
    async with busy(keyed):
        await eventually(lambda: keyed.has_members("sample", 2), DEADLINE, "both sample")
        for _ in range(2):
            await more_kept(keyed)
            async with keyed.producer() as producer:
                await producer.send_and_wait(keyed.raw, b"\xff", partition=0)
            workers.append(keyed.start("sample"))
            workers.pop(0).kill()
            await more_kept(keyed)
    await keyed.settled()

    async def buried() -> bool:
        return len(await keyed.records(keyed.topics.dlq)) >= 2

    await eventually(buried, DEADLINE, "the poison is dead-lettered")
    assert len(await keyed.records(keyed.topics.dlq)) == 2
    workers[0].send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(workers[0].wait, DEADLINE) == 0


async def test_taking_over_while_the_predecessors_transaction_is_open(keyed: Keyed) -> None:
    """It is ended first: its outputs, offsets and verdicts never were."""
    group, place = keyed.topics.group("sample"), partition(keyed.raw, keyed.placed("a"))
    async with keyed.producer() as producer:
        async with running(keyed.config, ["sample"]):
            await keyed.produce(producer, "a/1!")
            await keyed.settled()
        offset = await committed(keyed.bootstrap, group, place)
        async with keyed.producer(keyed.topics.transactional_id("sample", place.partition)) as pending:
            await pending.begin_transaction()
            point = Checkpoint({keyed.raw: 900, f"{keyed.raw}.logs": 900}, full=True)
            record = DecisionRecord(2, checkpoint=point)
            await pending.send_and_wait(keyed.topics.decisions, record.encode(), partition=place.partition)
            await pending.send_offsets_to_transaction({place: (900, "0")}, group)
            await keyed.produce(producer, "a/2!", "c/1!")
            async with running(keyed.config, ["sample"]):
                await keyed.settled()
                with pytest.raises((KafkaError, AssertionError)):
                    await pending.commit_transaction()
    assert 0 < offset < await committed(keyed.bootstrap, group, place) < 900


async def test_a_backlog_without_a_cache_is_read_again_and_decided_alike(kafka: Kafka, tmp_path: Path) -> None:
    """The raw records are an hour old, spans and logs drain unevenly; the tail reads all of them a second time."""
    keyed = await Keyed(kafka.bootstrap, tmp_path).create()
    keyed.config.sampling.__dict__["cache_bytes"] = 0
    read = telemetry.REGISTRY.get_sample_value("tailrace_tail_reads_total", {"partition": "0"}) or 0
    async with keyed.producer() as producer:
        for number in range(60):
            at = now() - HOUR + number * 200
            await keyed.produce(producer, f"t{number}/1{'!' if number % 3 else ''}", at=at)
            await keyed.produce(producer, f"t{number}/2", at=at + 500)
        async with running(keyed.config, ["sample"]):
            await keyed.settled()
    assert (telemetry.REGISTRY.get_sample_value("tailrace_tail_reads_total", {"partition": "0"}) or 0) > read


@pytest.mark.parametrize(
    ("cached", "ahead", "passes", "full"),
    [
        (25, 2.1, True, True),
        (24, 2.1, True, False),  # too little to be worth a burst
        (25, 2.0, True, False),  # what the tail stands before may be undecided
        (25, None, True, True),  # the tail has passed nothing yet
        (25, 2.1, False, False),  # only the head can decide it
        (100, 2.1, True, True),
    ],
)
def test_the_head_reads_a_quarter_of_the_cache_ahead(
    cached: int, ahead: float | None, passes: bool, full: bool
) -> None:
    """It must not fill the cache, which is for a window that needs it."""
    pair, wait = RawPair.__new__(RawPair), 5_000
    tail = None if ahead is None else int(100_000 - ahead * wait)
    window = SimpleNamespace(
        now=100_000,
        tail_now=tail,
        held=SimpleNamespace(bytes=cached, limit=100),
        can_pass=lambda: passes,
        waits=lambda: (ahead or 0) <= WAITS,
        must_record=False,
    )
    vars(pair).update(_window=window, _wait=wait)
    assert pair.is_full() == full
    window.must_record = True
    assert pair.is_full(), "whatever there is room for"


def test_nobody_is_read_far_ahead_of_one_of_which_nothing_is_known_yet() -> None:
    """It stands behind an open transaction, say: nothing is decided before it, and what is read stays in memory."""
    pair, wait = RawPair.__new__(RawPair), 5_000
    names = [TopicPartition("raw", number) for number in range(3)]
    marks: dict[tuple[str, int], tuple[int, int]] = {}
    window = SimpleNamespace(now=None, marks=lambda: marks, must_record=False)
    pairs = {f"raw/{name.partition}": name for name in names}
    vars(pair).update(_window=window, _wait=wait, _ahead=1, _pair=pairs, _began=None)
    assert not pair.held()
    marks |= {("raw", 0): (100_000, 0)}
    assert not pair.held()
    marks |= {("raw", 0): (100_000 + AHEAD_OF_OTHER * wait + 1, 0), ("raw", 1): (110_000, 0)}
    assert list(pair.held()) == [names[0]]
    marks |= {("raw", 2): (115_000, 0)}
    assert not pair.held()


async def test_a_first_start_under_traffic_without_a_cache_does_not_wait_for_itself(keyed: Keyed) -> None:
    """Nothing at the tail is decided yet, so the head must not wait for it: nobody else would decide it."""
    keyed.config.sampling.__dict__["cache_bytes"] = 0
    async with busy(keyed):

        async def filled() -> bool:
            return len(keyed.produced) >= 200

        await eventually(filled, DEADLINE, "there is a backlog")
        async with running(keyed.config, ["sample"]):
            await more_kept(keyed)


async def test_a_trace_on_two_partitions_is_noticed(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    """One of those that are looked at; another one is not, and neither is one on its own partition."""
    names = (f"k{number}" for number in range(1 << 20))
    name = next(name for name in names if is_sampled(trace_key(trace_id(name))))
    before = telemetry.REGISTRY.get_sample_value("tailrace_traces_miskeyed_total") or 0
    async with keyed.producer() as producer, running(keyed.config, ["sample"]) as worker:
        await holds(worker, "sample")

        async def noticed() -> bool:
            for place in range(2):
                await Stages.produce(
                    keyed, producer, f"{name}/{place}", "fine/1" if place else "good/1", partition=place
                )
            return (telemetry.REGISTRY.get_sample_value("tailrace_traces_miskeyed_total") or 0) > before

        await eventually(noticed, DEADLINE, "the trace on two partitions is noticed")
    assert telemetry.REGISTRY.get_sample_value("tailrace_traces_miskeyed_total") == before + 1
    assert "partition_traces_by_id: true" in caplog.text
    assert "partition_logs_by_trace_id: true" in caplog.text


@pytest.mark.parametrize(("spans", "logs"), [(2, 3), (3, 3)])
async def test_other_partition_counts_are_refused(kafka: Kafka, tmp_path: Path, spans: int, logs: int) -> None:
    """Before the start by name; and by the worker, should the topic grow later."""
    keyed = Keyed(kafka.bootstrap, tmp_path)
    await create(kafka.bootstrap, {keyed.raw: spans, f"{keyed.raw}.logs": logs})
    await keyed.ensured(problems=True)
    said = r"has 3 partitions, the configuration says 2; with regroup: never all raw topics must have the same number"
    with pytest.raises(ConfigError, match=said):
        await asyncio.wait_for(wait_for_servers(keyed.config, ["sample"]), DEADLINE)
    async with running(keyed.config, ["sample"]) as worker:
        reason = await refusal(worker)
    assert (
        f"with regroup: never all raw topics must have kafka.partitions (2) partitions: {keyed.raw} has {spans}"
        in reason
    )


async def test_another_way_of_reading_is_refused(keyed: Keyed) -> None:
    """The verdicts and offsets of this prefix belong to the raw topics, not to tailrace.spans."""
    async with keyed.producer() as producer, running(keyed.config, ["sample"]):
        await keyed.produce(producer, "a/1!")
        await keyed.settled()
    keyed.config.__dict__["regroup"] = "always"
    await keyed.ensured()
    async with running(keyed.config, ["sample"]) as worker:
        reason = await refusal(worker)
    assert "`regroup` or the inputs were changed" in reason
    assert "another kafka.prefix" in reason
    assert Counter(await keyed.names(keyed.topics.kept_spans)) == Counter(["a/1!"])


def test_ends_are_asked_for_before_an_idle_partition_looks_like_a_backlog() -> None:
    """Head lag saw up to a tenth of a long decision_wait: autoscalers added workers for nothing."""
    sampling = {"late_horizon": "1h", "policies": [{"name": "all", "type": "always_sample"}]}
    config = {"kafka": {"bootstrap_servers": ["unused:9092"]}, "inputs": [{"topic": "raw", "signal": "traces"}]}
    for wait, seconds in (("30s", 3.0), ("15m", LONGEST_SILENCE)):
        found = Config.model_validate(config | {"sampling": sampling | {"decision_wait": wait}})
        assert _asks_every(settings(found, 1)) == seconds
