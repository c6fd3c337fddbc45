"""What the destinations hold, asked as anybody would ask them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from pipeline.commands.cardinality import newest_ticks
from pipeline.configuration.config_file import load
from schemas.envelope import Envelope
from schemas.point import HistogramValue
from tests.end_to_end.harness import DELIVERED_SECONDS, METRICS_INTERVAL, Pipeline
from tests.end_to_end.truth import UID, Document, Holdings, Log, Span, Truth
from tests.services import eventually

POLICY_ATTRIBUTE = "tailsampling.policy"
AT_ONCE = 16  # requests to Jaeger
PAGE = 5000  # documents of one answer of Elasticsearch


async def of_servers(pipeline: Pipeline, truth: Truth, traces: Iterable[str] | None = None) -> Holdings:
    """What Jaeger answers for each trace (default: all that were made), the others for all logs and series."""
    holdings = Holdings()
    async with aiohttp.ClientSession() as http:
        await _ask_prometheus(http, pipeline, truth, holdings)
        await _ask_jaeger(http, pipeline, truth.traces if traces is None else traces, holdings)
        await _ask_elasticsearch(http, pipeline, holdings)
    return holdings


async def of_kept_topics(pipeline: Pipeline) -> Holdings:
    """The spans and logs that the sinks would read."""
    topics, holdings = pipeline.topics, Holdings()
    for record in await pipeline.records([topics.kept_spans]):
        envelope = Envelope.decode(record.value)
        for row, verdict in enumerate(envelope.verdicts):
            assert verdict is not None
            span = SpanMessage.FromString(envelope.row(row))
            holdings.add_span(span.trace_id.hex(), span.span_id.hex(), verdict.policy)
    for record in await pipeline.records([topics.kept_logs, topics.untraced_logs]):
        envelope = Envelope.decode(record.value)
        for row in range(len(envelope)):
            uid, document = _document(envelope, row)
            holdings.logs.setdefault(uid, []).append(document)
    return holdings


async def of_topics(pipeline: Pipeline, truth: Truth) -> Holdings:
    """What the sinks would read: kept spans and logs, and the newest ticks of a pipeline whose aggregate runs."""
    holdings, config = await of_kept_topics(pipeline), load(str(pipeline.file), {})

    async def complete() -> bool:
        holdings.calls.clear()
        holdings.durations.clear()
        for tick in await newest_ticks(config):
            for block in tick.blocks:
                service = block.shape.label_names.index("service_name")
                counted = holdings.calls if block.metric.endswith("calls_total") else holdings.durations
                for labels, value in block.rows:
                    total = value.observations if isinstance(value, HistogramValue) else value
                    assert isinstance(total, int | float)
                    counted[labels[service]] += int(total)
        return holdings.calls == truth.made == holdings.durations

    with contextlib.suppress(TimeoutError):  # what was found last tells more than that it took too long
        await eventually(complete, DELIVERED_SECONDS / 2, "totals are equal")
    return holdings


def _document(envelope: Envelope, row: int) -> tuple[str, Document]:
    record = LogRecord.FromString(envelope.row(row))
    header = ResourceLogs.FromString(envelope.resources[envelope.resource[row]])
    verdict = envelope.verdicts[row] if envelope.verdicts else None
    span = verdict.span if verdict else None
    (service,) = (a.value.string_value for a in header.resource.attributes if a.key == "service.name")
    (uid,) = (a.value.string_value for a in record.attributes if a.key == UID)
    return uid, Document(
        record.trace_id.hex(),
        record.span_id.hex(),
        record.severity_number,
        record.body.string_value,
        verdict.kept if verdict else None,
        verdict.policy if verdict else "",
        span.service if span else service,
        span.name if span else "",
    )


async def _ask_jaeger(
    http: aiohttp.ClientSession, pipeline: Pipeline, trace_ids: Iterable[str], holdings: Holdings
) -> None:
    assert pipeline.destinations is not None
    url, turn = f"{pipeline.destinations.jaeger.query_url}/api/v3/traces", asyncio.Semaphore(AT_ONCE)

    async def ask(trace_id: str) -> None:
        async with turn, http.get(f"{url}/{trace_id}") as response:
            if response.status == 404:
                return
            assert response.status == 200, await response.text()
            answer = await response.json(content_type=None)
        for resource in answer["result"]["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope.get("spans", ()):  # empty: what it held came twice and is shown once
                    attributes = {a["key"]: a["value"].get("stringValue", "") for a in span.get("attributes", ())}
                    assert span["traceId"] == trace_id
                    holdings.add_span(trace_id, span["spanId"], attributes.get(POLICY_ATTRIBUTE, ""))

    await asyncio.gather(*map(ask, trace_ids))


async def _ask_elasticsearch(http: aiohttp.ClientSession, pipeline: Pipeline, holdings: Holdings) -> None:
    assert pipeline.destinations is not None
    url = pipeline.destinations.elasticsearch.url
    stream = f"logs-{pipeline.namespace}-default"
    async with http.post(f"{url}/{stream}/_refresh") as response:
        assert response.status == 200, await response.text()
    query = {"size": PAGE, "sort": ["_doc"]}
    async with http.post(f"{url}/{stream}/_search?scroll=1m", json=query) as response:
        assert response.status == 200, await response.text()
        answer = await response.json(content_type=None)
    while hits := answer["hits"]["hits"]:
        for hit in hits:
            source = _flat(hit["_source"])
            holdings.places.setdefault(source[f"attributes.{UID}"], []).append((hit["_index"], hit["_id"]))
            holdings.logs.setdefault(source[f"attributes.{UID}"], []).append(
                Document(
                    source.get("trace_id", ""),
                    source.get("span_id", ""),
                    source["severity_number"],
                    source["body.text"],
                    source.get("trace.sampled"),
                    source.get("sampling.policy", ""),
                    source["service.name"],
                    source.get("span.name", ""),
                )
            )
        body = {"scroll": "1m", "scroll_id": answer["_scroll_id"]}
        async with http.post(f"{url}/_search/scroll", json=body) as response:
            answer = await response.json(content_type=None)


async def found_by_trace(pipeline: Pipeline, trace_id: str) -> set[str]:
    """The uids that Elasticsearch finds when it is asked for a trace id, as a person would."""
    assert pipeline.destinations is not None
    url = f"{pipeline.destinations.elasticsearch.url}/logs-{pipeline.namespace}-default/_search"
    query = {"size": 100, "query": {"term": {"trace_id": trace_id}}}
    async with aiohttp.ClientSession() as http, http.post(url, json=query) as response:
        answer = await response.json(content_type=None)
    return {_flat(hit["_source"])[f"attributes.{UID}"] for hit in answer["hits"]["hits"]}


async def attributes_of(pipeline: Pipeline, fact: Span | Log) -> int:
    """How many attributes Jaeger shows of a span, or Elasticsearch of a log."""
    to = pipeline.destinations
    assert to is not None
    async with aiohttp.ClientSession() as http:
        if isinstance(fact, Span):
            async with http.get(f"{to.jaeger.query_url}/api/v3/traces/{fact.trace_id}") as response:
                answer = await response.json(content_type=None)
            scopes = [scope for resource in answer["result"]["resourceSpans"] for scope in resource["scopeSpans"]]
            spans = [span for scope in scopes for span in scope.get("spans", ())]
            return max(len(span["attributes"]) for span in spans if span["spanId"] == fact.span_id)
        query = {"query": {"term": {"trace_id": fact.trace_id}}}
        async with http.post(
            f"{to.elasticsearch.url}/logs-{pipeline.namespace}-default/_search", json=query
        ) as response:
            answer = await response.json(content_type=None)
    found = [_flat(hit["_source"]) for hit in answer["hits"]["hits"]]
    return max(
        sum(key.startswith("attributes.") for key in one) for one in found if one[f"attributes.{UID}"] == fact.uid
    )


async def _ask_prometheus(http: aiohttp.ClientSession, pipeline: Pipeline, truth: Truth, holdings: Holdings) -> None:
    """Ticks come by themselves: wait for the right totals, and keep the last ones if they do not come."""
    assert pipeline.destinations is not None
    url = f"{pipeline.destinations.prometheus.url}/api/v1/query"

    async def by_service(metric: str) -> dict[str, int]:
        query = f"sum by (service_name) ({pipeline.namespace}_{metric})"
        async with http.get(url, params={"query": query}) as response:
            answer = await response.json(content_type=None)
        assert answer["status"] == "success", answer
        return {r["metric"]["service_name"]: round(float(r["value"][1])) for r in answer["data"]["result"]}

    async def complete() -> bool:
        holdings.calls.clear()
        holdings.durations.clear()
        holdings.calls.update(await by_service("calls_total"))
        holdings.durations.update(await by_service("duration_milliseconds_count"))
        return holdings.calls == truth.made == holdings.durations

    try:
        await eventually(complete, DELIVERED_SECONDS / 2 + 5 * METRICS_INTERVAL, "totals are equal")
    except TimeoutError:
        return  # what was found last tells more than that it took too long


def _flat(source: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A document with dotted names, whether it was written with them or as objects."""
    flat: dict[str, Any] = {}
    for key, value in source.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return flat
