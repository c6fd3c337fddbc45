"""How each backend is asked for the canary's trace, as anybody would ask it. Without an answer: Unavailable."""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from pipeline.canary.probe import LOGS, SERVICE, SPANS, Probe
from pipeline.canary.settings import Backend
from pipeline.config import Config
from processors.span_metrics import IDENTITY, span_metric_names
from schemas.errors import Unavailable
from schemas.http_client import in_words
from schemas.tls import trusting
from sinks.http import authorization, in_short, shortened
from sinks.proxies import proxy_of
from sinks.settings import sink_kind

ANSWER_LIMIT = 10.0  # seconds of one query
NOT_FOUND = 404

Read = TypeVar("Read")
Labels = tuple[tuple[str, str], ...]


class Looker(ABC):
    """One backend. `expected` is how many items of a trace it must have.

    Raises ConfigError when `ca_file` cannot be used.
    """

    name: str
    expected: int

    def __init__(self, settings: Backend) -> None:
        self._settings = settings
        self._url = settings.endpoint.rstrip("/")
        self._tls: ssl.SSLContext | bool = True
        if settings.ca_file is not None:
            self._tls = trusting(settings.ca_file, f"canary.{self.name}.ca_file")
        self._session: aiohttp.ClientSession | None = None

    @abstractmethod
    async def found(self, probe: Probe) -> int:
        """How many items of a trace it has now."""

    async def before(self, probe: Probe) -> None:  # noqa: B027  only Prometheus has to know
        """A trace is about to be sent."""

    def settled(self, probe: Probe, answered: bool) -> None:  # noqa: B027  likewise
        """Nothing more of a trace is waited for: what is missing counts as lost, if the backend `answered`."""

    def unsent(self, probe: Probe) -> None:  # noqa: B027  likewise
        """A trace that was about to be sent was not."""

    async def close(self) -> None:
        """Disconnect."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, path: str, read: Callable[[Any], Read], body: Any = None) -> Read | None:
        """What `read` finds in the answer's JSON; None for "not found"."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT),
            )
        url = f"{self._url}{path}"
        headers = {**self._settings.headers, **authorization(self._settings.auth)}
        method = "GET" if body is None else "POST"
        try:
            async with self._session.request(
                method, url, json=body, headers=headers, proxy=proxy_of(url), allow_redirects=False
            ) as response:
                text = await response.text()
                if response.status == NOT_FOUND:
                    return None
                if response.status != 200:
                    raise Unavailable(f"{url}: {in_short(response.status, response.headers, text)}")
        except TimeoutError:
            raise Unavailable(f"{url}: no answer within {ANSWER_LIMIT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{url}: {type(error).__name__}: {in_words(error)}") from error
        try:
            return read(json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise Unavailable(f"{url}: this is no answer of {self.name}: {shortened(text)}") from error


class Jaeger(Looker):
    """Spans, by trace id."""

    name, expected = "jaeger", SPANS

    async def found(self, probe: Probe) -> int:
        """Distinct spans: one that was sent twice counts once."""
        return await self._ask(f"/api/v3/traces/{probe.trace_id.hex()}", self._spans) or 0

    @staticmethod
    def _spans(answer: Any) -> int:
        scopes = [s for r in answer["result"]["resourceSpans"] for s in r["scopeSpans"]]
        return len({span["spanId"] for scope in scopes for span in scope.get("spans", ())})


class Elasticsearch(Looker):
    """Logs, by trace id."""

    name, expected = "elasticsearch", LOGS

    def __init__(self, settings: Backend, index: str) -> None:
        super().__init__(settings)
        self._path = f"/{quote(index, safe=',*')}/_search?ignore_unavailable=true&allow_no_indices=true"

    async def found(self, probe: Probe) -> int:
        """Documents that a search finds, so not before the index was refreshed."""
        trace_id = probe.trace_id.hex()
        terms = [{"term": {field: trace_id}} for field in ("trace_id", "trace.id")]
        query = {"size": 0, "track_total_hits": True, "query": {"bool": {"should": terms, "minimum_should_match": 1}}}
        return await self._ask(self._path, self._hits, query) or 0

    @staticmethod
    def _hits(answer: Any) -> int:
        return min(LOGS, int(answer["hits"]["total"]["value"]))


class Progress:
    """How far a counter has come through what was sent, in order; it carries no ids.

    Each of its series is followed across resets as `increase()` does: their sum, when one begins anew or is away, would
    look like a reset of all. What was given up for lost is no longer waited for; should it come
    after all, as much of a later loss is hidden by it, of what is under way at most.
    """

    def __init__(self) -> None:
        self._last: dict[Labels, float] | None = None
        self._seen = 0.0
        self._sent = 0

    @property
    def begun(self) -> bool:
        """Whether it is known where the counter stood at the beginning."""
        return self._last is not None

    def observe(self, values: Mapping[Labels, float]) -> None:
        """What its series say now; one that is not among them, as while nothing was written, was not reset."""
        if self._last is None:
            self._last = dict(values)
            return
        for series, value in values.items():
            last = self._last.get(series, 0.0)
            self._seen = min(self._seen + (value - last if value >= last else value), self._sent)
        self._last |= values

    def send(self, items: int) -> int:
        """So many more are on their way; how far the counter has to come for all of them."""
        self._sent += items
        return self._sent

    def missing(self, needed: int) -> int:
        """How many it still lacks to have come so far."""
        return max(0, needed - int(self._seen))

    def give_up(self, items: int) -> None:
        """So many never come."""
        self._seen += items


class Prometheus(Looker):
    """Counts, which have no trace id: the n-th trace is there once the counter has moved by n times its spans.

    Another canary's spans would count for this one's: one per installation, therefore.
    """

    name, expected = "prometheus", SPANS

    def __init__(self, settings: Backend, calls: str) -> None:
        super().__init__(settings)
        query = f'sum by ({", ".join(IDENTITY)}) ({calls}{{service_name="{SERVICE}"}})'
        self._path = f"/api/v1/query?query={quote(query)}"
        self._progress = Progress()
        self._needed: dict[bytes, int] = {}

    async def before(self, probe: Probe) -> None:
        """Note where the counter stands; without that nothing can be said of this trace."""
        if not self._progress.begun:
            await self._look()
        self._needed[probe.trace_id] = self._progress.send(SPANS)

    async def found(self, probe: Probe) -> int:
        """How far the counter is into this trace."""
        if probe.trace_id not in self._needed:
            raise Unavailable(f"{self._url}: did not answer when the trace was sent")
        await self._look()
        return max(0, SPANS - self._progress.missing(self._needed[probe.trace_id]))

    def settled(self, probe: Probe, answered: bool) -> None:
        """What is lost, of this trace and of those before it, is not waited for by the traces that follow."""
        needed = self._needed.pop(probe.trace_id, None)
        if needed is not None and answered:
            self._progress.give_up(self._progress.missing(needed))

    def unsent(self, probe: Probe) -> None:
        """Nor is what nobody sent."""
        if self._needed.pop(probe.trace_id, None) is not None:
            self._progress.give_up(SPANS)

    async def _look(self) -> None:
        values = await self._ask(self._path, self._values)
        if values is None:
            raise Unavailable(f"{self._url}: no API of Prometheus")
        self._progress.observe(values)

    @staticmethod
    def _values(answer: Any) -> dict[Labels, float]:
        found = answer["data"]["result"]
        values = {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in found}
        if not all(map(isfinite, values.values())):
            raise ValueError("a count is a number")
        return values


def lookers(config: Config) -> list[Looker]:
    """The backends of the section `canary`."""
    canary = config.canary
    assert canary is not None
    found: list[Looker] = []
    if canary.jaeger is not None:
        found.append(Jaeger(canary.jaeger))
    if canary.elasticsearch is not None:
        found.append(Elasticsearch(canary.elasticsearch, canary.elasticsearch.index or _data_stream(config)))
    if canary.prometheus is not None:
        counted = config.metrics.span_metrics
        found.append(
            Prometheus(
                canary.prometheus, span_metric_names(counted.namespace, counted.dimensions, counted.buckets_ms).calls
            )
        )
    return found


def _data_stream(config: Config) -> str:
    """What the first elasticsearch sink writes to; without one, everything that looks like logs."""
    streams = [f"logs-{s.dataset}-{s.namespace}" for n, s in config.sinks.items() if sink_kind(n) == "elasticsearch"]
    return streams[0] if streams else "logs-*"
