"""Planted secrets on a real Kafka: none of them is in any topic that a pipeline writes, whichever way it reads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka.topics import topic_specs
from pipeline.worker import running
from tests.pipeline.kafka import DEADLINE, create
from tests.pipeline.stages import Stages
from tests.processors.redacting import ALL, SECRET_BYTES, SECRETS, everything, plain
from tests.services import Kafka, eventually

SECTIONS: dict[str, Any] = {
    "sampling": {"decision_wait": "1s", "policies": [{"name": "all", "type": "always_sample"}]},
    "metrics": {"interval": "1s", "span_metrics": {"dimensions": ["plain"]}},
    "redaction": {"presets": ALL, "allow_all_keys": True, "summary": "debug"},
}


def texts(record: ConsumerRecord) -> bytes:
    """All that is in a record."""
    headers = [part for name, value in record.headers for part in (name.encode(), value)]
    return b"\n".join([plain(record.value or b""), record.key or b"", *headers])


def counted() -> float:
    return telemetry.REGISTRY.get_sample_value("tailrace_redacted_total", {"signal": "traces", "rule": "email"}) or 0.0


@pytest.mark.parametrize("regroup", ["always", "never"])
async def test_no_secret_is_in_any_topic(kafka: Kafka, tmp_path: Path, regroup: str) -> None:
    stages = Stages(kafka.bootstrap, tmp_path)
    metrics = f"{stages.raw}.metrics"
    inputs = [*stages.settings["inputs"], {"topic": metrics, "signal": "metrics"}]
    config = Config.model_validate(stages.settings | SECTIONS | {"inputs": inputs, "regroup": regroup})
    stages.config = config
    topics = {"traces": stages.raw, "logs": f"{stages.raw}.logs", "metrics": metrics}
    await create(kafka.bootstrap, dict.fromkeys(topics.values(), config.kafka.partitions))
    await stages.ensured()
    t = stages.topics
    seen: dict[str, bytes] = {}

    async def written() -> bool:
        """All that was sent has come as far as it goes: what is shown in every topic is there."""
        names = [spec.name for spec in topic_specs(config)]
        found = await asyncio.gather(*map(stages.records, names))
        seen.update({name: b"".join(map(texts, records)) for name, records in zip(names, found, strict=True)})
        letters = seen[t.dlq].count(b"(none of ")
        shown = {t.kept_spans: b"untouched", t.kept_logs: b"in ****", t.untraced_logs: b"****", t.samples: b"p"}
        return letters == 3 * len(SECRETS) and all(text in seen[name] for name, text in shown.items())

    before = counted()
    roles = ["ingest", "sample", "aggregate"]
    async with running(config, roles, stopping=asyncio.Event()), stages.producer() as producer:
        for secret in SECRETS:
            for signal, data in everything(secret).items():
                for value in (data, data[:-3]):  # the second one cannot be decoded
                    await producer.send_and_wait(topics[signal], value, partition=1)
        await eventually(written, DEADLINE, "everything is in the topics")
    await written()
    for name, content in seen.items():
        assert [secret for secret in SECRET_BYTES if secret in content] == [], name
    assert b"redaction.masked.keys" in seen[t.kept_spans]
    assert b"redaction.body.masked.count" in seen[t.kept_logs]
    assert counted() > before
