"""Readers of real destinations: what Jaeger, Elasticsearch and Prometheus really hold, as `Holdings`.

Jaeger is asked for every trace that was sent (`/api/v3/traces/{id}`), Elasticsearch for every document of the data
stream, Prometheus for the samples written since the start.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from pipeline.demo.backends import POLICY
from pipeline.demo.documents import document, uid
from pipeline.demo.ledger import Holdings, Labels, Ledger
from schemas.errors import Unavailable

OTLP_PORT = 4318
AT_ONCE = 16
PAGE = 5000


def otlp_url(jaeger: str) -> str:
    """Where Jaeger takes OTLP/HTTP by default, given the address of its pages.

    >>> otlp_url("http://jaeger.example:16686/")
    'http://jaeger.example:4318'
    """
    parts = urlsplit(jaeger)
    return urlunsplit((parts.scheme, f"{parts.hostname}:{OTLP_PORT}", "", "", ""))


class JaegerReader:
    """Spans by trace id. A trace that was found whole is not asked for again."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._whole: dict[bytes, list[bytes]] = {}
        self._policies: dict[bytes, str] = {}

    async def read(self, session: aiohttp.ClientSession, ledger: Ledger, holdings: Holdings) -> None:
        """Put what Jaeger holds into `holdings`."""
        seen = ledger.seen()
        if not seen:  # nothing to ask for, except whether anybody is there
            async with session.get(f"{self._url}/api/v3/services") as response:
                await _json(response)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(trace_id: bytes) -> None:
            async with gate:
                spans = await self._trace(session, trace_id)
            if spans:
                holdings.spans[trace_id] = spans
            if sorted(spans) == sorted(seen[trace_id].spans):
                self._whole[trace_id] = spans

        await asyncio.gather(*(one(trace_id) for trace_id in seen if trace_id not in self._whole))
        holdings.spans.update(self._whole)
        holdings.policies.update(self._policies)

    async def _trace(self, session: aiohttp.ClientSession, trace_id: bytes) -> list[bytes]:
        async with session.get(f"{self._url}/api/v3/traces/{trace_id.hex()}") as response:
            if response.status == 404:
                return []
            answer = await _json(response)
        spans = [
            span
            for resource in answer.get("result", {}).get("resourceSpans", [])
            for scope in resource.get("scopeSpans", [])
            for span in scope.get("spans", [])
        ]
        for span in spans[:1]:
            attributes = {a["key"]: a.get("value", {}).get("stringValue", "") for a in span.get("attributes", [])}
            self._policies[trace_id] = attributes.get(POLICY, "")
        return [_identifier(span["spanId"]) for span in spans]


class ElasticsearchReader:
    """Every document of a data stream, by scrolling."""

    def __init__(self, url: str, index: str) -> None:
        self._url, self._index = url.rstrip("/"), index

    async def read(self, session: aiohttp.ClientSession, ledger: Ledger, holdings: Holdings) -> None:
        """Put what Elasticsearch holds of this run into `holdings`."""
        async with session.post(f"{self._url}/{self._index}/_refresh") as response:
            if response.status == 404:  # nothing was indexed yet
                return
            await _json(response)
        url = f"{self._url}/{self._index}/_search?scroll=1m&size={PAGE}&sort=_doc"
        body: dict[str, Any] = {"query": {"match_all": {}}}
        while True:
            async with session.post(url, json=body) as response:
                answer = await _json(response)
            hits = answer["hits"]["hits"]
            for hit in hits:
                log = uid(hit["_source"])
                if log in ledger.logs:
                    holdings.log_duplicates += log in holdings.logs
                    holdings.logs[log] = document(hit["_source"])
            url, body = f"{self._url}/_search/scroll", {"scroll": "1m", "scroll_id": answer["_scroll_id"]}
            if len(hits) < PAGE:
                break
        async with session.delete(f"{self._url}/_search/scroll", json={"scroll_id": answer["_scroll_id"]}) as response:
            await response.read()


class PrometheusReader:
    """The newest sample since `since` (Unix, s) of every series of a namespace, staleness respected."""

    def __init__(self, url: str, namespace: str, since: float) -> None:
        self._url, self._namespace, self._since = url.rstrip("/"), namespace, since

    async def read(self, session: aiohttp.ClientSession, ledger: Ledger, holdings: Holdings) -> None:
        """Put what Prometheus holds into `holdings`."""
        # Ticks carry the append time of the newest point, which may be ahead of this clock by a moment.
        now = time.time() + 1
        window = int(now - self._since) + 1
        fresh = await self._query(session, f'{{__name__=~"{self._namespace}_.+"}}[{window}s]', now)
        alive = await self._query(session, f'{{__name__=~"{self._namespace}_.+"}}', now)
        living = {_labels(series) for series in alive}
        for series in fresh:
            labels = _labels(series)
            if labels in living:
                holdings.series[labels] = float(series["values"][-1][1])

    async def _query(self, session: aiohttp.ClientSession, query: str, at: float) -> Iterable[dict[str, Any]]:
        async with session.post(f"{self._url}/api/v1/query", data={"query": query, "time": f"{at:.3f}"}) as response:
            answer = await _json(response)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


def _labels(series: dict[str, Any]) -> Labels:
    return frozenset(series["metric"].items())


def _identifier(text: str) -> bytes:
    """A span id as Jaeger writes it: hexadecimal, or base64 as plain protobuf JSON has it."""
    return bytes.fromhex(text) if len(text) == 16 else base64.b64decode(text)


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if response.status != 200:
        text = (await response.text())[:300]
        raise Unavailable(f"{response.method} {response.url} answered {response.status}: {text}")
    answer: dict[str, Any] = await response.json(content_type=None)
    return answer
