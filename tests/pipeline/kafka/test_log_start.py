"""How near retention is to the tail, on a real Kafka: held up, with a longer retention, and passed."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline import telemetry
from pipeline.kafka import log_start
from pipeline.worker import running
from tests.pipeline.fed import Fed
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import administration
from tests.services import Kafka, eventually

RETENTION = 20  # seconds; the broker deletes every five minutes at most, so nothing goes meanwhile


def told(name: str) -> float | None:
    return telemetry.REGISTRY.get_sample_value(name, {"partition": "0"})


async def keep_for(fed: Fed, seconds: int) -> None:
    """What an operator does to win time."""
    async with administration(fed.bootstrap) as admin:
        for topic in (fed.topics.spans, fed.topics.logs):
            settings = {"retention.ms": str(seconds * 1000), "message.timestamp.type": "LogAppendTime"}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])


async def test_a_tail_that_stands_still_uses_up_its_retention(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_start, "INTERVAL", 0.1)
    monkeypatch.setattr(log_start, "RETENTION_AGE", 0.1)
    fed = Fed(kafka, tmp_path, retention=f"{RETENTION}s")
    await fed.create(raw=1)

    async def used() -> bool:
        return (told("tailrace_tail_retention_ratio") or 0) > 2 / RETENTION

    async def passed() -> bool:
        return (told("tailrace_tail_log_start_seconds") or 0) > 1

    async with fed.producer() as producer, running(fed.config, ["sample"]):
        await fed.feed(producer, 0, "a/1!")  # undecided until the clock moves
        await eventually(used, DEADLINE, "the tail gets old")
        assert told("tailrace_tail_log_start_seconds") == 0  # it stands before the very first record
        before = told("tailrace_tail_retention_ratio") or 0

        async def relieved() -> bool:
            return (told("tailrace_tail_retention_ratio") or 1) < before / 2

        await keep_for(fed, 100 * RETENTION)
        await eventually(relieved, DEADLINE, "a longer retention counts at once")
        await fed.feed(producer, 5_000)
        await fed.kept("a/1!")
        await eventually(passed, DEADLINE, "the tail has passed what Kafka still has")
    assert told("tailrace_tail_log_start_seconds") is None, "whoever takes the partition tells it"
    assert told("tailrace_tail_retention_ratio") is None
