"""ingest on a real Kafka: where it begins, what it never reads, and the marks that it leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.structs import OffsetAndMetadata
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline import ingest
from pipeline.config import Config
from pipeline.ingest import MARKS_PER_WAIT, RawPartition
from pipeline.kafka.brokers import Brokers
from pipeline.kafka.consume import Group
from pipeline.kafka.pace import LONGEST_SILENCE
from pipeline.worker import running
from schemas.envelope import NO_MARK
from schemas.point import PointBatch
from schemas.raw_offset import RawOffset
from schemas.reasons import Reason
from tests.pipeline.kafka import DEADLINE, committed, create, dies_before_it_commits, expired, forget, fresh
from tests.pipeline.stages import (
    Stages,
    Unhurried,
    administration,
    holds,
    log_of,
    monotone,
    now,
    partition,
    refusal,
    traces,
)
from tests.services import Kafka, eventually

MINUTE, HOUR = 60_000, 3_600_000


async def regrouped(stages: Stages, *names: str) -> Counter[str]:
    """Span names behind ingest, once all of these are there."""

    async def there() -> bool:
        return set(names) <= set(await stages.names(stages.topics.spans))

    await eventually(there, DEADLINE, f"{names} are regrouped")
    return await stages.names(stages.topics.spans)


async def marked(stages: Stages, raw: int, least: int, output: int = 0) -> list[tuple[int, int]]:
    """Marks of a raw partition, once one of them has reached `least`."""

    async def reached() -> bool:
        return any(mark >= least for mark, _ in await stages.marks(stages.topics.spans, raw, output))

    await eventually(reached, DEADLINE, f"raw partition {raw} is marked up to {least}")
    return await stages.marks(stages.topics.spans, raw, output)


def gauge(name: str) -> bytes:
    """A message of one point."""
    data = MetricsData()
    metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    metric.gauge.data_points.add(time_unix_nano=now() * 1_000_000, as_int=1)
    return bytes(data.SerializeToString())


async def test_an_input_may_be_in_more_of_a_hurry_than_the_others(kafka: Kafka, tmp_path: Path) -> None:
    """`inputs[].commit_interval`: its logs are there while spans that came before them wait for theirs."""
    stages = Unhurried(kafka.bootstrap, tmp_path)
    stages.settings["inputs"][1]["commit_interval"] = "50ms"
    stages.config = Config.model_validate(stages.settings)
    await stages.create()

    async def there() -> bool:
        return bool(await stages.records(stages.topics.untraced_logs))

    spans = TopicPartition(stages.raw, 0)
    async with stages.producer() as producer, running(stages.config, ["ingest"]) as worker:
        (group,) = worker.services

        async def read() -> bool:
            lease = group.lease(spans)
            return lease is not None and lease.positions()[spans] == 1

        await stages.produce(producer, "t1/1")
        await eventually(read, DEADLINE, "the span is read")
        await producer.send_and_wait(f"{stages.raw}.logs", log_of("", "urgent"))
        await eventually(there, DEADLINE, "the log is there")
        assert not await stages.names(stages.topics.spans)
    assert await stages.names(stages.topics.spans) == Counter({"t1/1": 1})  # a worker that stops commits what it has


@pytest.mark.parametrize(
    ("since", "found"),
    [("earliest", {"old/1", "young/1", "new/1"}), ("15m", {"young/1", "new/1"}), ("latest", {"new/1"})],
)
async def test_a_new_group_begins_where_it_was_told(stages: Stages, since: str, found: set[str]) -> None:
    """Once: the next worker goes on from the group's offsets, whatever `--since` says."""
    async with stages.producer() as producer:
        await stages.produce(producer, "old/1", at=now() - 20 * MINUTE)
        await stages.produce(producer, "young/1", at=now() - 10 * MINUTE)
        async with running(stages.config, ["ingest"], since) as worker:
            await holds(worker, "ingest")
            await stages.produce(producer, "new/1")
            assert await regrouped(stages, "new/1") == Counter(found)
        async with running(stages.config, ["ingest"], "earliest"):
            await stages.produce(producer, "next/1")
            assert await regrouped(stages, "next/1") == Counter([*found, "next/1"])


async def test_no_offset_where_there_was_one_is_asked_again(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """M21: a coordinator of Kafka 4.1 that was killed may say so of all partitions while it loads."""
    asked = Counter[TopicPartition]()
    own_committed = Group.committed

    async def loading(
        self: Group, partitions: Collection[TopicPartition], group: str | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        asked.update(partitions)
        return {} if max(asked[p] for p in partitions) <= 6 else await own_committed(self, partitions, group)

    async with stages.producer() as producer:
        async with running(stages.config, ["ingest"]):
            await stages.produce(producer, "first/1")
            await regrouped(stages, "first/1")
        monkeypatch.setattr(Group, "committed", loading)
        monkeypatch.setattr(ingest, "DOUBT", 0.05)
        async with running(stages.config, ["ingest"]):
            await stages.produce(producer, "second/1")
            assert await regrouped(stages, "second/1") == Counter(["first/1", "second/1"])
    assert max(asked.values()) > 6


async def test_an_offset_of_some_time_ago_is_not_believed(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """M21, of a worker that never had the partition: the log says more. Who sets the group back is believed."""
    first, group, own = partition(stages.raw), stages.topics.group("ingest"), AIOKafkaAdminClient
    asked, list_offsets = 0, own.list_consumer_group_offsets

    async def known() -> OffsetAndMetadata | None:
        async with administration(stages.bootstrap) as admin:
            found: OffsetAndMetadata = (await list_offsets(admin, group, partitions=[first]))[first]
            return found if found.offset == 1 else None

    async with stages.producer() as producer:
        async with running(stages.config, ["ingest"]):
            await stages.produce(producer, "first/1")
            old = await eventually(known, DEADLINE, "its offset is committed")
            await stages.produce(producer, "second/1")
            await regrouped(stages, "second/1")

        async def loading(self: AIOKafkaAdminClient, *args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            found = await list_offsets(self, *args, **kwargs)
            asked += first in found
            return {**found, first: old} if first in found and asked <= 4 else found

        monkeypatch.setattr(own, "list_consumer_group_offsets", loading)
        async with running(stages.config, ["ingest"]):
            await stages.produce(producer, "third/1")
            assert await regrouped(stages, "third/1") == Counter(["first/1", "second/1", "third/1"])
        assert asked > 4
        async with AIOKafkaConsumer(
            bootstrap_servers=stages.bootstrap, group_id=group, enable_auto_commit=False
        ) as operator:
            operator.assign([first])
            await operator.commit({first: 1})
        async with running(stages.config, ["ingest"]):
            await stages.produce(producer, "fourth/1")
            assert (await regrouped(stages, "fourth/1"))["second/1"] == 2


async def test_all_partitions_of_a_new_group_begin_alike(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken over last sees offsets that the first ones have committed already: it was not added."""
    first, own_open = partition(stages.raw), RawPartition.open

    async def opened_late(self: RawPartition) -> Mapping[TopicPartition, int]:
        async def others_committed() -> bool:
            return await committed(stages.bootstrap, stages.topics.group("ingest"), first) >= 0

        if self._partition == partition(stages.raw, 1):
            await eventually(others_committed, DEADLINE, "the other one has an offset")
        return await own_open(self)

    monkeypatch.setattr(RawPartition, "open", opened_late)
    async with stages.producer() as producer:
        await stages.produce(producer, "old/1", partition=1)
        async with running(stages.config, ["ingest"], "latest") as worker:
            await holds(worker, "ingest")
            await stages.produce(producer, "new/1", partition=1)
            assert await regrouped(stages, "new/1") == Counter(["new/1"])


async def test_a_partition_that_was_added_is_read_from_its_beginning(stages: Stages) -> None:
    """Its first records may be older than the worker's knowledge of it; nothing says that they were not wanted."""
    async with stages.producer() as producer, administration(stages.bootstrap) as admin:
        async with running(stages.config, ["ingest"], "latest") as worker:
            await holds(worker, "ingest")
        for count in (3, 4):
            await admin.create_partitions({stages.raw: NewPartitions(count)})
            await stages.create_seen(stages.raw, count)
            await producer.client.force_metadata_update()
            await stages.produce(producer, f"first/{count}", partition=count - 1)
            async with running(stages.config, ["ingest"], "latest"):
                await regrouped(stages, f"first/{count}")


@pytest.mark.parametrize("transactions", [True, False])
async def test_metrics_that_come_first_between_two_owners_are_read(
    kafka: Kafka, tmp_path: Path, transactions: bool
) -> None:
    """Their idle partitions have no marks, which pin where the others begin: each takeover was a first start."""
    stages = await Stages(kafka.bootstrap, tmp_path, start="latest").create()
    raw = f"{stages.raw}.metrics"
    stages.settings["inputs"].append({"topic": raw, "signal": "metrics"})
    stages.settings["kafka"]["transactions"] = transactions
    stages.config = Config.model_validate(stages.settings)
    await create(stages.bootstrap, {raw: 2})
    places = [partition(raw, number) for number in range(2)]

    async def found() -> set[str]:
        return {PointBatch.decode(record.value).metric for record in await stages.records(stages.topics.points)}

    async with stages.producer() as producer:
        async with running(stages.config, ["ingest"]) as worker:
            (group,) = worker.services

            async def pinned() -> dict[TopicPartition, OffsetAndMetadata]:
                offsets: dict[TopicPartition, OffsetAndMetadata]
                offsets = await group.brokers.offsets(group.group_id, places)
                return {} if -1 in {offset.offset for offset in offsets.values()} else offsets

            offsets = await eventually(pinned, DEADLINE, "idle partitions have an offset")
            assert {(o.offset, RawOffset.unpack(o.metadata).known) for o in offsets.values()} == {(0, 2)}
        await producer.send_and_wait(raw, gauge("first_of_all"), partition=1)
        async with running(stages.config, ["ingest"]) as worker:
            await holds(worker, "ingest")
            await producer.send_and_wait(raw, gauge("second"), partition=1)

            async def second() -> bool:
                return "second" in await found()

            await eventually(second, DEADLINE, "what comes now is read")
    assert await found() == {"first_of_all", "second"}


async def test_an_aborted_transaction_of_a_raw_producer_is_never_read(stages: Stages) -> None:
    """F3. And markers at the end of a partition do not keep it from being read to its end."""
    async with stages.producer(fresh("raw")) as producer:
        for number in range(6):
            await producer.begin_transaction()
            await stages.produce(producer, f"{'bad' if number % 2 else 'good'}/{number}", at=now() - HOUR)
            await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
        async with running(stages.config, ["ingest"]):
            started = now()
            await marked(stages, raw=0, least=started)
            assert set(await stages.names(stages.topics.spans)) == {"good/0", "good/2", "good/4"}
    offset = await committed(stages.bootstrap, stages.topics.group("ingest"), partition(stages.raw))
    assert 9 <= offset <= 12, "the last committed record, or the end of the partition"


@pytest.mark.parametrize("signal", ["traces", "metrics"])
async def test_what_retention_took_is_counted_once_and_the_rest_is_read(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    """Of metrics too, whose raw partitions are not marked: what is lost goes with the next transaction, and counts."""
    stages = Stages(kafka.bootstrap, tmp_path)
    stages.settings["inputs"].append({"topic": f"{stages.raw}.metrics", "signal": "metrics"})
    stages.config = Config.model_validate(stages.settings)
    raw = partition(stages.raw if signal == "traces" else f"{stages.raw}.metrics")
    await create(kafka.bootstrap, {f"{stages.raw}.metrics": 1})
    await stages.create()

    async def produce(producer: AIOKafkaProducer, *names: str) -> None:
        for name in names:
            await producer.send_and_wait(raw.topic, traces(name) if signal == "traces" else gauge(name), partition=0)

    async def found() -> set[str]:
        if signal == "traces":
            return set(await stages.names(stages.topics.spans))
        return {PointBatch.decode(record.value).metric for record in await stages.records(stages.topics.points)}

    async def started(*names: str) -> float:
        """What a new owner says is gone; it goes once these are there."""
        before = expired(raw.topic)

        async def there() -> bool:
            return set(names) <= await found()

        async with running(stages.config, ["ingest"]) as worker:
            await holds(worker, "ingest")
            await eventually(there, DEADLINE, f"{names} are there")
        return expired(raw.topic) - before

    async with stages.producer() as plain, stages.producer(fresh("raw")) as transactional:
        await produce(plain, "a1")
        assert await started("a1") == 0
        await produce(plain, "a2", "a3", "a4", "a5")
        await forget(kafka.bootstrap, raw, before=3)
        with monkeypatch.context() as patched:
            dies_before_it_commits(patched, ingest.RawPartition)
            assert await started() == 0
        caplog.clear()  # it has said so all the same
        assert await started("a4", "a5") == 2
        assert await found() == {"a1", "a4", "a5"}
        (told,) = [r.__dict__ for r in caplog.records if r.name == "pipeline.kafka.expired"]
        assert [told[key] for key in ("levelname", "role", "topic", "partition", "records")] == [
            "ERROR", "ingest", raw.topic, 0, 2
        ]  # fmt: skip
        async with transactional.transaction():
            await produce(transactional, "b1")
        assert await started("b1") == 0
        await forget(kafka.bootstrap, raw)
        assert [await started() for _ in range(2)] == [0, 0], "only a marker was behind what was read"
        await produce(plain, "c1", "c2", "c3")
        await forget(kafka.bootstrap, raw)
        assert await started() > 0
        assert await started() == 0, "the topic is still empty"


async def test_what_retention_takes_while_a_partition_is_taken_over_is_counted_once(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log begins is asked once: up to there it is counted, and whoever finds it gone counts the rest."""
    raw, asked, answered = partition(stages.raw), Brokers.beginning, list[int]()

    async def beginning(brokers: Brokers, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        found = await asked(brokers, partitions)
        if raw in partitions:
            answered.append(found[raw])
            await forget(stages.bootstrap, raw, before=5)
        return found

    async def found(name: str) -> bool:
        return name in await stages.names(stages.topics.spans)

    async with stages.producer() as producer:
        await stages.produce(producer, "a/0")
        async with running(stages.config, ["ingest"]):
            await eventually(lambda: found("a/0"), DEADLINE, "the first is read")
        for number in range(1, 7):
            await stages.produce(producer, f"a/{number}")
        await forget(stages.bootstrap, raw, before=3)
        before = expired(raw.topic)
        with monkeypatch.context() as patched:
            patched.setattr(Brokers, "beginning", beginning)
            async with running(stages.config, ["ingest"]) as worker:
                assert "OffsetOutOfRangeError" in await refusal(worker)
        async with running(stages.config, ["ingest"]):
            await eventually(lambda: found("a/6"), DEADLINE, "what is left is read")
    assert answered[0] == 3
    assert expired(raw.topic) - before == 4


async def test_an_open_transaction_of_a_raw_producer_holds_the_mark(stages: Stages) -> None:
    """F11: position = last stable offset is not the end, older records may come."""
    async with stages.producer(fresh("raw")) as producer:
        await producer.begin_transaction()
        await stages.produce(producer, "slow/1", at=now() - HOUR)
        async with running(stages.config, ["ingest"]):
            await marked(stages, raw=1, least=now() + 500)
            assert await stages.marks(stages.topics.spans, 0) == []
            await producer.commit_transaction()
            assert monotone(await marked(stages, raw=0, least=now()))
            assert set(await stages.names(stages.topics.spans)) == {"slow/1"}


async def test_idle_raw_partitions_are_marked_with_the_brokers_time(stages: Stages) -> None:
    """F7, F11: to every output partition, in the long run a tenth of `decision_wait` apart."""
    async with running(stages.config, ["ingest"]):
        start = now()
        for raw in range(2):
            for output in range(2):
                assert monotone(await marked(stages, raw, start + 1_000, output))
        found = await stages.envelopes(stages.topics.spans)
        period = stages.config.sampling.decision_wait * 1000 / MARKS_PER_WAIT
        elapsed = found[-1][0].timestamp - found[0][0].timestamp
        assert len(found) <= 4 * (elapsed / period + 3)
        assert {tuple(e.raw_topics.items()) for _, e in found} == {((stages.raw, 2), (f"{stages.raw}.logs", 1))}
        assert {e.mark for _, e in found[:1]} == {NO_MARK}, "the broker's time is not known yet"


@pytest.mark.parametrize("signal", ["traces", "logs"])
@pytest.mark.parametrize("wait", ["5m", "15m"])
def test_an_idle_raw_partition_alone_is_no_backlog(signal: str, wait: str) -> None:
    """Head lag saw up to the longest time between two marks: autoscalers added workers for nothing."""
    config = Config.model_validate(
        {
            "kafka": {"bootstrap_servers": ["unused:9092"]},
            "inputs": [{"topic": "raw", "signal": "traces"}, {"topic": "raw.logs", "signal": "logs"}],
            "sampling": {
                "decision_wait": wait,
                "late_horizon": "1h",
                "ingest_stall_limit": "1h",
                "policies": [{"name": "all", "type": "always_sample"}],
            },
            "logs": {"max_skew": "1h"},
        }
    )
    (source,) = [item for item in config.inputs if item.signal == signal]
    assert ingest._silences(source, config) == (config.kafka.commit_interval, LONGEST_SILENCE)


async def test_one_that_falls_silent_is_marked_soon(stages: Stages) -> None:
    """Or the clock would wait for its next message, up to the longest time between two marks."""
    stages.settings["sampling"] |= {"decision_wait": "1h", "late_horizon": "2h"}
    stages.config = Config.model_validate(stages.settings)
    async with stages.producer() as producer, running(stages.config, ["ingest"]):
        await stages.produce(producer, "t1/1")
        await regrouped(stages, "t1/1")
        assert monotone(await marked(stages, raw=0, least=now()))


async def test_a_step_of_the_brokers_clock_is_followed_soon(stages: Stages) -> None:
    """As after a suspended machine: ten seconds with each mark, which are ten seconds apart where nothing comes."""
    stages.settings["sampling"] |= {"decision_wait": "1h", "late_horizon": "2h"}
    stages.config = Config.model_validate(stages.settings)
    async with running(stages.config, ["ingest"]) as worker:
        await holds(worker, "ingest")
        await marked(stages, raw=0, least=now())
        lease = worker.services[0]._leases[partition(stages.raw)]
        assert isinstance(lease, RawPartition)
        assert lease._clock._append is not None
        lease._clock._append -= 5 * MINUTE
        assert monotone(await marked(stages, raw=0, least=now()))


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_producers_clock_moves_no_mark_beyond_the_brokers_nor_holds_it_back(
    stages: Stages, offset: int
) -> None:
    """Second pass 6: an hour fast or slow, in a partition that is never idle."""
    async with stages.producer() as producer:
        for number in range(20):
            await stages.produce(producer, f"before/{number}", at=now() + offset)
        async with running(stages.config, ["ingest"]):
            start = now()

            async def busy() -> None:
                number = 0
                while True:
                    number += 1
                    await stages.produce(producer, f"b/{number}", at=now() + offset)
                    await asyncio.sleep(0.02)

            traffic = asyncio.create_task(busy())
            try:
                assert monotone(await marked(stages, raw=0, least=start + 1_000))
            finally:
                traffic.cancel()


class Impatient(Stages):
    """A raw partition that says nothing for two seconds is left out."""

    SECTIONS = {
        "sampling": {
            "decision_wait": "1s",
            "ingest_stall_limit": "2s",
            "policies": [{"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}],
        }
    }


async def test_a_partition_that_nobody_can_read_on_holds_no_decision_for_ever(kafka: Kafka, tmp_path: Path) -> None:
    """Behind a transaction that hangs, as without a leader: its old mark, written again and again, would."""
    stages = await Impatient(kafka.bootstrap, tmp_path).create()
    async with (
        stages.producer() as producer,
        stages.producer(fresh("hanging")) as hanging,
        running(stages.config, ["ingest", "sample"]),
    ):
        await stages.produce(producer, "a/1")
        await regrouped(stages, "a/1")
        await hanging.begin_transaction()
        await hanging.send_and_wait(stages.raw, traces("c/1"), partition=0)
        await stages.produce(producer, "b/1!", partition=1)

        async def kept() -> bool:
            return "b/1!" in await stages.names(stages.topics.kept_spans)

        await eventually(kept, DEADLINE, "b is decided")
        await hanging.commit_transaction()
        await regrouped(stages, "c/1")


async def test_the_mark_goes_on_from_the_committed_offset(stages: Stages) -> None:
    """A new owner must not begin below what its predecessor said."""
    group = stages.topics.group("ingest")
    async with running(stages.config, ["ingest"]) as worker:
        await holds(worker, "ingest")
        first = (await marked(stages, raw=0, least=1))[-1][0]
    async with stages.producer() as producer:
        await stages.produce(producer, "late/1", at=now() - HOUR)
        async with running(stages.config, ["ingest"]) as worker:
            (service,) = worker.services
            await holds(worker, "ingest")
            found: OffsetAndMetadata = (await service.committed([partition(stages.raw)]))[partition(stages.raw)]
            assert int(found.metadata.split("/")[0]) >= first
            await regrouped(stages, "late/1")
            marks = await stages.marks(stages.topics.spans, 0)
    assert monotone(marks)
    assert await committed(stages.bootstrap, group, partition(stages.raw)) == 1


async def test_a_log_that_ends_before_the_groups_offset_is_not_read_on_from_there(stages: Stages) -> None:
    """Cut, or made anew: what producers write up to the old offset would be skipped, and nothing would say so."""
    own = AIOKafkaConsumer(
        bootstrap_servers=stages.bootstrap, group_id=stages.topics.group("ingest"), enable_auto_commit=False
    )
    async with stages.producer() as producer:
        for number in range(3):
            await stages.produce(producer, f"t{number}/1")
        await own.start()
        try:
            own.assign([partition(stages.raw)])
            await own.commit({partition(stages.raw): 5})
        finally:
            await own.stop()
        async with running(stages.config, ["ingest"]) as worker:
            assert f"{stages.raw}/0 ends at 3, {stages.topics.group('ingest')} has read it up to 5" in await refusal(
                worker
            )


@pytest.mark.parametrize("since", ["earliest", "latest"])
async def test_a_raw_topic_that_was_made_anew_is_read_from_its_beginning(stages: Stages, since: str) -> None:
    """Its offsets went with it: that there are none any more is no coordinator that loads, nor a first start."""
    async with stages.producer() as producer, running(stages.config, ["ingest"], since) as worker:
        (group,) = worker.services
        await holds(worker, "ingest")
        await stages.produce(producer, "old/1")
        await regrouped(stages, "old/1")
        async with administration(stages.bootstrap) as admin:
            await admin.delete_topics([stages.raw])

            async def gone() -> bool:
                return partition(stages.raw) not in group.consumer.assignment()

            await eventually(gone, DEADLINE, "the group goes on without it")
            await admin.create_topics([NewTopic(stages.raw, 2, 1)])
        await stages.produce(producer, "first/1")

        async def back() -> bool:
            return partition(stages.raw) in group._leases

        await eventually(back, DEADLINE, "it is taken over again")
        await stages.produce(producer, "second/1")
        assert await regrouped(stages, "second/1") == Counter(["old/1", "first/1", "second/1"])


async def test_a_mark_from_the_future_goes_on(stages: Stages) -> None:
    """F11: the broker's clock was an hour ahead, then corrected, then the partition moved: time must not stand."""
    future = now() + HOUR
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stages.bootstrap, group_id=stages.topics.group("ingest"), enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([partition(stages.raw)])
    await consumer.commit({partition(stages.raw): (0, str(future))})
    await consumer.stop()
    async with running(stages.config, ["ingest"]):
        marks = await marked(stages, raw=0, least=future + 500)
    assert [mark for mark, _ in marks] == sorted(mark for mark, _ in marks)


async def test_poison_leaves_with_its_reason_and_the_rest_goes_on(stages: Stages) -> None:
    """F1, F27: what no topic takes must not come back for ever; coordinates and bytes are in the queue."""
    large = TracesData()
    part = large.resource_spans.add()
    part.resource.attributes.add(key="blob").value.bytes_value = bytes(range(256)) * 40_000  # 10 MB
    part.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    poison = {b"\xff\xff": Reason.MALFORMED, large.SerializeToString(): Reason.SPAN_TOO_LARGE}
    async with stages.producer() as small:
        small._max_request_size = 20 << 20
        await small.client.force_metadata_update()
        for value in poison:
            await small.send_and_wait(stages.raw, value, partition=1)
        await stages.produce(small, "good/1", partition=1)
        await small.send_and_wait(f"{stages.raw}.logs", log_of("", "alone"), partition=0)
        async with running(stages.config, ["ingest"]):
            await regrouped(stages, "good/1")
            letters = await stages.records(stages.topics.dlq)
            untraced = await eventually(
                lambda: stages.envelopes(stages.topics.untraced_logs), DEADLINE, "the untraced log goes on"
            )
    headers = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    assert [(h["topic"], h["partition"], h["offset"], h["index"], h["stage"], h["reason"]) for h in headers] == [
        (stages.raw, "1", str(offset), "0", "ingest", str(reason)) for offset, reason in enumerate(poison.values())
    ]
    assert letters[0].value == b"\xff\xff"
    assert TracesData.FromString(letters[1].value) == large
    assert [len(envelope) for _, envelope in untraced] == [1]


async def test_a_partition_of_nothing_but_dead_letters_holds_no_other(kafka: Kafka, tmp_path: Path) -> None:
    """It is read as far as any, though no row comes of it."""
    stages = Stages(kafka.bootstrap, tmp_path, commit_interval="100ms")
    stages.settings["sampling"]["decision_wait"] = "500ms"
    stages.config = Config.model_validate(stages.settings)
    await stages.create()
    async with stages.producer() as producer, running(stages.config, ["ingest"]):

        async def poison() -> None:
            while True:
                await producer.send_and_wait(stages.raw, b"\xff\xff", partition=1)
                await asyncio.sleep(0.01)

        await marked(stages, raw=1, least=1)
        poisoning = asyncio.create_task(poison())
        await stages.produce(producer, "good/1", partition=1)
        await regrouped(stages, "good/1")
        for number in range(12):
            await stages.produce(producer, f"other/{number}", partition=0)
            await asyncio.sleep(0.25)
        await regrouped(stages, *(f"other/{number}" for number in range(12)))
        assert not poisoning.done()
        poisoning.cancel()


@pytest.mark.parametrize(("before", "after"), [((), ()), (("traces",), ("logs",))])
async def test_another_n_than_the_one_in_force_writes_nothing(
    stages: Stages, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """F21: a worker that slept through a resize never asks the topics again; the offset of any raw partition tells."""
    async with stages.producer() as producer:
        await stages.produce(producer, "a/1")
        async with running(stages.config, ["ingest"], signals=before):
            await regrouped(stages, "a/1")
        await stages.produce(producer, "b/1")
    kafka = stages.config.kafka.model_copy(update={"partitions": 1})
    config = stages.config.model_copy(update={"kafka": kafka})
    async with running(config, ["ingest"], signals=after) as worker:
        assert "N = 2 partitions are in force, the configuration says kafka.partitions: 1" in await refusal(worker)
    assert "b/1" not in await stages.names(stages.topics.spans)
