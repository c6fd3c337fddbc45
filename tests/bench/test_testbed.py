"""A load in a real Kafka, read back; control records are not records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from confluent_kafka import Producer

from bench.load import Load, messages
from bench.measure import Meter
from bench.testbed import COORDINATORS, Testbed
from bench.write import LoadFailed, write
from tests.services import Kafka, wait_for

RAW_PARTITIONS = 3


@pytest.fixture(scope="module")
def bed(kafka: Kafka) -> Iterator[Testbed]:
    found = Testbed(kafka, "testbed", RAW_PARTITIONS, {"kafka": {"partitions": 2}})
    yield found
    found.close()


def test_a_load_is_written_as_it_was_made(bed: Testbed) -> None:
    load = Load(3_000, int(time.time() * 1000), spans_per_message=20)
    expected = list(messages(load))
    before = bed.ends(bed.raw)
    assert len(before) == 2 * RAW_PARTITIONS
    written = write(bed.kafka.bootstrap, bed.load_topics, load)
    assert (written.spans, written.messages) == (3_000, len(expected))
    assert written.logs == sum(message.rows for message in expected if message.signal == "logs")
    assert written.value_bytes == sum(len(message.value) for message in expected)
    found = list(bed.visible(before, bed.ends(bed.raw)))
    assert sorted(m.value() for m in found) == sorted(m.value for m in expected)
    assert {(m.value(), m.timestamp()[1]) for m in found} == {(m.value, m.timestamp) for m in expected}
    assert {m.partition() for m in found if m.topic() == bed.raw[0]} == set(range(RAW_PARTITIONS))
    stored = bed.stored_bytes(bed.raw)
    assert 0 < sum(stored.values()) < written.value_bytes  # compressed


def test_a_paced_load_takes_its_time_and_stops_when_told(bed: Testbed) -> None:
    began = time.monotonic()
    load = Load(10**9, int(time.time() * 1000), spans_per_message=5, spans_per_second=1_000)
    written = write(
        bed.kafka.bootstrap, bed.load_topics, load, paced=True, stopped=lambda: time.monotonic() - began > 1.5
    )
    assert 500 < written.spans < 2_500, asdict(written)


def test_a_load_that_kafka_refuses_fails(bed: Testbed) -> None:
    load = Load(200, int(time.time() * 1000), spans_per_message=5)
    topics = {"traces": (bed.raw[0], RAW_PARTITIONS + 1), "logs": bed.load_topics["logs"]}
    with pytest.raises(LoadFailed):
        write(bed.kafka.bootstrap, topics, load)  # type: ignore[arg-type]


def test_control_records_move_the_end_and_are_not_visible(bed: Testbed) -> None:
    topic = bed.topics.decisions
    before, coordinators = bed.ends([topic]), bed.ends(COORDINATORS)
    producer = Producer({"bootstrap.servers": bed.kafka.bootstrap, "transactional.id": "testbed", "log_level": 0})
    producer.init_transactions(30)
    for _ in range(3):
        producer.begin_transaction()
        producer.produce(topic, b"kept", partition=0)
        producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"aborted", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    # The coordinator answers before it has written its marker.
    wait_for(lambda: bed.ends([topic])[topic, 0] - before[topic, 0] == 3 * 2 + 2, 30, "every marker is written")
    after = bed.ends([topic])
    assert [m.value() for m in bed.visible(before, after)] == [b"kept"] * 3
    assert sum(bed.ends(COORDINATORS).values()) > sum(coordinators.values())


def test_a_broker_costs_cpu(bed: Testbed) -> None:
    meter = Meter({"broker": bed.kafka.pid})
    write(bed.kafka.bootstrap, bed.load_topics, Load(20_000, int(time.time() * 1000), spans_per_message=2))
    elapsed, used = meter.read()
    assert 0 < used["broker"] < 16 * elapsed
