"""The one configuration file: what each key means, its default and its rule.

Field names follow the OpenTelemetry Collector, Prometheus, Kafka and Elasticsearch. Unknown keys are refused.
Durations are strings such as `500ms`, `30s`, `15m`, `2h`; in code they are seconds (float).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from processors.sampling.policies import Policy
from schemas.settings import Duration, Section
from sinks.settings import Sink


class Security(Section):
    """How to reach Kafka. Passed through to the client: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: SecretStr | None = None
    verify_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    token_file: str | None = Field(None, description="OAUTHBEARER: a file with the current token, re-read when asked.")


class Kafka(Section):
    """The brokers and the internal topics."""

    bootstrap_servers: list[str] = Field(min_length=1)
    prefix: str = Field(
        "tailrace",
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="First part of every internal topic, group and transactional id.",
    )
    security: Security = Security()
    partitions: int = Field(
        4, ge=1, description="N: partitions of spans, logs and decisions. Changing it needs a resize."
    )
    metric_partitions: int = Field(4, ge=1, description="M: partitions of points and samples.")
    replication_factor: int = Field(-1, description="-1: the broker's default.")
    start: str = Field(
        "latest",
        description="Where a new group begins in raw topics: latest, earliest, or a duration ago such as 15m.",
    )
    transactions: bool = Field(True, description="False only for brokers without transactions: at-least-once.")
    commit_interval: Duration = Field(1.0, description="Longest time between two transactions while records move.")
    commit_bytes: int = Field(8 << 20, ge=1, description="Output bytes that end a transaction early.")
    session_timeout: Duration = 10.0
    heartbeat_interval: Duration = 3.0
    fetch_max_bytes: int = Field(16 << 20, ge=1)
    retention: Duration = Field(
        86400.0,
        description="How long the internal topics keep records: the longest outage of a role or a sink without loss.",
    )
    dead_letter_retention: Duration = Field(7 * 86400.0, description="How long the dead-letter queue keeps records.")


class Input(Section):
    """A raw topic: what is in it."""

    topic: str
    signal: Literal["traces", "logs"]
    encoding: Literal["otlp_proto", "json"] = "otlp_proto"


class Sampling(Section):
    """When and how whole traces are decided."""

    decision_wait: Duration = Field(30.0, description="From a trace's first record to its decision, in stream time.")
    late_horizon: Duration = Field(
        600.0, description="How long late spans still find their trace's verdict, in stream time."
    )
    compat: Literal["none", "otel"] = Field("none", description="otel: the Collector's hash and latency bounds.")
    policies: list[Policy] = Field(min_length=1)
    cache_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Per worker: raw batches kept between head and tail; beyond it the tail re-reads Kafka.",
    )
    ingest_stall_limit: Duration = Field(
        300.0, description="A raw span partition without a new mark for this long no longer holds the clock."
    )


class Logs(Section):
    """What happens to logs."""

    unsampled: Literal["drop", "warn", "all"] | str = Field(
        "warn",
        description="Logs of dropped traces: drop, all, or those at or above this severity (trace, debug, info, warn, error, fatal).",
    )
    max_skew: Duration = Field(
        60.0, description="A raw log partition without a new mark for this long no longer holds decisions."
    )


class SpanMetrics(Section):
    """Calls and durations of every span, counted before sampling."""

    enabled: bool = True
    namespace: str = Field("traces_span_metrics", description="Jaeger Monitor's default.")
    dimensions: list[str] = Field(
        [], description="Span or resource attributes that become labels (dots become underscores)."
    )
    buckets_ms: list[float] = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000]


class Metrics(Section):
    span_metrics: SpanMetrics = SpanMetrics()
    interval: Duration = Field(15.0, description="One sample per series this often.")
    series_per_metric: int = Field(
        10_000,
        ge=2,
        description="Prometheus series per metric, histograms with all their buckets; new ones beyond it fold into __overflow__.",
    )


class Limits(Section):
    max_message_bytes: int = Field(
        16 << 20, ge=1, description="Larger raw messages go to the dead-letter queue undecoded."
    )
    max_span_bytes: int = Field(900_000, ge=1, description="Larger spans and log records go to the dead-letter queue.")
    max_dead_letter_bytes: int = Field(
        32 << 20, ge=1, description="Larger ones keep coordinates, hash and their first 64 KiB."
    )


class Telemetry(Section):
    host: str = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65535, description="/metrics, /healthz, /readyz; 0 picks a free port.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Config(Section):
    """The whole file."""

    kafka: Kafka
    inputs: list[Input] = Field(min_length=1)
    sampling: Sampling
    logs: Logs = Logs()
    metrics: Metrics = Metrics()
    sinks: dict[str, Sink] = {}
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
