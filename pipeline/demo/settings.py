"""The demo's configuration: an ordinary one, with short times."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config
from pipeline.demo.shop import CUSTOMER, TIER
from pipeline.demo.traffic import RawTopics

DECISION_WAIT_SECONDS = 3
TICK_SECONDS = 1
SERIES_PER_METRIC = 1200
"""Enough for what the shop is, not for every customer."""

DATASET = "demo"
NAMESPACE = "traces_span_metrics"
SLOW_MS = 800


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the pipeline reads and writes. `jaeger` takes OTLP/HTTP, `prometheus` remote write."""

    kafka: str
    jaeger: str
    elasticsearch: str
    prometheus: str
    transactions: bool
    prefix: str = "tailrace"


def configuration(endpoints: Endpoints, raw: RawTopics) -> Config:
    """What a file would say."""
    batch = {"max_age": "200ms"}
    return Config.model_validate(
        {
            "kafka": {
                "bootstrap_servers": [endpoints.kafka],
                "prefix": endpoints.prefix,
                "partitions": 4,
                "metric_partitions": 4,
                "start": "earliest",
                "transactions": endpoints.transactions,
                "commit_interval": "400ms",
            },
            "inputs": [
                {"topic": raw.spans, "signal": "traces", "encoding": "otlp_proto"},
                {"topic": raw.logs, "signal": "logs", "encoding": "otlp_proto"},
                {"topic": raw.json, "signal": "logs", "encoding": "json"},
            ],
            "sampling": {
                "decision_wait": f"{DECISION_WAIT_SECONDS}s",
                "policies": [
                    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
                    {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}},
                    {"name": "slow", "type": "latency", "latency": {"threshold_ms": SLOW_MS}},
                    {
                        "name": "half-of-gold",
                        "type": "and",
                        "and": {
                            "and_sub_policy": [
                                {
                                    "name": "gold",
                                    "type": "string_attribute",
                                    "string_attribute": {"key": TIER, "values": ["gold"]},
                                },
                                {
                                    "name": "half",
                                    "type": "probabilistic",
                                    "probabilistic": {"sampling_percentage": 50},
                                },
                            ]
                        },
                    },
                    {"name": "baseline", "type": "probabilistic", "probabilistic": {"sampling_percentage": 5}},
                ],
            },
            "logs": {"unsampled": "warn"},
            "metrics": {
                "interval": f"{TICK_SECONDS}s",
                "series_per_metric": SERIES_PER_METRIC,
                "span_metrics": {
                    "namespace": NAMESPACE,
                    "dimensions": [CUSTOMER],
                    "buckets_ms": [5, 25, 100, 250, 500, 1000],
                },
            },
            "sinks": {
                "jaeger": {"endpoint": endpoints.jaeger, "batch": batch},
                "elasticsearch": {"endpoint": endpoints.elasticsearch, "dataset": DATASET, "batch": batch},
                "prometheus": {"endpoint": endpoints.prometheus, "batch": batch},
            },
            "telemetry": {"port": 0, "live": {"enabled": True, "payloads": True}},
        }
    )
