"""Kept spans in a real Jaeger; faults from a local server."""

from __future__ import annotations

import os
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas.envelope import Envelope, RowVerdict
from schemas.errors import ProtocolError, Unavailable
from sinks.contract import Outcome
from sinks.jaeger import Jaeger, SpanItem, decided
from tests.services import Jaeger as JaegerServer
from tests.services import eventually, free_port
from tests.services.process import HOST
from tests.sinks.building import envelope, record, resource, scope, sink, span, spans_of
from tests.sinks.faulty import faulty, status

KEPT = RowVerdict(kept=True, policy="errors", threshold=0)
FEW = RowVerdict(kept=True, policy="5 %", threshold=0xF333_3333_3333_00)


async def send(endpoint: str, items: list[SpanItem] | Envelope, **settings: Any) -> Outcome:
    destination = Jaeger(sink(endpoint, **settings))
    await destination.start()
    try:
        if isinstance(items, Envelope):
            items = encode(items)
        return await destination.send(destination.request(items))
    finally:
        await destination.close()


def encode(rows: Envelope) -> list[SpanItem]:
    return Jaeger(sink("http://unused")).encode(record(rows.encode()))


async def stored(server: JaegerServer, trace_id: bytes) -> dict[str, dict[str, Any]]:
    """Attributes by span name of a trace in Jaeger."""

    async def ask() -> Any:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{server.query_url}/api/v3/traces/{trace_id.hex()}") as response,
        ):
            return await response.json(content_type=None) if response.status == 200 else None

    found = await eventually(ask, 10, f"trace {trace_id.hex()} in Jaeger")
    return {
        spn["name"]: {a["key"]: next(iter(a["value"].values())) for a in spn.get("attributes", [])}
        for part in found["result"]["resourceSpans"]
        for scp in part["scopeSpans"]
        for spn in scp["spans"]
    }


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_spans_arrive_with_what_decided(jaeger: JaegerServer, compression: str) -> None:
    trace = os.urandom(16)
    rows = envelope([span(trace, "a", **{"http.route": "/x"}), span(trace, "b"), span(trace, "c")], [KEPT, FEW, None])
    outcome = await send(jaeger.otlp_http, rows, compression=compression)
    assert outcome == Outcome(accepted=3)
    assert await stored(jaeger, trace) == {
        "a": {"http.route": "/x", "tailsampling.policy": "errors"},
        "b": {"tailsampling.policy": "5 %", "tailsampling.threshold": "f33333333333"},
        "c": {},
    }


async def test_jaeger_refuses_one_span_and_gets_the_others(jaeger: JaegerServer) -> None:
    trace = os.urandom(16)
    rows = [span(trace, str(n)) for n in range(20)]
    rows[13] = span(b"abc", "13")  # OTLP: a trace id has 16 bytes
    items = encode(envelope(rows))
    outcome = await send(jaeger.otlp_http, items)
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (19, [13], ())
    assert outcome.refused[0].detail.startswith("400 ")
    assert (await stored(jaeger, trace)).keys() == {str(n) for n in range(20)} - {"13"}


def test_a_request_names_each_resource_and_scope_once() -> None:
    one = envelope([span(name="a"), span(name="b")])
    two = envelope([span(name="c")], header=resource("other"))
    items = encode(one) + encode(two) + encode(one)
    sent = ExportTraceServiceRequest.FromString(Jaeger(sink("http://unused")).request(items).body)
    assert [len(spans_of([part])) for part in sent.resource_spans] == [4, 1]
    assert [len(part.scope_spans) for part in sent.resource_spans] == [1, 1]
    assert {s.name for s in spans_of(sent.resource_spans)} == {"a", "b", "c"}


def test_a_dead_letter_is_the_span_as_it_came() -> None:
    original = span(name="a", k="v")
    (item,) = encode(envelope([original], [KEPT]))
    sent = ExportTraceServiceRequest.FromString(item.dead_letter())
    assert spans_of(sent.resource_spans) == [original]
    assert sent.resource_spans[0].resource.attributes[0].value.string_value == "cart"
    assert sent.resource_spans[0].scope_spans[0].scope.name == "tests"


def test_items_know_where_they_came_from_and_what_they_weigh() -> None:
    rows = envelope([span(), span()], topic="raw", offset=42)
    first, second = encode(rows)
    assert (first.origin.topic, first.origin.partition, first.origin.offset, first.origin.index) == ("raw", 1, 42, 0)
    assert second.origin.index == 1
    assert first.size == len(first.wire) + len(resource()) + len(scope())
    assert second.size == len(second.wire)


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(0, None), (1, "00000000000001"), (1 << 55, "8"), (0xFF << 48, "ff"), (0xA << 4, "000000000000a")],
)
def test_thresholds_are_written_as_in_tracestate(threshold: int, text: str | None) -> None:
    fields = Span.FromString(decided(RowVerdict(kept=True, policy="p", threshold=threshold))).attributes
    assert {a.key: a.value.string_value for a in fields}.get("tailsampling.threshold") == text


def test_foreign_bytes_stop_the_sink() -> None:
    with pytest.raises(ProtocolError):
        Jaeger(sink("http://unused")).encode(record(b"not an envelope"))


def partial(rejected: int) -> Any:
    answer = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message="full")
    )
    return lambda request, body: web.Response(body=answer.SerializeToString())


async def test_a_partial_success_dead_letters_every_candidate_and_counts_what_was_refused() -> None:
    async with faulty(partial(2)) as server:
        outcome = await send(server.url, envelope([span(), span(), span()]))
    assert (outcome.accepted, len(outcome.refused), outcome.retry) == (1, 3, ())
    assert outcome.refused[0].detail == "partial success: 2 of 3 spans rejected: full"
    assert len(server.seen) == 1


async def test_a_partial_success_that_rejects_nothing_is_a_warning() -> None:
    async with faulty(partial(0)) as server:
        assert await send(server.url, envelope([span()])) == Outcome(accepted=1)


async def test_a_wait_is_handed_on() -> None:
    async with faulty(status(429, Retry_After="3")) as server:
        outcome = await send(server.url, envelope([span(), span()]))
    assert (outcome.retry, outcome.retry_after, outcome.reason) == ((0, 1), 3.0, "429")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await send(f"http://{HOST}:{free_port()}", envelope([span()]))
