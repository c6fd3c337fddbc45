"""What a configuration says to a partition's window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.config import Config
from pipeline.kafka.topics import Topics
from processors.correlation import lowest_severity
from processors.sampling.window import Settings


def settings(config: Config, cache_bytes: int) -> Settings:
    """The settings of one partition, which may cache so much."""
    topics, sampling, late = Topics(config.kafka.prefix), config.sampling, config.sampling.late_evidence
    return Settings(
        partitions=config.kafka.partitions,
        spans_topic=topics.spans,
        logs_topic=topics.logs,
        decision_wait=int(sampling.decision_wait * 1000),
        wait_after_root=int(sampling.decision_wait_after_root_received * 1000) or None,
        late_horizon=int(sampling.late_horizon * 1000),
        unsampled=config.logs.unsampled,
        cache_bytes=cache_bytes,
        burst_bytes=config.kafka.commit_bytes,
        stall_limits={i.topic: int(config.logs.max_skew * 1000) for i in config.inputs if i.signal == "logs"},
        ingest_stall_limit=int(sampling.ingest_stall_limit * 1000),
        late_evidence=lowest_severity(late.min_severity) if late.enabled else None,
    )


def direct_settings(config: Config, cache_bytes: int, raw_partitions: Mapping[str, int]) -> Settings:
    """As `settings`, with the raw topics in the place of spans and logs, `raw_partitions` of each if it reads all."""
    spans, logs = config.raw_topic("traces"), config.raw_topic("logs")
    assert spans is not None
    return replace(
        settings(config, cache_bytes),
        direct=True,
        spans_topic=spans,
        logs_topic=logs,
        stall_limits={},
        raw_partitions=raw_partitions,
    )


def window_settings(config: Config, cache_bytes: int, raw_partitions: Mapping[str, int]) -> Settings:
    """The settings of a partition of `sample` in this configuration."""
    if config.regroup == "never":
        return direct_settings(config, cache_bytes, raw_partitions)
    return settings(config, cache_bytes)
