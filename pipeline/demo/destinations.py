"""The three destinations of a run, local or real, and everything that they hold together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import aiohttp

from pipeline.demo.backends import LocalBackends
from pipeline.demo.ledger import Holdings, Ledger
from pipeline.demo.servers import ElasticsearchReader, JaegerReader, PrometheusReader, otlp_url
from pipeline.demo.settings import DATASET, NAMESPACE

READ_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Real:
    """Addresses of real servers; None: the local stand-in. `jaeger` is where its pages are, `otlp` where spans go."""

    kafka: str | None = None
    jaeger: str | None = None
    otlp: str | None = None
    elasticsearch: str | None = None
    prometheus: str | None = None


@dataclass(slots=True)
class Destinations:
    """Where the sinks send, and what arrived."""

    local: LocalBackends
    jaeger: str
    elasticsearch: str
    prometheus: str
    _session: aiohttp.ClientSession
    _readers: Sequence[JaegerReader | ElasticsearchReader | PrometheusReader] = field(default_factory=tuple)

    @property
    def remote(self) -> bool:
        """True if reading costs requests."""
        return bool(self._readers)

    async def holdings(self, ledger: Ledger) -> Holdings:
        """Everything that the destinations hold now. Raises Unavailable if a real one does not answer well."""
        if not self._readers:
            return self.local.holdings
        local = self.local.holdings
        holdings = replace(
            local, spans=dict(local.spans), policies=dict(local.policies), logs=dict(local.logs),
            series=dict(local.series),
        )  # fmt: skip
        for reader in self._readers:
            await reader.read(self._session, ledger, holdings)
        return holdings


@contextlib.asynccontextmanager
async def destinations(real: Real) -> AsyncIterator[Destinations]:
    """Start what is local, connect to what is real."""
    timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
    async with LocalBackends() as local, aiohttp.ClientSession(timeout=timeout) as session:
        readers: list[JaegerReader | ElasticsearchReader | PrometheusReader] = []
        if real.jaeger:
            readers.append(JaegerReader(real.jaeger))
        if real.elasticsearch:
            readers.append(ElasticsearchReader(real.elasticsearch, f"logs-{DATASET}-default"))
        if real.prometheus:
            readers.append(PrometheusReader(real.prometheus, NAMESPACE, time.time()))
        yield Destinations(
            local,
            jaeger=real.otlp or (otlp_url(real.jaeger) if real.jaeger else local.url),
            elasticsearch=real.elasticsearch or local.url,
            prometheus=f"{real.prometheus.rstrip('/')}/api/v1/write" if real.prometheus else local.remote_write_url,
            _session=session,
            _readers=readers,
        )
