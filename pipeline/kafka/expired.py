"""Records that retention took before a role had done with them: every role says and counts them like this."""

from __future__ import annotations

import logging

from aiokafka import TopicPartition

from pipeline import telemetry
from schemas.reasons import Reason

log = logging.getLogger(__name__)


def say(role: str, partition: TopicPartition, records: int) -> None:
    """Log that they are gone, if there are any: before that is written down, which nobody may hear of."""
    if records <= 0:
        return
    where = {"role": role, "topic": partition.topic, "partition": partition.partition, "records": records}
    log.error("records are gone: retention took them before they were read", extra=where)


def count(prefix: str, partition: TopicPartition, records: int) -> None:
    """Count them, if there are any: once it is written down, or the next owner would do so again.

    `prefix` is `kafka.prefix`.
    """
    if records > 0:
        telemetry.count("tailrace_dropped_total", records, **labels(prefix, partition.topic))


def labels(prefix: str, topic: str) -> dict[str, str]:
    """Of `tailrace_dropped_total`: `signal` is the topic, an internal one without the prefix.

    >>> labels("tailrace", "tailrace.kept.spans")["signal"], labels("tailrace", "otlp_spans")["signal"]
    ('kept.spans', 'otlp_spans')
    """
    return {"signal": topic.removeprefix(f"{prefix}."), "reason": Reason.RETENTION.value, "intentional": "false"}
