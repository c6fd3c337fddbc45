"""Every metric that a worker exposes, in one typed list; and the three verbs that feed them.

`tailrace_` names, base units, labels bounded by configuration. docs/reference/metrics.md is generated from it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

MetricName = Literal[
    "tailrace_records_read_total",
    "tailrace_unread_records",
    "tailrace_stalled_seconds",
    "tailrace_spans_read_total",
    "tailrace_logs_read_total",
    "tailrace_metric_points_read_total",
    "tailrace_dropped_total",
    "tailrace_dead_letters_total",
    "tailrace_dead_letter_ratio",
    "tailrace_redacted_total",
    "tailrace_transactions_total",
    "tailrace_transaction_seconds",
    "tailrace_takeovers_total",
    "tailrace_traces_decided_total",
    "tailrace_policy_votes_total",
    "tailrace_policy_drops_total",
    "tailrace_policy_matches_total",
    "tailrace_policy_only_total",
    "tailrace_policy_spans_total",
    "tailrace_policy_bytes_total",
    "tailrace_policy_keys_shared_total",
    "tailrace_shadow_policy_changes_total",
    "tailrace_spans_kept_total",
    "tailrace_logs_kept_total",
    "tailrace_restores_total",
    "tailrace_restored_rows_total",
    "tailrace_head_lag_seconds",
    "tailrace_window_bytes",
    "tailrace_window_limit_bytes",
    "tailrace_tail_reads_total",
    "tailrace_tail_log_start_seconds",
    "tailrace_tail_retention_ratio",
    "tailrace_decisions_without_input_total",
    "tailrace_inputs_left_out",
    "tailrace_traces_miskeyed_total",
    "tailrace_series_active",
    "tailrace_series_budget",
    "tailrace_series_demand",
    "tailrace_label_values_active",
    "tailrace_label_values_demand",
    "tailrace_label_values_limit",
    "tailrace_label_overflow_points_total",
    "tailrace_label_offender_points",
    "tailrace_overflow_points_total",
    "tailrace_sink_items_total",
    "tailrace_sink_requests_total",
    "tailrace_sink_retries_total",
    "tailrace_sink_request_seconds",
    "tailrace_sink_stuck_seconds",
    "tailrace_ready",
    "tailrace_config_info",
    "tailrace_config_last_reload_successful",
    "tailrace_config_last_reload_success_timestamp_seconds",
    "tailrace_canary_traces_total",
    "tailrace_canary_completeness_ratio",
    "tailrace_canary_freshness_seconds",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its help text says what the number tells an operator."""

    name: MetricName
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS: tuple[Metric, ...] = (
    Metric("tailrace_records_read_total", "counter", ("role", "topic"), "Kafka records read by a role."),
    Metric(
        "tailrace_unread_records",
        "gauge",
        ("role",),
        "Records (and transaction markers) in the topics of a role behind what it has fetched, when it last did.",
    ),
    Metric(
        "tailrace_stalled_seconds",
        "gauge",
        ("role",),
        "How long the partition of a role that has stood longest has done so although it has something to do: more "
        "records than were fetched, or a commit. At watchdog.timeout the worker stops.",
    ),
    Metric("tailrace_spans_read_total", "counter", ("role",), "Spans decoded (ingest) or counted (sample)."),
    Metric("tailrace_logs_read_total", "counter", ("role",), "Log records decoded (ingest) or counted (sample)."),
    Metric("tailrace_metric_points_read_total", "counter", ("role",), "Data points of OTLP metrics decoded."),
    Metric(
        "tailrace_dropped_total",
        "counter",
        ("signal", "reason", "intentional"),
        "Rows that were not forwarded, by reason. With the reason retention records of Kafka (and markers of "
        "transactions between them), and `signal` names the topic: an internal one without kafka.prefix.",
    ),
    Metric(
        "tailrace_redacted_total",
        "counter",
        ("signal", "rule"),
        "Values masked by a preset, `blocked_values` or `blocked_key_patterns`; attributes removed by `allowed_keys`.",
    ),
    Metric(
        "tailrace_dead_letters_total",
        "counter",
        ("stage", "reason"),
        "Records written to the dead-letter queue.",
    ),
    Metric(
        "tailrace_dead_letter_ratio",
        "gauge",
        ("role", "input"),
        "Share of the records of a raw topic, or of the items of a sink, that became dead letters within "
        "limits.dead_letters.window. Beyond limits.dead_letters.max_ratio the role stops.",
    ),
    Metric(
        "tailrace_transactions_total",
        "counter",
        ("role", "outcome"),
        "Transactions; outcome committed or failed.",
    ),
    Metric(
        "tailrace_transaction_seconds",
        "histogram",
        ("role",),
        "From the first send to the end of the commit.",
    ),
    Metric("tailrace_takeovers_total", "counter", ("role",), "Partitions taken over: a new epoch, state loaded."),
    Metric("tailrace_traces_decided_total", "counter", ("verdict",), "Traces decided; verdict kept or dropped."),
    Metric("tailrace_policy_votes_total", "counter", ("policy",), "Kept traces by the policy that kept them."),
    Metric("tailrace_policy_drops_total", "counter", ("policy",), "Dropped traces by the policy that dropped them."),
    Metric(
        "tailrace_policy_matches_total",
        "counter",
        ("policy",),
        "Traces that the policy voted for, whichever was named; of a shadow without a limit of its own also those that "
        "a drop policy dropped.",
    ),
    Metric(
        "tailrace_policy_only_total",
        "counter",
        ("policy",),
        "Kept traces that no other policy voted for: what would be lost without it.",
    ),
    Metric("tailrace_policy_spans_total", "counter", ("policy",), "Spans forwarded, by the policy that is named."),
    Metric(
        "tailrace_policy_bytes_total", "counter", ("policy",), "OTLP bytes of these spans, without their resources."
    ),
    Metric(
        "tailrace_policy_keys_shared_total",
        "counter",
        ("policy",),
        "Traces whose key found no place: beyond max_keys they share one rate, beyond max_shapes none of them is kept.",
    ),
    Metric(
        "tailrace_shadow_policy_changes_total",
        "counter",
        ("policy",),
        "Traces whose outcome the shadow policy would have changed: kept instead of dropped, or the other way.",
    ),
    Metric("tailrace_spans_kept_total", "counter", (), "Spans forwarded."),
    Metric("tailrace_logs_kept_total", "counter", (), "Log records forwarded."),
    Metric(
        "tailrace_restores_total",
        "counter",
        ("trigger", "outcome"),
        "Dropped traces that were asked back, by what set it off and what came of it: restored, or why not.",
    ),
    Metric(
        "tailrace_restored_rows_total",
        "counter",
        ("signal",),
        "Spans or logs that were counted as dropped and forwarded after all, with a restored trace.",
    ),
    Metric(
        "tailrace_head_lag_seconds",
        "gauge",
        ("partition",),
        "Append time of the newest record minus the sample clock: scale on this. While no ingest runs it stays at its "
        "last value, whatever waits in raw topics: the alert RoleMissing sees that, and the lag of the group "
        "tailrace.ingest.",
    ),
    Metric("tailrace_window_bytes", "gauge", ("partition",), "Bytes of raw batches cached between tail and head."),
    Metric(
        "tailrace_window_limit_bytes",
        "gauge",
        ("partition",),
        "The partition's part of sampling.cache_bytes: what does not fit is read from Kafka again.",
    ),
    Metric(
        "tailrace_tail_reads_total",
        "counter",
        ("partition",),
        "Records the tail had to read from Kafka again because the cache was full.",
    ),
    Metric(
        "tailrace_tail_log_start_seconds",
        "gauge",
        ("partition",),
        "Append time of what the tail stands before, minus that of the oldest record that Kafka has; of spans and logs "
        "the smaller.",
    ),
    Metric(
        "tailrace_tail_retention_ratio",
        "gauge",
        ("partition",),
        "Age of what the tail stands before, as a share of the topic's retention; at 1 Kafka may delete it; "
        "of spans and logs the larger.",
    ),
    Metric(
        "tailrace_decisions_without_input_total",
        "counter",
        ("topic",),
        "Raw partitions left out of the clock because they stalled.",
    ),
    Metric(
        "tailrace_inputs_left_out",
        "gauge",
        ("topic", "partition"),
        "Raw partitions of the topic that are left out of the clock of the partition now.",
    ),
    Metric(
        "tailrace_traces_miskeyed_total",
        "counter",
        (),
        "With `regroup: never`, of one in 1,024 trace ids: those found on two partitions. Their producers do not key "
        "by trace id (docs/how-to/without-ingest.md).",
    ),
    Metric("tailrace_series_active", "gauge", ("metric",), "Live Prometheus series."),
    Metric("tailrace_series_budget", "gauge", ("metric",), "Series that the metric may have."),
    Metric("tailrace_series_demand", "gauge", ("metric",), "Series in use or refused lately, estimated."),
    Metric(
        "tailrace_label_values_active",
        "gauge",
        ("metric", "label"),
        "Distinct values of a label in use, of the labels that fold and of the fullest.",
    ),
    Metric(
        "tailrace_label_values_demand",
        "gauge",
        ("metric", "label"),
        "Distinct values in use or refused lately, estimated: the limit that would have been needed.",
    ),
    Metric("tailrace_label_values_limit", "gauge", ("metric", "label"), "Distinct values that the label may have."),
    Metric(
        "tailrace_label_overflow_points_total",
        "counter",
        ("metric", "label"),
        "Observations whose value of the label became __overflow__ because the label was at its limit.",
    ),
    Metric(
        "tailrace_label_offender_points",
        "gauge",
        ("metric", "label", "value"),
        "The least that a refused value was counted lately: of a label the 3 values that were counted most, of a "
        "partition at most 100 values.",
    ),
    Metric("tailrace_overflow_points_total", "counter", ("metric",), "Observations counted under __overflow__."),
    Metric(
        "tailrace_sink_items_total",
        "counter",
        ("sink", "outcome"),
        "Items by outcome: accepted, already_delivered, refused.",
    ),
    Metric(
        "tailrace_sink_requests_total",
        "counter",
        ("sink", "outcome"),
        "Requests by outcome: accepted, retried, refused. Of one that is refused as a whole each answer that refuses "
        "it or a part of it counts, as it comes.",
    ),
    Metric(
        "tailrace_sink_retries_total",
        "counter",
        ("sink", "reason"),
        "Requests that had to be sent again, by status or error; of the reason dead_letters: writes to the dead-letter "
        "queue.",
    ),
    Metric("tailrace_sink_request_seconds", "histogram", ("sink",), "Time of one request, answer included."),
    Metric(
        "tailrace_sink_stuck_seconds",
        "gauge",
        ("sink", "topic"),
        "How long the offset of the partition that has stood longest has done so although something there is not "
        "delivered, whichever workers had it; 0 while nothing waits.",
    ),
    Metric(
        "tailrace_ready",
        "gauge",
        ("role",),
        "1 while the role holds its partitions and reaches what it needs: brokers within `kafka.session_timeout`.",
    ),
    Metric(
        "tailrace_config_info",
        "gauge",
        ("prefix", "hash", "version"),
        "Always 1: what this worker runs. `hash` is of the whole configuration but telemetry and kafka.client_rack, "
        "which may differ between workers of one prefix.",
    ),
    Metric(
        "tailrace_config_last_reload_successful",
        "gauge",
        (),
        "0 while the configuration file says something that this worker has refused; it goes on with what it had.",
    ),
    Metric(
        "tailrace_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "When this worker last began to run what its configuration file says.",
    ),
    Metric(
        "tailrace_canary_traces_total",
        "counter",
        ("backend", "outcome"),
        "Of `tailrace canary`: its traces by what became of them: complete, incomplete, unreachable, unsent.",
    ),
    Metric(
        "tailrace_canary_completeness_ratio",
        "gauge",
        ("backend",),
        "Of `tailrace canary`: share of its last settled trace that the backend has.",
    ),
    Metric(
        "tailrace_canary_freshness_seconds",
        "gauge",
        ("backend",),
        "Of `tailrace canary`: from sending to being complete, of the last trace that was.",
    ),
)

REGISTRY = CollectorRegistry()
# process_resident_memory_bytes, process_cpu_seconds_total, process_start_time_seconds, ...: Linux only, else nothing.
ProcessCollector(registry=REGISTRY)
_KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_labels = {m.name: m.labels for m in METRICS}
_instruments = {m.name: _KINDS[m.kind](m.name, m.help, m.labels, registry=REGISTRY) for m in METRICS}
_told = True


def tell(told: bool) -> None:
    """Whether what is asked of the functions below is counted from now on."""
    global _told
    _told = told


def count(name: MetricName, amount: float = 1, **labels: str) -> None:
    """Add to a counter."""
    if _told:
        instrument = _instruments[name]
        (instrument.labels(**labels) if labels else instrument).inc(amount)


def gauge(name: MetricName, value: float, /, **labels: str) -> None:
    """Set a gauge."""
    if _told:
        instrument = _instruments[name]
        (instrument.labels(**labels) if labels else instrument).set(value)


def observe(name: MetricName, seconds: float, **labels: str) -> None:
    """Add one observation to a histogram."""
    if _told:
        instrument = _instruments[name]
        (instrument.labels(**labels) if labels else instrument).observe(seconds)


def remove(name: MetricName, **labels: str) -> None:
    """Tell a gauge or counter no more, if it was told."""
    with contextlib.suppress(KeyError):
        _instruments[name].remove(*(labels[label] for label in _labels[name]))
