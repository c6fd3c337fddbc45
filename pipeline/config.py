"""The one configuration file: what each key means, its default and its rule.

Field names follow the OpenTelemetry Collector, Prometheus, Kafka and Elasticsearch. Unknown keys are refused.
Durations are strings such as `500ms`, `30s`, `15m`, `2h`; in code they are seconds (float). Rules that need two keys
live in the section that holds both, or in `Config`, and name the key to change (`refuse`).
docs/reference/configuration.md is generated from these models; pipeline/configuration/config_file.py reads the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.canary.settings import Canary
from pipeline.watching.settings import Telemetry
from processors.metric_points import TO_OTLP
from processors.redaction import Redaction
from processors.regroup import AUTO, ENCODINGS
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policies
from processors.span_metrics import IDENTITY
from schemas.errors import ConfigError
from schemas.kafka_client import Addresses, Security, TopicName
from schemas.prometheus_names import Strategy
from schemas.settings import Broken, Duration, Section, format_duration, parse_duration, refuse, repeated
from sinks.settings import Sink, sink_kind, sink_rules

# What a histogram's label set costs beside its bounds: the +Inf bucket, the sum and the count.
HISTOGRAM_EXTRA_SERIES = 3
# Kafka's limit is 249 characters; the longest of our suffixes is `.untraced.logs`.
_PREFIX_LENGTH = 200
MARKS_PER_STALL = 4  # at least, while a raw partition is read: one that comes late must not look like none
MOST_RECORD_BYTES = 35 << 20  # a row or a dead letter; what goes with it fits into commit.MAX_REQUEST_BYTES


Positive = Annotated[Duration, Field(gt=0)]
Milliseconds = Annotated[Duration, Field(ge=0.001)]
Wait = Annotated[Duration, Field(ge=0)]


class Kafka(Section):
    """The brokers and the internal topics."""

    bootstrap_servers: Addresses = Field(
        min_length=1, description="`host:port` of some brokers; a list, or one text with commas."
    )
    prefix: str = Field(
        "tailrace",
        pattern=r"^[a-zA-Z0-9_-][a-zA-Z0-9._-]*$",
        max_length=_PREFIX_LENGTH,
        description="First part of every internal topic, group and transactional id.",
    )
    security: Security = Field(Security(), description="TLS and SASL.")
    partitions: int = Field(
        4, ge=1, description="N: partitions of spans, logs and decisions. `tailrace topics resize` changes it."
    )
    metric_partitions: int = Field(4, ge=1, description="M: partitions of points and samples.")
    replication_factor: int = Field(
        -1,
        ge=-1,
        description="Of the internal topics. -1: the broker's default. With 3 or more they are made with "
        "min.insync.replicas=2.",
    )
    start: str = Field(
        "latest",
        description="Where a new group begins in raw topics: latest, earliest, or a duration ago such as 15m. A sink "
        "that is new begins with the oldest kept record, whatever this says (docs/how-to/sinks.md).",
    )
    transactions: bool = Field(True, description="False only for brokers without transactions: at-least-once.")
    commit_interval: Positive = Field(
        1.0,
        description="Longest time between two transactions while records move; `inputs[].commit_interval` says how "
        "long it may be. Sinks commit as soon as something is delivered, but not more than four times a second.",
    )
    commit_bytes: int = Field(
        8 << 20,
        ge=1,
        description="Output bytes that end a transaction early; fewer while transactions fail or are slow.",
    )
    session_timeout: Positive = Field(10.0, description="A worker silent for this long loses its partitions.")
    heartbeat_interval: Positive = Field(3.0, description="At most a third of `session_timeout`.")
    fetch_max_bytes: int = Field(16 << 20, ge=1, description="Most bytes of one answer of a broker.")
    client_rack: str | None = Field(
        None,
        description="The `broker.rack` of this worker, its zone: it reads from a replica there (KIP-392).",
    )
    retention: Positive = Field(
        86400.0,
        description="How long the internal topics keep records: the longest outage of a role or a sink without loss.",
    )
    dead_letter_retention: Positive = Field(7 * 86400.0, description="How long the dead-letter queue keeps records.")

    @field_validator("start")
    @classmethod
    def _start(cls, start: str) -> str:
        return parse_start(start)

    @field_validator("replication_factor")
    @classmethod
    def _some_replica(cls, factor: int) -> int:
        if factor == 0:
            raise ValueError("must be at least 1, or -1 for the broker's default")
        return factor

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> Self:
        if self.heartbeat_interval * 3 > self.session_timeout:
            rule = f"must be at most a third of session_timeout ({format_duration(self.session_timeout)})"
            refuse([(("heartbeat_interval",), rule)])
        return self


def parse_start(start: str) -> str:
    """The same text if it says where to begin: latest, earliest, or a duration ago. Raises ValueError otherwise."""
    if start not in ("latest", "earliest"):
        try:
            parse_duration(start)
        except ValueError:
            raise ValueError(f"{start!r} is neither latest nor earliest nor a duration ago such as 15m") from None
    return start


INPUT_ENCODINGS = {**ENCODINGS, "metrics": (*TO_OTLP, AUTO)}
"""What a raw topic of each signal may be encoded in."""


class Input(Section):
    """A raw topic: what is in it."""

    topic: TopicName = Field(description="Its name; each topic once.")
    signal: Literal["traces", "logs", "metrics"] = Field(description="What its messages hold.")
    encoding: Literal["otlp_proto", "otlp_json", "jaeger_proto", "jaeger_json", "json", "text", "auto"] = Field(
        "otlp_proto",
        description="otlp_proto, otlp_json, jaeger_proto and jaeger_json (traces only) are those of the Collector's "
        "kafkaexporter. Logs only: json: a JSON object, an array of them, or lines of JSON; text: one log. "
        "auto guesses for every message by its first bytes (schemas/formats/detect.py has the rules): only for topics "
        "with mixed producers.",
    )
    commit_interval: Positive | None = Field(
        None,
        description="Longest time that ingest keeps what it has read here; default: `kafka.commit_interval`. At most a "
        "quarter of what decisions wait for it: `sampling.ingest_stall_limit`, for logs `logs.max_skew`.",
    )

    @model_validator(mode="after")
    def _encoding_fits(self) -> Self:
        known = INPUT_ENCODINGS[self.signal]
        if self.encoding not in known:
            refuse([(("encoding",), f"must be one of {', '.join(known)} for signal: {self.signal}")])
        return self


class LateEvidence(Section):
    """What comes after the verdict of a dropped trace and brings it back."""

    enabled: bool = Field(
        False,
        description="True: a late span that failed, or a late log of `min_severity` or above, restores its trace if it "
        "was dropped, as `tailrace restore` does, within `late_horizon` of the verdict.",
    )
    min_severity: Literal["trace", "debug", "info", "warn", "error", "fatal"] = Field(
        "error", description="The lowest severity of such a log."
    )
    traces_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Per partition: traces that may be read again, ten seconds' worth at once. More stay dropped."
    )
    max_read_bytes: int = Field(
        256 << 20, ge=1, description="Bytes of the log that may be read for one trace; a trace beyond stays dropped."
    )


class Sampling(Section):
    """When and how whole traces are decided."""

    decision_wait: Positive = Field(30.0, description="From a trace's first record to its decision, in stream time.")
    decision_wait_after_root_received: Wait = Field(
        0.0,
        description="From a trace's root span (one without a parent) to its decision, if that is earlier. 0s: no such.",
    )
    late_horizon: Positive = Field(
        600.0,
        description="How long late spans still find their trace's verdict, in stream time; more than `decision_wait`. "
        "Decisions must be kept so much longer than spans and logs: raise their `retention.ms` before this.",
    )
    compat: Literal["none", "otel"] = Field(
        "none", description="otel: decide as the Collector 0.155, defects included."
    )
    policies: Policies = Field(
        description="In the Collector's form. All vote; a trace is kept if one keeps it, and named after the first."
    )
    cache_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Per worker: what is kept between head and tail; with `regroup: never` a quarter as it is, the "
        "rest compressed. Beyond it the tail re-reads Kafka, an eighth of it (1 to 8 MiB of a partition and topic) at "
        "a time.",
    )
    late_evidence: LateEvidence = Field(LateEvidence(), description="Late errors that restore dropped traces.")
    commit_interval: Positive | None = Field(
        None, description="Longest time between two transactions of `sample`; default: `kafka.commit_interval`."
    )
    ingest_stall_limit: Positive = Field(
        300.0, description="A raw span partition without a new mark for this long no longer holds the clock."
    )

    @model_validator(mode="after")
    def _waits_in_order(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        if self.late_horizon <= self.decision_wait:
            yield ("late_horizon",), f"must be longer than decision_wait ({format_duration(self.decision_wait)})"
        if self.decision_wait_after_root_received >= self.decision_wait:
            rule = f"must be shorter than decision_wait ({format_duration(self.decision_wait)})"
            yield ("decision_wait_after_root_received",), f"{rule}, or it never decides anything earlier"
        try:
            compile_policies(self.policies, compat=self.compat)
        except ValueError as error:  # of all of them together
            yield ("policies",), str(error)


class Logs(Section):
    """What happens to logs."""

    unsampled: Literal["drop", "all", "trace", "debug", "info", "warn", "error", "fatal"] = Field(
        "warn", description="Logs of dropped traces: none of them, all, or those at or above this severity."
    )
    max_skew: Positive = Field(
        60.0, description="A raw log partition without a new mark for this long no longer holds decisions."
    )


class SpanMetrics(Section):
    """Calls and durations of every span, counted before sampling."""

    enabled: bool = Field(True, description="False: spans are not counted.")
    namespace: str = Field(
        "traces_span_metrics",
        pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$",
        description="First part of both metric names. The default is what Jaeger's Monitor tab queries.",
    )
    dimensions: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        [], description="Span or resource attributes that become labels (dots become underscores)."
    )
    buckets_ms: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000],
        min_length=1,
        description="Upper bounds of the duration histogram in milliseconds, ascending; +Inf is added.",
    )

    @model_validator(mode="after")
    def _labels_and_bounds(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        labels: dict[str, str] = {}
        for i, dimension in enumerate(self.dimensions):
            label = re.sub(r"^(?=[0-9])|[^a-zA-Z0-9_]", "_", dimension)
            if label == "le" or label.startswith("__"):
                yield ("dimensions", i), f"gives the label {label}, which Prometheus keeps for itself"
            elif label in IDENTITY:  # Jaeger's Monitor tab queries them
                yield ("dimensions", i), f"every span metric has the label {label} already"
            elif label in labels:
                yield ("dimensions", i), f"gives the label {label}, as {labels[label]} does"
            labels.setdefault(label, dimension)
        for i, (lower, upper) in enumerate(zip(self.buckets_ms, self.buckets_ms[1:], strict=False)):
            if lower >= upper:
                yield ("buckets_ms", i + 1), f"must be greater than the bound before it ({lower:g})"


class MetricLimit(Section):
    """A budget of one metric, or of one label, instead of the defaults."""

    metric: str | None = Field(
        None, min_length=1, description="Name of the metric; none: this label of every metric without its own entry."
    )
    label: str | None = Field(None, min_length=1, description="Name of the label whose distinct `values` are limited.")
    values: int | None = Field(None, ge=0, description="Distinct values of the label; 0: all of them fold.")
    series: int | None = Field(None, ge=1, description="Prometheus series of the metric.")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        if (self.values is None) == (self.series is None):
            yield (), "takes either `label` and `values`, or `metric` and `series`"
        elif self.values is not None and self.label is None:
            yield ("label",), "is required by `values`"
        elif self.series is not None and self.label is not None:
            yield ("label",), "does not go with `series`, which is a budget of the whole metric"
        elif self.series is not None and self.metric is None:
            yield ("metric",), "is required by `series`; the default of all metrics is metrics.series_per_metric"


class OtlpMetrics(Section):
    """How OTLP metrics become series of Prometheus."""

    translation_strategy: Strategy = Field(
        "UnderscoreEscapingWithSuffixes",
        description="Prometheus' own setting for OTLP names: whether unit and type become suffixes, and whether what "
        "older Prometheus did not allow becomes underscores. The others need Prometheus 3 behind the sink.",
    )
    scope_labels: bool = Field(
        True, description="The instrumentation scope as labels `otel_scope_name`, `otel_scope_version`, ..."
    )
    promote_resource_attributes: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        [], description="Resource attributes that become labels of every series; the rest are on `target_info`."
    )
    stale_after: Milliseconds = Field(
        300.0,
        description="A gauge, a sum that may fall or a summary without a new point for this long ends; longer than "
        "the slowest exporter's interval. A sum of deltas that may fall ends after `idle_timeout`, as a counter does.",
    )
    sources_per_metric: int = Field(
        50_000,
        ge=1,
        description="Cumulative streams of a metric whose newest point is remembered; points of further ones are "
        "dropped and counted.",
    )
    names_per_partition: int = Field(
        10_000,
        ge=1,
        description="Metrics of a partition of points (`kafka.metric_partitions`); those that are there stay, points "
        "of further ones are dropped and counted.",
    )


class Metrics(Section):
    """Series for Prometheus and how many of them there may be."""

    otlp: OtlpMetrics = Field(OtlpMetrics(), description="Names, labels and sources of OTLP metrics.")
    span_metrics: SpanMetrics = Field(SpanMetrics(), description="Calls and durations of spans.")
    interval: Milliseconds = Field(
        15.0,
        description="One sample per series this often. With fewer than two a minute the alert HighErrorRate needs "
        "other windows (docs/runbooks/HighErrorRate.md).",
    )
    series_per_metric: int = Field(
        10_000,
        ge=2,
        description="Prometheus series per metric, histograms with all their buckets; new ones fold into __overflow__.",
    )

    values_per_label: int = Field(
        1_000,
        ge=0,
        description="Distinct values per label of a metric; new ones become __overflow__ there.",
    )
    limits: list[MetricLimit] = Field([], description="Budgets of single metrics and labels.")
    idle_timeout: Wait = Field(
        3600.0, description="A series that was not counted for this long ends, and its place is free; 0s: never."
    )

    @model_validator(mode="after")
    def _limits_and_timeout(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        if 0 < self.idle_timeout < 2 * self.interval:
            yield ("idle_timeout",), f"must be at least twice the interval ({format_duration(self.interval)}), or 0s"
        seen: set[tuple[str | None, str | None]] = set()
        for i, limit in enumerate(self.limits):
            if (limit.metric, limit.label) in seen:
                yield ("limits", i), "is a second limit of the same metric and label"
            seen.add((limit.metric, limit.label))

    @model_validator(mode="after")
    def _room_for_overflow(self) -> Self:
        cost = len(self.span_metrics.buckets_ms) + HISTOGRAM_EXTRA_SERIES
        rule = (
            f"must be at least {cost}: what one label set of the duration histogram takes ({cost - 3} buckets_ms + 3)"
        )
        duration = f"{self.span_metrics.namespace}_duration_milliseconds"
        own = [(i, limit.series) for i, limit in enumerate(self.limits) if limit.metric == duration and limit.series]
        broken: list[Broken] = [(("limits", i, "series"), rule) for i, series in own if series < cost]
        if self.series_per_metric < cost:
            broken.append((("series_per_metric",), rule))
        refuse(broken)
        return self


class DeadLetters(Section):
    """When a role stops rather than send everything that it reads to the dead-letter queue."""

    max_ratio: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the records of a raw topic (of the items of a sink) that may become dead letters within "
        "the window. Beyond it the role stops, exit code 1, and has acknowledged none of those that were too many. "
        "1: it never stops.",
    )
    min_records: int = Field(1000, ge=1, description="Records within the window before the ratio says anything.")
    window: Positive = Field(60.0, description="How far back a worker counts.")


class Limits(Section):
    """Sizes with a stated outcome; nothing larger is dropped without a count and a reason."""

    max_message_bytes: int = Field(
        16 << 20, ge=1, description="Larger raw messages go to the dead-letter queue undecoded."
    )
    max_batch_bytes: int = Field(
        32 << 20,
        ge=1,
        le=1 << 30,
        description="Record batches of raw topics that become more when they are decompressed go to the dead-letter "
        "queue as they are, compressed; at least `max_message_bytes`.",
    )
    max_batch_ratio: FiniteFloat = Field(
        200,
        gt=1,
        description="So do batches that become more than `max_message_bytes` and more than so many times what they "
        "were. Either way no more than the limit is ever decompressed.",
    )
    max_batch_records: int = Field(
        100_000,
        ge=1,
        description="So do batches of more records, compressed or not: however small, each costs memory of its own. "
        "Producers send at most 10,000 in one unless they are told otherwise (`batch.num.messages` of librdkafka).",
    )
    max_span_bytes: int = Field(
        900_000,
        ge=1,
        le=MOST_RECORD_BYTES,
        description="Larger spans and log records, resource and scope included, go to the dead-letter queue.",
    )
    max_dead_letter_bytes: int = Field(
        32 << 20, ge=1, le=MOST_RECORD_BYTES, description="Larger ones keep coordinates, hash and their first 64 KiB."
    )
    dead_letters: DeadLetters = Field(
        DeadLetters(), description="When a role stops rather than send everything to the dead-letter queue."
    )

    @model_validator(mode="after")
    def _batches_hold_a_message(self) -> Self:
        if self.max_batch_bytes < self.max_message_bytes:
            refuse([(("max_batch_bytes",), f"must be at least max_message_bytes ({self.max_message_bytes})")])
        return self


class Watchdog(Section):
    """When a worker that does not get on stops, so that another one can."""

    timeout: Annotated[Duration, Field(ge=0)] = Field(
        60.0,
        description="A partition with records that are not fetched, a commit or a takeover that does not get on, or an "
        "event loop that stands for this long: the worker says where it stands and exits with 1. Brokers or "
        "destinations that are away are no such reason. 0s: never.",
    )


class Config(Section):
    """One section for each part; kafka, inputs and sampling must be there."""

    kafka: Kafka = Field(description="The brokers and the internal topics.")
    regroup: Literal["always", "never"] = Field(
        "always",
        description="never: `sample` reads the raw topics itself and there is no `ingest` between (but for metrics). "
        "One topic of traces and at most one of logs, both otlp_proto and with `kafka.partitions` partitions, keyed by "
        "trace id; or with `kafka.partitions: 1`, keyed or not, all of whose partitions one worker reads "
        "(docs/how-to/without-ingest.md).",
    )
    inputs: list[Input] = Field(min_length=1, description="The raw topics.")
    sampling: Sampling = Field(description="When and how whole traces are decided.")
    logs: Logs = Field(Logs(), description="What happens to logs.")
    metrics: Metrics = Field(Metrics(), description="Series for Prometheus.")
    sinks: dict[str, Sink] = Field(
        {}, description="Destinations by name: jaeger, otlp, elasticsearch, prometheus, kafka, or one with /NAME."
    )
    limits: Limits = Field(Limits(), description="Sizes with a stated outcome.")
    redaction: Redaction | None = Field(
        None, description="What is taken out of telemetry before anything is written; unset: nothing."
    )
    watchdog: Watchdog = Field(Watchdog(), description="When a worker that does not get on stops.")
    telemetry: Telemetry = Field(Telemetry(), description="What a worker says about itself.")
    canary: Canary | None = Field(None, description="What `tailrace canary` sends and looks for.")

    @field_validator("inputs")
    @classmethod
    def _raw_topics(cls, inputs: list[Input], info: ValidationInfo) -> list[Input]:
        refuse(_input_rules(inputs, info.data.get("kafka")))
        if info.data.get("regroup") == "never":
            refuse(_direct_rules(inputs))
        return inputs

    @field_validator("sampling")
    @classmethod
    def _window_is_retained(cls, sampling: Sampling, info: ValidationInfo) -> Sampling:
        kafka = info.data.get("kafka")
        if kafka is not None and sampling.decision_wait * 2 > kafka.retention:
            rule = f"must be at most half of kafka.retention ({format_duration(kafka.retention)})"
            refuse([(("decision_wait",), f"{rule}: undecided spans wait in Kafka")])
        return sampling

    @property
    def traced(self) -> list[str]:
        """The raw topics of traces and logs: those whose marks the sample clock waits for."""
        return [item.topic for item in self.inputs if item.signal != "metrics"]

    @property
    def measured(self) -> list[str]:
        """The raw topics of metrics."""
        return [item.topic for item in self.inputs if item.signal == "metrics"]

    @property
    def ingested(self) -> list[str]:
        """The raw topics that `ingest` reads."""
        return self.measured if self.regroup == "never" else [item.topic for item in self.inputs]

    @property
    def needs_ingest(self) -> list[Broken]:
        """Why `regroup: never` could not read these inputs, key by key; empty: it could."""
        return [(("inputs", *key), rule) for key, rule in _direct_rules(self.inputs)]

    @property
    def reads_whole_topics(self) -> bool:
        """Whether one window of `sample` reads all partitions of the raw topics, keyed or not."""
        return self.regroup == "never" and self.kafka.partitions == 1

    def commit_interval(self, source: Input) -> float:
        """Seconds between two transactions with what is read from an input."""
        return source.commit_interval or self.kafka.commit_interval

    def stall_limit(self, source: Input) -> float:
        """Seconds after which a raw partition of an input that says nothing holds no clock."""
        return self.sampling.ingest_stall_limit if source.signal == "traces" else self.logs.max_skew

    @model_validator(mode="after")
    def _marks_come_in_time(self) -> Self:
        refuse(dict.fromkeys(self._late_marks()))
        return self

    def _late_marks(self) -> Iterator[Broken]:
        """Inputs that would look stalled while they are read: a busy one is marked when it is committed."""
        for i, source in enumerate(self.inputs if self.regroup == "always" else []):
            interval, stall = self.commit_interval(source), self.stall_limit(source)
            if source.signal == "metrics" or interval * MARKS_PER_STALL <= stall:
                continue
            limit = ("sampling", "ingest_stall_limit") if source.signal == "traces" else ("logs", "max_skew")
            why = "or decisions do not wait for what is read meanwhile"
            if source.commit_interval is None and "commit_interval" not in self.kafka.model_fields_set:
                yield limit, f"must be at least four times kafka.commit_interval ({interval:g}s), {why}"
                continue
            path = ("kafka", "commit_interval") if source.commit_interval is None else ("inputs", i, "commit_interval")
            yield path, f"must be at most a quarter of {'.'.join(limit)} ({stall:g}s), {why}"

    def raw_topic(self, signal: str) -> str | None:
        """The first raw topic of a signal; with `regroup: never` its only one."""
        return next((item.topic for item in self.inputs if item.signal == signal), None)

    @field_validator("canary")
    @classmethod
    def _canary_waits(cls, canary: Canary | None, info: ValidationInfo) -> Canary | None:
        sampling = info.data.get("sampling")
        if canary and canary.timeout and sampling and canary.timeout <= sampling.decision_wait:
            rule = f"must be longer than sampling.decision_wait ({format_duration(sampling.decision_wait)})"
            refuse([(("timeout",), rule)])
        return canary

    @field_validator("canary")
    @classmethod
    def _strangers_need_a_token(cls, canary: Canary | None, info: ValidationInfo) -> Canary | None:
        telemetry = info.data.get("telemetry")
        if canary and telemetry and (rule := telemetry.missing_token(canary.host)):
            refuse([(("host",), f"needs telemetry.token, which {rule}")])
        return canary

    @field_validator("sinks")
    @classmethod
    def _destinations(cls, sinks: dict[str, Sink], info: ValidationInfo) -> dict[str, Sink]:
        refuse(_circles(sinks, info.data.get("kafka"), info.data.get("inputs") or []))
        refuse(((name, *path), rule) for name, sink in sinks.items() for path, rule in sink_rules(name, sink))
        refuse(_templates(sinks))
        return sinks


def with_live(config: Config) -> Config:
    """The same with the live page on. Raises ConfigError where that needs more than a flag."""
    telemetry = config.telemetry
    if rule := telemetry.missing_token(telemetry.host, live=True):
        raise ConfigError(f"--live: telemetry.token {rule}")
    live = telemetry.live.model_copy(update={"enabled": True})
    return config.model_copy(update={"telemetry": telemetry.model_copy(update={"live": live})})


def _templates(sinks: dict[str, Sink]) -> Iterator[Broken]:
    """Sinks that would install one index template over and over, each with its own settings."""
    for (one, first), (other, second) in combinations(sinks.items(), 2):
        alike = sink_kind(one) == sink_kind(other) == "elasticsearch" and first.dataset == second.dataset
        if alike and first.manage_template and second.manage_template and {*first.urls} & {*second.urls}:
            for key in ("mapping", "lifecycle"):
                if getattr(first, key) != getattr(second, key):
                    text = f"differs from that of {one}: the template of logs-{first.dataset}-* has one; set a dataset"
                    yield (other, key), text


def _input_rules(inputs: list[Input], kafka: Kafka | None) -> Iterator[Broken]:
    yield from same_topics((i, item.topic) for i, item in enumerate(inputs))
    for i, item in enumerate(inputs):
        if kafka is not None and item.topic.startswith(f"{kafka.prefix}."):
            yield (i, "topic"), f"names with {kafka.prefix}. in front belong to the internal topics (kafka.prefix)"


def same_topics(topics: Iterable[tuple[int, str]]) -> Iterator[Broken]:
    """Which topics of inputs, by their places, are listed before."""
    for i, topic, other in repeated(topics):
        yield (i, "topic"), f"{topic} is listed already, as inputs[{other}]"


def _direct_rules(inputs: list[Input]) -> Iterator[Broken]:
    """What `regroup: never` asks of the inputs."""
    for signal in ("traces", "logs"):
        places = [i for i, item in enumerate(inputs) if item.signal == signal]
        for i in places[1:]:
            yield (i, "signal"), f"regroup: never reads one topic of {signal}, and that is inputs[{places[0]}]"
        if signal == "traces" and not places:
            yield (), "regroup: never needs a topic with signal: traces"
        for i in places:
            if inputs[i].encoding != "otlp_proto":
                rule = f"regroup: never reads otlp_proto alone; {inputs[i].encoding} needs ingest (regroup: always)"
                yield (i, "encoding"), rule


def _circles(sinks: dict[str, Sink], kafka: Kafka | None, inputs: list[Input]) -> Iterator[Broken]:
    """Topics of sinks that this pipeline reads itself: kept spans would go round for ever."""
    raw = {item.topic for item in inputs}
    for name, sink in sinks.items():
        if kafka is None or not set(sink.bootstrap_servers) & set(kafka.bootstrap_servers):
            continue
        if sink.topic in raw:
            yield (name, "topic"), f"{sink.topic} is one of the inputs: kept spans would come back as new ones"
        if sink.topic.startswith(f"{kafka.prefix}."):
            yield (name, "topic"), f"names with {kafka.prefix}. in front belong to the internal topics (kafka.prefix)"
