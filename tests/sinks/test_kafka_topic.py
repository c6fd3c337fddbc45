"""Kept spans in a topic of a real Kafka."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.envelope import Envelope, RowVerdict
from schemas.errors import Unavailable
from sinks import kafka_topic
from sinks.contract import Outcome
from sinks.kafka_topic import KafkaTopic
from tests.pipeline.kafka import DEADLINE, create, fresh, read_all
from tests.services import Kafka, eventually, free_port
from tests.services.process import HOST
from tests.sinks.building import envelope, record, sink, span, spans_of

KEPT = RowVerdict(kept=True, policy="errors", threshold=0)


@asynccontextmanager
async def started(bootstrap: str, topic: str, **settings: Any) -> AsyncIterator[KafkaTopic]:
    destination = KafkaTopic(sink(None, bootstrap_servers=bootstrap, topic=topic, **settings), "sinks.kafka.security")
    try:
        await destination.start()
        yield destination
    finally:
        await destination.close()


async def send(destination: KafkaTopic, rows: Envelope) -> Outcome:
    return await destination.send(destination.request(destination.encode(record(rows.encode()))))


async def topic(kafka: Kafka, partitions: int = 4, **configs: str) -> str:
    name = fresh("kept")
    await create(kafka.bootstrap, {name: partitions}, **configs)
    return name


async def written(kafka: Kafka, name: str) -> list[tuple[int, bytes, list[Span]]]:
    """(partition, key, spans) of every message."""
    found = await read_all(kafka.bootstrap, name)
    return [(r.partition, r.key, spans_of(TracesData.FromString(r.value).resource_spans)) for r in found]


def interleaved(traces: Sequence[bytes], each: int, **attributes: Any) -> Envelope:
    rows = [span(trace, f"{n}", **attributes) for n in range(each) for trace in traces]
    return envelope(rows, [KEPT] * len(rows))


@pytest.mark.parametrize("compression", [None, "none", "gzip", "lz4", "snappy", "zstd"])
async def test_a_message_is_one_trace_and_its_key_is_the_trace_id(kafka: Kafka, compression: str | None) -> None:
    name, traces = await topic(kafka), [os.urandom(16) for _ in range(20)]
    async with started(kafka.bootstrap, name, compression=compression) as destination:
        assert await send(destination, interleaved(traces, 3)) == Outcome(accepted=60)
        assert await send(destination, interleaved(traces, 2)) == Outcome(accepted=40)
    found = await written(kafka, name)
    assert sorted(key for _, key, _ in found) == sorted(trace.hex().encode() for trace in traces for _ in range(2))
    for _, key, spans in found:
        assert {s.trace_id.hex().encode() for s in spans} == {key}
        assert [s.name for s in spans] == [str(n) for n in range(len(spans))]
        assert spans[0].attributes[0].value.string_value == "errors"
    assert len({(partition, key) for partition, key, _ in found}) == len(traces), "a trace is in one partition"


async def test_a_trace_that_is_too_large_for_a_message_is_cut(kafka: Kafka) -> None:
    name, trace = await topic(kafka), os.urandom(16)
    async with started(kafka.bootstrap, name, max_message_bytes=20_000, compression="none") as destination:
        assert await send(destination, interleaved([trace], 16, text="x" * 5_000)) == Outcome(accepted=16)
    found = await read_all(kafka.bootstrap, name)
    assert all(len(r.value) <= 20_000 for r in found)
    assert len(found) == 8
    assert sum(len(spans) for _, _, spans in await written(kafka, name)) == 16


async def test_a_span_that_the_brokers_refuse_costs_its_neighbours_nothing(kafka: Kafka) -> None:
    """The topic takes less than the sink was told: 15 spans of the same trace, and other traces, get through."""
    name, trace, other = await topic(kafka, 1, **{"max.message.bytes": "30000"}), os.urandom(16), os.urandom(16)
    rows = [span(trace, str(n)) for n in range(16)] + [span(other, "other")]
    rows[5] = span(trace, "5", text=os.urandom(50_000).hex())
    async with started(kafka.bootstrap, name) as destination:
        outcome = await send(destination, envelope(rows))
        assert (outcome.accepted, [r.index for r in outcome.refused], outcome.retry) == (16, [5], ())
        assert outcome.refused[0].detail.startswith("MessageSizeTooLargeError")
        assert await send(destination, envelope([span(trace, "after")])) == Outcome(accepted=1)
    names = sorted(s.name for _, _, spans in await written(kafka, name) for s in spans)
    assert names == sorted([*(str(n) for n in range(16) if n != 5), "other", "after"]), "each once"


async def test_a_span_beyond_the_sinks_own_limit_is_refused_alone(kafka: Kafka) -> None:
    name = await topic(kafka)
    rows = [span(), span(text="x" * 20_000), span()]
    async with started(kafka.bootstrap, name, max_message_bytes=10_000) as destination:
        outcome = await send(destination, envelope(rows))
    assert (outcome.accepted, [r.index for r in outcome.refused], outcome.retry) == (2, [1], ())


async def test_a_name_that_is_no_utf8_stops_nobody(kafka: Kafka) -> None:
    """All before this sink take it, and so do the Collector and Jaeger."""
    name, trace = await topic(kafka), os.urandom(16)
    rows = envelope([span(trace, "xyz")])
    rows.body = rows.body.replace(b"xyz", b"x\xff\xfe")
    async with started(kafka.bootstrap, name) as destination:
        assert await send(destination, rows) == Outcome(accepted=1)
    (found,) = await read_all(kafka.bootstrap, name)
    assert found.key == trace.hex().encode()
    assert b"x\xff\xfe" in found.value


async def test_brokers_that_are_not_there_are_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with started(f"{HOST}:{free_port()}", "kept"):
            pass


async def test_brokers_that_go_away_cost_time_and_nothing_is_there_twice() -> None:
    with Kafka() as server:
        name = await topic(server)
        async with started(server.bootstrap, name, timeout="1s") as destination:
            assert (await send(destination, envelope([span(name="before")]))).accepted == 1
            server.kill()
            waiting = asyncio.create_task(send(destination, envelope([span(name="meanwhile"), span(name="too")])))
            done, _ = await asyncio.wait({waiting}, timeout=2)  # longer than an attempt takes
            assert not done
            server.restart()
            async with asyncio.timeout(DEADLINE):
                assert await waiting == Outcome(accepted=2)
        names = sorted(s.name for _, _, spans in await written(server, name) for s in spans)
    assert names == ["before", "meanwhile", "too"]


async def test_a_cluster_that_was_made_anew_is_found_by_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer asks the brokers that it knows, for ever: those of the cluster before."""
    after = Kafka()
    with Kafka() as before:
        name = await topic(before)
        async with started(f"{before.bootstrap},{after.bootstrap}", name, timeout="1s") as destination:
            assert (await send(destination, envelope([span(name="before")]))).accepted == 1
            before.kill()
            monkeypatch.setattr(kafka_topic, "PATIENCE", 3.0)
            outcome = await send(destination, envelope([span(name="meanwhile")]))
            assert (outcome.retry, outcome.reason) == ((0,), "no_answer")
            with after:
                await create(after.bootstrap, {name: 1})

                async def accepted() -> bool:
                    return await send(destination, envelope([span(name="meanwhile")])) == Outcome(accepted=1)

                await eventually(accepted, DEADLINE, "the other cluster takes it")
                assert {s.name for _, _, spans in await written(after, name) for s in spans} == {"meanwhile"}
