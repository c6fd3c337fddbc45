"""What is said of components of a pipeline that are not taken over, and of keys of those that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.configuration.otelcol.source import NONE, Source
from pipeline.configuration.yaml_tree import Key

TOPICS = {"traces": "otlp_spans", "logs": "otlp_logs", "metrics": "otlp_metrics"}  # where a component says none
PRINTED = "it only prints"
PROBED = "a worker has /healthz and /readyz, see `telemetry`"
WITHOUT_LOSS = {  # kinds of components
    "batch": "sinks have a `batch` of their own",
    "memory_limiter": "overload becomes lag",
    "debug": PRINTED,
    "logging": PRINTED,
    "nop": "it does nothing",
    "health_check": PROBED,
    "healthcheckv2": PROBED,
    "pprof": "it is about the Collector",
    "zpages": "it is about the Collector",
}
SPAN_METRICS = "is not taken over: see `metrics.span_metrics`"
REDACTION = "is not taken over: see `redaction` (docs/how-to/redact.md)"
GROUPED = "is not taken over: spans are brought together; add its `wait_duration` to `sampling.decision_wait`"
INSTEAD = {"redaction": REDACTION, "groupbytrace": GROUPED, "spanmetrics": SPAN_METRICS, "span_metrics": SPAN_METRICS}
ELSEWHERE = (  # keys that say where something goes, or what else is read
    "exclude_topic",
    "exclude_topics",
    "header_extraction",
    "topic_from_attribute",
    "topic_from_metadata_key",
    "logs_dynamic_index",
    "logs_dynamic_id",
    "logs_dynamic_pipeline",
    "logstash_format",
    "pipeline",
)


def without(source: Source, path: Key, name: str, otherwise: str = NONE) -> None:
    """A component that is not taken over."""
    kind = name.split("/")[0]
    if kind in WITHOUT_LOSS:
        source.gap(path, f"{name} is not needed: {WITHOUT_LOSS[kind]}", matters=False)
    else:
        source.gap(path, f"{name} {INSTEAD.get(kind, otherwise)}")


def rest(source: Source, path: Key, settings: Mapping[str, Any], where: str, asked: Sequence[str]) -> None:
    """What else a component says: most of it is about its client."""
    for key, value in settings.items():
        if key in ELSEWHERE and not (isinstance(value, dict) and value.get("enabled") is False):
            source.gap((*path, key), NONE)
        elif key in (*TOPICS, "profiles") and key not in asked:
            source.gap((*path, key), "not taken over: no pipeline that is taken over has it", matters=False)
        elif key not in asked:
            source.gap((*path, key), f"not taken over: {where}", matters=False)
    for signal in (key for key in TOPICS if key in asked):
        for key in source.mapping((*path, signal), settings.get(signal)):
            if key in ELSEWHERE:
                source.gap((*path, signal, key), NONE)
