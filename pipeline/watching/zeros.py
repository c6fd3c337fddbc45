"""The counters of a worker begin at zero, with every label set that is known before anything happens.

A counter that appears with its first event is invisible to `increase()`, which needs a sample before it; and a panel of
a dashboard has no data until something goes wrong. So what a role can count is told from the start. Absent until they
happen: the statuses of a destination (`tailrace_sink_retries_total` begins with `no_answer` and `dead_letters`) and
metric names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka import expired
from pipeline.roles import Role, diagram
from pipeline.telemetry import MetricName
from processors.redaction import rules
from processors.sampling.policies import Policy
from processors.sampling.restore import BY_HAND, TRIGGERS, Outcome
from schemas.reasons import Reason
from sinks.contract import DEAD_LETTERS, NO_ANSWER

Zero = tuple[MetricName, dict[str, str]]
SINK_REASONS = (Reason.MALFORMED, Reason.REFUSED_BY_SINK)


def begin(config: Config, roles: Collection[str]) -> None:
    """Tell the counters of these roles, which have counted nothing."""
    for name, labels in zeros(config, roles):
        telemetry.count(name, 0, **labels)


def zeros(config: Config, roles: Collection[str]) -> Iterator[Zero]:
    """The counters of these roles and their label sets, in the order of the data's way."""
    for role in diagram(config):
        if role.name not in roles:
            continue
        yield "tailrace_takeovers_total", {"role": role.name}
        for topic in role.reads:
            yield "tailrace_records_read_total", {"role": role.name, "topic": topic}
            yield "tailrace_dropped_total", expired.labels(config.kafka.prefix, topic)
        if role.name.startswith("sink."):
            yield from _sink(role)
            continue
        for outcome in ("committed", "failed"):
            yield "tailrace_transactions_total", {"role": role.name, "outcome": outcome}
        if role.name == "ingest":
            yield from _ingest(config)
        elif role.name == "sample":
            yield from _sample(config)
        else:
            for reason in (Reason.OVER_LIMIT, Reason.TOO_MANY_METRICS, Reason.SUPERSEDED, Reason.START_UNKNOWN):
                dropped = {"signal": "metrics", "reason": reason.value, "intentional": "true"}
                yield "tailrace_dropped_total", dropped
            yield "tailrace_dead_letters_total", {"stage": role.name, "reason": Reason.NAME_TAKEN.value}


def _ingest(config: Config) -> Iterator[Zero]:
    yield "tailrace_spans_read_total", {"role": "ingest"}
    yield "tailrace_logs_read_total", {"role": "ingest"}
    yield "tailrace_metric_points_read_total", {"role": "ingest"}
    yield from _undecodable("ingest")
    yield from _redacted(config, config.ingested)


def _sample(config: Config) -> Iterator[Zero]:
    yield "tailrace_spans_read_total", {"role": "sample"}
    for verdict in ("kept", "dropped"):
        yield "tailrace_traces_decided_total", {"verdict": verdict}
    for policy in config.sampling.policies:
        for name in _policy_counters(policy):
            yield name, {"policy": policy.name}
    for signal, reason in (("spans", Reason.NOT_SAMPLED), ("logs", Reason.LOG_OF_DROPPED_TRACE)):
        yield "tailrace_dropped_total", {"signal": signal, "reason": reason.value, "intentional": "true"}
        yield "tailrace_restored_rows_total", {"signal": signal}
    for trigger in TRIGGERS if config.sampling.late_evidence.enabled else (BY_HAND,):
        for outcome in Outcome:
            yield "tailrace_restores_total", {"trigger": trigger, "outcome": outcome.value}
    if config.regroup == "never":
        yield "tailrace_logs_read_total", {"role": "sample"}
        yield from _undecodable("sample")
        yield from _redacted(config, config.traced)
    for topic in config.traced:
        yield "tailrace_decisions_without_input_total", {"topic": topic}


def _policy_counters(policy: Policy) -> tuple[MetricName, ...]:
    if policy.shadow:
        return "tailrace_policy_matches_total", "tailrace_shadow_policy_changes_total"
    if policy.type == "drop":
        return ("tailrace_policy_drops_total",)
    return (
        "tailrace_policy_votes_total",
        "tailrace_policy_matches_total",
        "tailrace_policy_only_total",
        "tailrace_policy_spans_total",
        "tailrace_policy_bytes_total",
        *(("tailrace_policy_keys_shared_total",) if policy.type in ("dynamic", "throughput", "rare") else ()),
    )


def _sink(role: Role) -> Iterator[Zero]:
    sink = role.name.removeprefix("sink.")
    for outcome in ("accepted", "already_delivered", "refused"):
        yield "tailrace_sink_items_total", {"sink": sink, "outcome": outcome}
    for outcome in ("accepted", "retried", "refused"):
        yield "tailrace_sink_requests_total", {"sink": sink, "outcome": outcome}
    for reason in (NO_ANSWER, DEAD_LETTERS):
        yield "tailrace_sink_retries_total", {"sink": sink, "reason": reason}
    for why in SINK_REASONS:
        yield "tailrace_dead_letters_total", {"stage": role.name, "reason": why.value}


def _undecodable(stage: str) -> Iterator[Zero]:
    """What a role that decodes raw messages writes to the dead-letter queue."""
    for reason in Reason:
        if not reason.intentional and reason not in (Reason.REFUSED_BY_SINK, Reason.RETENTION):
            yield "tailrace_dead_letters_total", {"stage": stage, "reason": reason.value}


def _redacted(config: Config, topics: Collection[str]) -> Iterator[Zero]:
    if config.redaction is not None:
        for signal in dict.fromkeys(item.signal for item in config.inputs if item.topic in topics):
            for rule in rules(config.redaction):
                yield "tailrace_redacted_total", {"signal": signal, "rule": rule}
