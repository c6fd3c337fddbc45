"""A recorded topic read again from a checkpoint on, on a real Kafka: another owner decides as the first one did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import OffsetAndMetadata

from pipeline.worker import running
from processors.sampling.limits import UNITS
from schemas.decision import Checkpoint, DecisionRecord
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.operating.played import ERRORS, RATE, TRACES, Played
from tests.pipeline.stages import administration
from tests.services import Kafka, eventually

SOME = {"name": "some", "type": "probabilistic", "probabilistic": {"sampling_percentage": 70}}
SHARED = {
    "name": "shared",
    "type": "composite",
    "composite": {"max_total_spans_per_second": 6, "composite_sub_policy": [SOME]},
}
COST = 3 * 2 * UNITS  # of a trace of three spans, of two partitions


class Replayed(Played):
    """What the workers have read stays; their verdicts are taken back to the middle."""

    SECTIONS = {"sampling": {"decision_wait": "1s", "policies": [ERRORS, SHARED, RATE]}}

    async def produce(self, producer: AIOKafkaProducer, *names: str, partition: int = 0, at: int | None = None) -> None:
        """Under hexadecimal names: as bytes of an id `0` to `9` are below the threshold of 70 %, `a` to `f` above."""
        await super().produce(producer, *map(spread, names), partition=partition, at=at)

    async def take_back(self) -> tuple[Mapping[int, str], Sequence[Checkpoint]]:
        """Decisions and offsets as they were in the middle: verdicts until then, and the newest checkpoints.

        What goes on here is a group whose offsets nobody moved but to those of its checkpoint.
        """
        until = [r for r in await self.records(self.topics.decisions) if r.timestamp < self.middle]
        async with administration(self.bootstrap) as admin:
            await admin.delete_records(
                {partition: RecordsToDelete(before_offset=-1) for partition in self._of(self.topics.decisions)}
            )
        begins: dict[int, int] = {}
        async with self.producer() as producer:
            for record in until:
                sent = await producer.send_and_wait(record.topic, record.value, partition=record.partition)
                begins.setdefault(sent.partition, sent.offset)
        newest = {record.partition: DecisionRecord.decode(record.value).checkpoint for record in until}
        await self._go_to(
            {
                TopicPartition(topic, number): OffsetAndMetadata(tail, str(begins[number]))
                for number, checkpoint in newest.items()
                for topic, tail in checkpoint.tails.items()
            }
        )
        return verdicts(until), list(newest.values())

    async def _go_to(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.topics.group("sample"))
        consumer.assign(list(offsets))
        await consumer.start()
        await consumer.commit(dict(offsets))
        await consumer.stop()

    def _of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self.config.kafka.partitions)]


def spread(name: str) -> str:
    trace, _, span = name.partition("/")
    return f"{hashlib.sha256(trace.encode()).hexdigest()[:16]}/{span}"


def verdicts(records: Sequence[ConsumerRecord]) -> dict[int, str]:
    found: dict[int, str] = {}
    for decisions in (DecisionRecord.decode(record.value) for record in records):
        for key, verdict in zip(decisions.keys, decisions.verdicts, strict=True):
            assert key not in found
            found[key] = verdict.policy
    return found


async def test_another_owner_decides_a_recorded_topic_alike_from_a_checkpoint_on(kafka: Kafka, tmp_path: Path) -> None:
    """The same offsets, the limiters as they stood there: trace by trace the same verdicts, those of rates too."""
    stages = Replayed(kafka.bootstrap, tmp_path)
    await stages.create()
    await stages.play()
    recorded = await stages.recorded()
    before, checkpoints = await stages.take_back()
    assert len(before) >= TRACES
    for checkpoint in checkpoints:  # limiters that begin full, as new ones do, would keep one more trace at once
        assert set(checkpoint.limiters) == {"shared", "rate"}
        assert all(tokens < COST for buckets in checkpoint.limiters.values() for tokens, _ in buckets)
    async with running(stages.config, ["sample"]):
        await eventually(lambda: stages.decided(len(recorded)), DEADLINE, "all is decided again")
    again = verdicts(await stages.records(stages.topics.decisions))
    assert again == recorded
    assert {again[key] for key in again.keys() - before.keys()} == {"errors", "shared", "rate", ""}
