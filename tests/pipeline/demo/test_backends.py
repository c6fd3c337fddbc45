"""The local destinations, spoken to by the clients that the sinks use."""

from __future__ import annotations

import gzip
import math
import struct

import aiohttp
import cramjam
import pytest
from elasticsearch import AsyncElasticsearch
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.demo import remote_write
from pipeline.demo.backends import LocalBackends
from pipeline.demo.documents import document, look, uid
from pipeline.demo.ledger import Labels
from schemas.errors import Malformed
from schemas.otlp_build import field, varint

UNSIGNED = (1 << 64) - 1  # of a number that may be negative
TRACE, SPAN = bytes(range(16)), bytes(range(8))


def write_request(series: list[tuple[dict[str, str], list[tuple[int, float | int]]]]) -> bytes:
    """A snappy WriteRequest; a sample's value given as int is the raw bits."""
    body = b""
    for labels, samples in series:
        one = b"".join(
            field(0x0A, field(0x0A, k.encode()) + field(0x12, v.encode())) for k, v in sorted(labels.items())
        )
        for time_ms, value in samples:
            bits = struct.pack("<Q", value) if isinstance(value, int) else struct.pack("<d", value)
            one += field(0x12, b"\x09" + bits + b"\x10" + varint(time_ms & UNSIGNED))
        body += field(0x0A, one)
    return bytes(cramjam.snappy.compress_raw(body + field(0x1A, b"\x08\x01")))


def key(**labels: str) -> Labels:
    return frozenset(labels.items())


async def test_traces_are_kept_with_their_policy() -> None:
    data = TracesData()
    spans = data.resource_spans.add().scope_spans.add().spans
    spans.add(
        trace_id=TRACE,
        span_id=SPAN,
        attributes=[KeyValue(key="tailsampling.policy", value=AnyValue(string_value="errors"))],
    )
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    async with LocalBackends() as backends, aiohttp.ClientSession() as session:
        for _ in range(2):
            body = gzip.compress(data.SerializeToString())
            async with session.post(f"{backends.url}/v1/traces", data=body, headers=headers) as response:
                assert response.status == 200
                assert response.content_type == "application/x-protobuf"
        async with session.post(f"{backends.url}/v1/traces", data=b"\x0a\x7f") as response:
            assert response.status == 400
        assert backends.holdings.spans == {TRACE: [SPAN, SPAN]}
        assert backends.holdings.policies == {TRACE: "errors"}
        assert backends.refused == {"jaeger": 1}


async def test_the_official_client_creates_documents_once() -> None:
    source = {
        "trace_id": TRACE.hex(), "trace.sampled": True, "service.name": "web", "span": {"name": "GET /"},
        "attributes": {"log.record.uid": "u1"},
    }  # fmt: skip
    action = {"create": {"_index": "logs-tailrace-default", "_id": "a"}}
    async with LocalBackends() as backends:
        client = AsyncElasticsearch(backends.url)
        try:
            assert (await client.info())["version"]["number"] == "8.19.0"
            assert (await client.cluster.health())["status"] == "green"
            assert (await client.indices.put_index_template(name="logs", index_patterns=["logs-*"]))["acknowledged"]
            first = await client.bulk(operations=[action, source])
            again = await client.bulk(operations=[action, source], index="logs-tailrace-default")
        finally:
            await client.close()
        assert not first["errors"]
        assert first["items"][0]["create"]["status"] == 201
        assert again["errors"]
        assert again["items"][0]["create"]["status"] == 409
        assert backends.holdings.logs == {"u1": document(source)}
        assert backends.holdings.log_duplicates == 0
        assert backends.holdings.logs["u1"].span_name == "GET /"


async def test_the_same_log_under_another_id_is_a_duplicate() -> None:
    lines = b'{"create":{"_id":"%s"}}\n{"attributes":{"log.record.uid":"u1"}}\n'
    async with LocalBackends() as backends, aiohttp.ClientSession() as session:
        for id_ in (b"a", b"b"):
            async with session.post(f"{backends.url}/logs-x-default/_bulk", data=lines % id_) as response:
                assert response.headers["X-Elastic-Product"] == "Elasticsearch"
                assert not (await response.json())["errors"]
        assert backends.holdings.log_duplicates == 1


async def test_the_newest_sample_of_a_series_counts_until_it_ends() -> None:
    async with LocalBackends() as backends, aiohttp.ClientSession() as session:

        async def write(body: bytes) -> int:
            async with session.post(backends.remote_write_url, data=body) as response:
                return response.status

        first = {"__name__": "calls", "service": "web"}
        other = {"__name__": "calls", "service": "cart"}
        assert await write(write_request([(first, [(1000, 1.0), (2000, 2.5)]), (other, [(1000, 7.0)])])) == 204
        assert backends.holdings.series == {key(**first): 2.5, key(**other): 7.0}
        assert await write(write_request([(first, [(1500, 1.0)])])) == 400, "out of order"
        assert await write(write_request([(other, [(3000, remote_write.STALE)])])) == 204
        assert backends.holdings.series == {key(**first): 2.5}
        assert await write(b"not snappy") == 400


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
            st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=3),
        ),
        max_size=4,
    )
)
def test_remote_write_decodes_what_was_encoded(
    series: list[tuple[dict[str, str], list[tuple[int, float | int]]]],
) -> None:
    decoded = remote_write.decode(write_request(series))
    assert [(s.labels, s.time_ms, s.value) for s in decoded] == [
        (frozenset(labels.items()), time_ms, value) for labels, samples in series for time_ms, value in samples
    ]


@given(st.binary(max_size=60))
def test_random_bytes_are_malformed_or_nothing(data: bytes) -> None:
    for body in (data, bytes(cramjam.snappy.compress_raw(data))):
        try:
            samples = remote_write.decode(body)
        except Malformed:
            continue
        assert all(isinstance(s.value, float | None) for s in samples)


def test_an_ordinary_nan_is_a_value() -> None:
    (sample,) = remote_write.decode(write_request([({"__name__": "x"}, [(1, 0x7FF8000000000000)])]))
    assert sample.value is not None
    assert math.isnan(sample.value)


@pytest.mark.parametrize(
    "source",
    [
        {"attributes": {"log.record.uid": "7"}},
        {"attributes.log.record.uid": "7"},
        {"attributes": {"log": {"record": {"uid": "7"}}}},
        {"attributes": {"log.record": {"uid": "7"}}},
    ],
)
def test_paths_are_found_however_they_are_nested(source: dict[str, object]) -> None:
    assert uid(source) == "7"
    assert look(source, "attributes.log.record.other") is None
