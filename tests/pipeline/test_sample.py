"""sample on a real Kafka: taking over, what it refuses, the clock of a live pipeline, restarts and zombies."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError
from confluent_kafka.admin import AdminClient

from pipeline import sample, telemetry
from pipeline.config import Config
from pipeline.roles import diagram
from pipeline.worker import running
from processors.regroup import Regroup
from processors.sampling import window
from processors.sampling.stats import Stat
from schemas.decision import Checkpoint, DecisionRecord
from tests.pipeline.fed import Fed
from tests.pipeline.kafka import DEADLINE, committed, create, expired
from tests.pipeline.stages import (
    Stages,
    Unhurried,
    administration,
    busy,
    holds,
    log_of,
    monotone,
    more_kept,
    now,
    partition,
    refusal,
    traces,
)
from tests.services import Kafka, eventually

FED_EVERY = 0.2  # seconds
ALL = -1  # to delete records before


@pytest.fixture
async def fed(kafka: Kafka, tmp_path: Path) -> Fed:
    found = Fed(kafka, tmp_path)
    await found.create(raw=1)
    return found


async def reset(fed: Fed, offset: int) -> None:
    """What `kafka-consumer-groups --reset-offsets` does."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=fed.bootstrap, group_id=fed.topics.group("sample"), enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([partition(fed.topics.spans)])
    await consumer.commit({partition(fed.topics.spans): offset})
    await consumer.stop()


async def truncate(fed: Fed, topic: str) -> None:
    """What retention does, to all but the newest record."""
    records = await fed.records(topic)
    async with administration(fed.bootstrap) as admin:
        await admin.delete_records({partition(topic): RecordsToDelete(before_offset=records[-1].offset)})


@pytest.mark.parametrize(
    ("stat", "told"),
    [
        (("spans_counted", ""), 'spans_read_total{role="sample"}'),
        (("decided", "kept"), 'traces_decided_total{verdict="kept"}'),
        (("policy", "p"), 'policy_votes_total{policy="p"}'),
        (("drop_policy", "p"), 'policy_drops_total{policy="p"}'),
        (("matched", "p"), 'policy_matches_total{policy="p"}'),
        (("only", "p"), 'policy_only_total{policy="p"}'),
        (("shadow_turned", "p"), 'shadow_policy_changes_total{policy="p"}'),
        (("keys_shared", "p"), 'policy_keys_shared_total{policy="p"}'),
        (("policy_spans", "p"), 'policy_spans_total{policy="p"}'),
        (("policy_bytes", "p"), 'policy_bytes_total{policy="p"}'),
        (("spans_kept", ""), "spans_kept_total{}"),
        (("spans_dropped", "not_sampled"), 'dropped_total{intentional="true",reason="not_sampled",signal="spans"}'),
        (("logs_read", ""), 'logs_read_total{role="sample"}'),
        (("logs_kept", ""), "logs_kept_total{}"),
        (
            ("logs_dropped", "log_of_dropped_trace"),
            'dropped_total{intentional="true",reason="log_of_dropped_trace",signal="logs"}',
        ),
        (("restored", "logs"), 'restored_rows_total{signal="logs"}'),
        (("tail_reads", "3"), 'tail_reads_total{partition="3"}'),
    ],
)
def test_what_a_burst_did_is_counted_under_its_name(stat: tuple[Stat, str], told: str) -> None:
    def counters() -> Counter[str]:
        found: Counter[str] = Counter()
        for each in (each for family in telemetry.REGISTRY.collect() for each in family.samples):
            labels = ",".join(f'{label}="{value}"' for label, value in sorted(each.labels.items()))
            if each.name.startswith("tailrace_") and each.name.endswith("_total"):
                found[f"{each.name.removeprefix('tailrace_')}{{{labels}}}"] += int(each.value)
        return found

    before = counters()
    sample._count(Counter({stat: 7}))
    assert counters() - before == {told: 7}


def test_everything_that_a_burst_tells_is_counted() -> None:
    assert set(sample.COUNTERS) == set(get_args(Stat))


async def test_taking_over_while_the_predecessors_transaction_is_pending(every_kafka: Kafka, tmp_path: Path) -> None:
    """F8: it is ended first, then the offsets are asked for; its outputs, offsets and verdicts never were."""
    fed = Fed(every_kafka, tmp_path)
    await fed.create(raw=1)
    async with fed.producer() as producer:
        await fed.history(producer)
        offset = await committed(fed.bootstrap, fed.topics.group("sample"), partition(fed.topics.spans))
        async with fed.producer(fed.topics.transactional_id("sample", 0)) as pending:
            await pending.begin_transaction()
            ghost = Regroup(fed.raw, 0, "traces", "otlp_proto", 1, 1 << 20, 1 << 20)
            ghost.add(99, now(), traces("ghost/1!"))
            ((value,),) = ghost.flush(None, {}).envelopes.values()
            await pending.send_and_wait(fed.topics.kept_spans, value, partition=0)
            point = Checkpoint({fed.topics.spans: 900, fed.topics.logs: 900}, full=True)
            record = DecisionRecord(1, checkpoint=point)
            await pending.send_and_wait(fed.topics.decisions, record.encode(), partition=0)
            offsets = {partition(t): (900, "0") for t in (fed.topics.spans, fed.topics.logs)}
            await pending.send_offsets_to_transaction(offsets, fed.topics.group("sample"))
            await fed.feed(producer, 6_000, "c/1!")
            await fed.feed(producer, 8_000)
            async with running(fed.config, ["sample"]) as worker:
                await holds(worker, "sample")
                assert await fed.kept("c/1!") == Counter(["a/1!", "b/1!", "c/1!"])
                with pytest.raises((KafkaError, AssertionError)):
                    await pending.commit_transaction()
        await fed.settled()
    assert 0 < offset < await committed(fed.bootstrap, fed.topics.group("sample"), partition(fed.topics.spans)) < 900


@pytest.mark.parametrize(("spans", "logs"), [(2, 1), (1, 2)])
async def test_unequal_partition_counts_stop_the_role(kafka: Kafka, tmp_path: Path, spans: int, logs: int) -> None:
    """F19: partition 1 of one topic has no pair."""
    stages = Stages(kafka.bootstrap, tmp_path)
    await create(kafka.bootstrap, {stages.topics.spans: spans, stages.topics.logs: logs, stages.topics.decisions: 2})
    async with running(stages.config, ["sample"]) as worker:
        reason = await refusal(worker)
    assert "partition 1 came without its pair" in reason
    assert f"{stages.topics.spans} and {stages.topics.logs} must have the same number of partitions" in reason


async def test_another_n_stops_the_role(fed: Fed) -> None:
    """F21: rows were placed by another number of partitions."""
    async with fed.producer() as producer, running(fed.config, ["sample"]) as worker:
        await fed.feed(producer, 0, "a/1", n=2)
        assert "N = 2 partitions, the configuration 1" in await refusal(worker)


async def _truncate_decisions(fed: Fed) -> None:
    await truncate(fed, fed.topics.decisions)


async def _truncate_spans(fed: Fed) -> None:
    async with fed.producer() as producer:
        for time in (6_000, 7_000, 8_000):
            await fed.feed(producer, time, "c/1")
    await truncate(fed, fed.topics.spans)


async def _reset_back(fed: Fed) -> None:
    await reset(fed, 0)


async def _reset_ahead(fed: Fed) -> None:
    await reset(fed, 500)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_truncate_decisions, r"verdicts from 0 on are needed: its retention must outlive"),
        (_truncate_spans, r"retention overtook the tail"),
        (_reset_back, r"group offset 0 of .* offsets of this group must not be reset by hand"),
        (_reset_ahead, r"group offset 500 of .* offsets of this group must not be reset by hand"),
    ],
    ids=["decisions gone", "spans gone", "reset back", "reset ahead"],
)
async def test_a_changed_past_is_refused(fed: Fed, change: Callable[[Fed], Awaitable[None]], said: str) -> None:
    """F2, F6, F23: nothing is read, decided or committed; the reason says what to do."""
    async with fed.producer() as producer:
        await fed.history(producer)
    await change(fed)
    before = await fed.records(fed.topics.decisions)
    async with running(fed.config, ["sample"]) as worker:
        reason = await refusal(worker)
    assert re.search(said, reason), reason
    assert await fed.records(fed.topics.decisions) == before


@pytest.mark.parametrize("change", [_truncate_decisions, _truncate_spans], ids=["decisions", "spans"])
async def test_with_the_operators_consent_it_goes_on_after_what_is_gone(
    fed: Fed, change: Callable[[Fed], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """F6: what came after it is decided and forwarded, once. What may happen twice is said."""
    before = expired("spans")
    async with fed.producer() as producer:
        await fed.history(producer)
        await change(fed)
        async with running(fed.config, ["sample"], accept_loss=True):
            await fed.feed(producer, 9_000, "z/1!")
            await fed.feed(producer, 20_000)

            async def forwarded() -> bool:
                return "z/1!" in await fed.names(fed.topics.kept_spans)

            await eventually(forwarded, DEADLINE, "what came afterwards is forwarded")
    assert (await fed.names(fed.topics.kept_spans))["z/1!"] == 1
    assert (expired("spans") > before) == (change is _truncate_spans)
    assert ("are decided again" in caplog.text) == (change is _truncate_decisions)
    assert "counted again" not in caplog.text, "the checkpoint is there"


async def test_what_is_gone_is_counted_once_whoever_takes_over(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the first owner forwards nothing, and ends without a last transaction."""

    async def killed(_: sample.PartitionPair) -> None:
        """Nothing is finished."""

    monkeypatch.setattr(sample.PartitionPair, "finish", killed)
    async with fed.producer() as producer:
        await fed.history(producer)
    await _truncate_spans(fed)
    counted = [expired("spans")]
    for _ in range(2):
        async with running(fed.config, ["sample"], accept_loss=True) as worker:
            await holds(worker, "sample")
        counted.append(expired("spans"))
    assert counted[0] < counted[1] == counted[2]


async def test_what_is_gone_is_said_before_nobody_may_hear_of_it(
    fed: Fed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit may have taken effect although it raised: the next owner finds nothing that is gone."""
    checkpoint, failed = sample.PartitionPair._checkpoint, list[sample.PartitionPair]()

    async def unheard(pair: sample.PartitionPair) -> None:
        await checkpoint(pair)
        if not failed:
            failed.append(pair)
            raise TimeoutError

    monkeypatch.setattr(sample.PartitionPair, "_checkpoint", unheard)
    async with fed.producer() as producer:
        await fed.history(producer)
    await _truncate_spans(fed)
    async with running(fed.config, ["sample"], accept_loss=True) as worker:
        await holds(worker, "sample")
    assert failed
    assert "records are gone: retention took them before they were read" in caplog.messages


async def test_a_marker_that_retention_took_is_no_loss(fed: Fed) -> None:
    """ingest writes in transactions: behind the last record, where the tail stands, is a marker, which goes with it."""
    async with fed.producer(f"{fed.topics.prefix}.feeder") as producer, running(fed.config, ["sample"]):
        for time, names in ((0, ["a/1!"]), (2_000, [])):
            async with producer.transaction():
                await fed.feed(producer, time, *names)
        await fed.kept("a/1!")
    places = [partition(topic) for topic in (fed.topics.spans, fed.topics.logs)]
    async with administration(fed.bootstrap) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=ALL) for place in places})
    async with fed.producer() as producer, running(fed.config, ["sample"]) as worker:
        await holds(worker, "sample")
        await fed.feed(producer, 9_000, "z/1!")
        await fed.feed(producer, 20_000)
        await fed.kept("a/1!", "z/1!")


async def test_offsets_that_expired_come_back_from_the_checkpoint(fed: Fed) -> None:
    """F23."""
    async with fed.producer() as producer:
        await fed.history(producer)
        admin = AdminClient({"bootstrap.servers": fed.bootstrap})  # aiokafka cannot
        for deleted in admin.delete_consumer_groups([fed.topics.group("sample")]).values():
            await asyncio.wrap_future(deleted)
        assert await committed(fed.bootstrap, fed.topics.group("sample"), partition(fed.topics.spans)) == -1
        async with running(fed.config, ["sample"]):
            await fed.feed(producer, 6_000, "c/1!")
            await fed.feed(producer, 8_000)
            await fed.settled()


async def test_logs_whose_ingest_is_gone_hold_decisions_no_longer_than_said(kafka: Kafka, tmp_path: Path) -> None:
    """The topic's end is asked for: it is silent, not merely read more slowly. Counted once, whoever takes over."""
    fed = Fed(kafka, tmp_path)
    fed.config.__dict__["logs"] = fed.config.logs.model_copy(update={"max_skew": 1.0})
    await fed.create(raw=1)
    labels, time = {"topic": f"{fed.raw}.logs"}, 0

    def left_out() -> float | None:
        return telemetry.REGISTRY.get_sample_value("tailrace_inputs_left_out", {**labels, "partition": "0"})

    async def is_left_out(number: int) -> bool:
        return left_out() == number

    async with fed.producer() as producer:
        for name in ("a/1!", "b/1!"):

            async def decided() -> bool:
                nonlocal time
                time += 100
                await fed.feed(producer, time, logs=False)
                return name in await fed.names(fed.topics.kept_spans)  # noqa: B023

            async with running(fed.config, ["sample"]):
                await fed.feed(producer, time, name, logs=time == 0)
                await eventually(decided, DEADLINE, f"{name} is decided without logs")
                assert left_out() == 1
            assert telemetry.REGISTRY.get_sample_value("tailrace_decisions_without_input_total", labels) == 1
            assert left_out() == 0  # the next owner's to show
        async with running(fed.config, ["sample"]):
            await eventually(lambda: is_left_out(1), DEADLINE, "the next owner shows it")
            telemetry.gauge("tailrace_inputs_left_out", 0, **labels, partition="0")  # a lease before that closes late
            await fed.feed(producer, time, logs=False)
            await eventually(lambda: is_left_out(1), DEADLINE, "and does so again")
            await fed.feed(producer, time)
            await eventually(lambda: is_left_out(0), DEADLINE, "logs are read again")


async def test_without_a_cache_the_tail_reads_kafka_again(kafka: Kafka, tmp_path: Path) -> None:
    """F29."""
    fed = Fed(kafka, tmp_path)
    fed.config.sampling.__dict__["cache_bytes"] = 0
    await fed.create(raw=1)
    read = telemetry.REGISTRY.get_sample_value("tailrace_tail_reads_total", {"partition": "0"}) or 0
    async with fed.producer() as producer, running(fed.config, ["sample"]):
        for number in range(30):
            await fed.feed(producer, number * 100, f"t{number}/1{'!' if number % 3 else ''}", f"t{number}/2")
        await fed.feed(producer, 5_000)
        await fed.settled()
    assert (telemetry.REGISTRY.get_sample_value("tailrace_tail_reads_total", {"partition": "0"}) or 0) >= read + 30


async def test_the_cache_is_shared_by_the_partitions_that_are_there(kafka: Kafka, tmp_path: Path) -> None:
    """Also by those that stay while others come and go: together they are within `sampling.cache_bytes`."""
    fed = Fed(kafka, tmp_path)
    fed.config.kafka.__dict__["partitions"] = 2
    await fed.create(raw=1)
    whole = fed.config.sampling.cache_bytes

    def shares() -> list[float | None]:
        value = telemetry.REGISTRY.get_sample_value
        return [value("tailrace_window_limit_bytes", {"partition": name}) for name in "01"]

    async def share(of: int) -> None:
        await eventually(lambda: asyncio.sleep(0, shares() == [of, of]), DEADLINE, f"{of} bytes for each")

    async with running(fed.config, ["sample"]):
        await share(whole // 2)
        async with running(fed.config, ["sample"]):
            await share(whole)
        await share(whole // 2)


async def test_a_burst_that_has_to_come_first_comes(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is read while many verdicts wait for their record, and that does not hold up the record."""
    monkeypatch.setattr(window, "MOST_DECISIONS", 1)
    fed = Fed(kafka, tmp_path)
    await fed.create(raw=1)
    async with fed.producer() as producer, running(fed.config, ["sample"]):
        for number in range(30):
            await fed.feed(producer, number * 300, f"t{number}/1{'!' if number % 3 else ''}", f"t{number}/2")
        await fed.feed(producer, 15_000)
        await fed.settled()


async def test_the_clock_goes_on_while_nothing_comes_and_every_output_is_the_diagrams(stages: Stages) -> None:
    """F7, F11: one trace, one log and one piece of poison; no further traffic."""
    async with stages.producer() as producer, running(stages.config, ["ingest", "sample"]):
        await stages.produce(producer, "a/1!", "b/1")
        await producer.send_and_wait(stages.raw, b"\xff", partition=1)
        for name in ("a/1!", ""):
            await producer.send_and_wait(f"{stages.raw}.logs", log_of(name, "said"), partition=0)
        await stages.settled()

        async def log_kept() -> bool:
            return bool(await stages.records(stages.topics.kept_logs))

        await eventually(log_kept, DEADLINE, "the log of the kept trace goes on")
    async with administration(stages.bootstrap) as admin:
        known = [t["topic"] for t in await admin.describe_topics(None)]
    written = {t for t in known if t.startswith(stages.topics.prefix) and await stages.records(t)}
    assert written == {t for role in diagram(stages.config) if role.name in ("ingest", "sample") for t in role.writes}
    ((_, envelope),) = await stages.envelopes(stages.topics.kept_logs)
    (verdict,) = envelope.verdicts
    assert verdict is not None
    assert (verdict.policy, verdict.span and verdict.span.name) == ("errors", "a/1!")


async def test_sample_may_be_in_more_of_a_hurry_than_the_others(kafka: Kafka, tmp_path: Path) -> None:
    """`sampling.commit_interval`: verdicts are there long before the hour of `kafka.commit_interval` is over."""
    stages = Unhurried(kafka.bootstrap, tmp_path)
    for section in (*stages.settings["inputs"], stages.settings["sampling"]):
        section["commit_interval"] = "50ms"
    stages.config = Config.model_validate(stages.settings)
    await stages.create()
    async with stages.producer() as producer, running(stages.config, ["ingest", "sample"]):
        await stages.produce(producer, "a/1!", "b/1")
        await stages.settled()


async def test_a_round_of_marks_is_worth_a_burst(kafka: Kafka, tmp_path: Path) -> None:
    """Once every raw partition was marked again, half an interval after the last burst."""
    interval = 4.0
    fed = Fed(kafka, tmp_path, commit_interval=f"{interval}s")
    await fed.create(raw=1)
    async with fed.producer() as producer, running(fed.config, ["sample"]):
        for number in range(int(3 * interval / FED_EVERY)):
            await fed.feed(producer, number * 1_000, f"{number}/1!")
            await asyncio.sleep(FED_EVERY)
        bursts = [record.timestamp / 1000 for record in await fed.records(fed.topics.decisions)]
    gaps = [after - before for before, after in pairwise(bursts)]
    assert interval / 3 < min(gaps) < 3 / 4 * interval, gaps


async def test_a_restart_of_the_broker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """In the middle of transactions: every lease is lost and taken over again."""
    with Kafka() as kafka:
        stages = await Stages(kafka.bootstrap, tmp_path).create()
        async with running(stages.config, ["ingest", "sample"]) as worker:
            async with busy(stages):
                await more_kept(stages)
                await asyncio.to_thread(kafka.restart)
                await more_kept(stages)
            await stages.settled()
            assert all(service.crash_reason is None for service in worker.services)


async def test_a_zombie_is_fenced_and_goes_on_cleanly(stages: Stages) -> None:
    """I1: SIGSTOP for longer than the session, while the others go on; then it comes back, then it is alone."""
    first, second = stages.start("ingest,sample"), stages.start("ingest,sample")
    async with busy(stages):
        await eventually(lambda: stages.has_members("sample", 2), DEADLINE, "both sample")
        await more_kept(stages)
        first.send_signal(signal.SIGSTOP)
        await more_kept(stages)
        await eventually(lambda: stages.has_members("sample", 1), DEADLINE, "the zombie is out")
        await more_kept(stages)
        first.send_signal(signal.SIGCONT)
        await eventually(lambda: stages.has_members("sample", 2), DEADLINE, "the zombie is back")
        await more_kept(stages)
        second.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait, DEADLINE) == 0
        await more_kept(stages)
    await stages.settled()
    for raw in range(2):
        for output in range(2):
            assert monotone(await stages.marks(stages.topics.spans, raw, output)), "a zombie's mark would go back"
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, DEADLINE) == 0
