"""The section `canary`: how often, how long to wait, and where the backends are asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from schemas.settings import Broken, Duration, Section, Url, refuse
from sinks.settings import SinkAuth, url_rules


class Backend(Section):
    """Where a backend answers queries: not where a sink writes to."""

    endpoint: Url = Field(
        description="Base URL of queries: jaeger: of /api/v3 (:16686); elasticsearch: of _search (:9200); prometheus: "
        "of /api/v1/query (:9090)."
    )
    headers: dict[str, str] = Field({}, description="Sent with every query.")
    auth: SinkAuth = Field(SinkAuth(), description="Credentials; reading is enough.")
    ca_file: str | None = Field(None, description="Certificate authorities (PEM); unset: those of the system.")
    index: str | None = Field(
        None, description="elasticsearch: what is searched; unset: the data stream of the first elasticsearch sink."
    )


class Canary(Section):
    """What `tailrace canary` sends and where it looks for it; workers do not read this section.

    A policy must keep traces with an error, or no canary ever arrives.
    """

    interval: Duration = Field(10.0, gt=0, description="One trace this often.")
    timeout: Duration | None = Field(
        None,
        gt=0,
        description="When a trace that has not arrived counts as missing; unset: decision_wait, metrics.interval and a "
        "minute.",
    )
    traces_topic: str | None = Field(
        None, description="Raw topic that gets the spans; unset: the first input of traces as otlp_proto."
    )
    logs_topic: str | None = Field(
        None, description="Raw topic that gets the log; unset: the first input of logs as otlp_proto."
    )
    jaeger: Backend | None = Field(None, description="Look for the spans here.")
    elasticsearch: Backend | None = Field(None, description="Look for the log here.")
    prometheus: Backend | None = Field(None, description="Look for the counts here.")
    host: str = Field("127.0.0.1", min_length=1, description="Address of its own /metrics, /healthz and /readyz.")
    port: int = Field(9465, ge=0, le=65535, description="Their port; 0 picks a free one.")

    @model_validator(mode="after")
    def _looks_somewhere(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        if not (self.jaeger or self.elasticsearch or self.prometheus):
            yield (), "needs at least one of jaeger, elasticsearch and prometheus to look at"
        for kind in ("jaeger", "prometheus"):
            backend: Backend | None = getattr(self, kind)
            if backend is not None and backend.index is not None:
                yield (kind, "index"), "is for elasticsearch only"
        for kind in ("jaeger", "elasticsearch", "prometheus"):
            if (backend := getattr(self, kind)) is not None:
                rules = url_rules(backend.endpoint, backend.auth, backend.headers)
                yield from (((kind, "endpoint"), rule) for rule in rules)
