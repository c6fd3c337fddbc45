"""What `check --connect` asks of real brokers; tests/sinks has what it asks of destinations."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.config import Config
from pipeline.kafka.topics import ensure
from pipeline.operating.connect import connect
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import create
from tests.services.servers import Kafka


async def test_all_that_is_asked_of_the_brokers_takes_one_connection(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka_settings = {"bootstrap_servers": [kafka.bootstrap], "prefix": "asked-once"}
    inputs = [{"topic": "asked-once-raw", "signal": "traces"}]
    config = Config.model_validate({**MINIMAL, "kafka": kafka_settings, "inputs": inputs})
    await create(kafka.bootstrap, {"asked-once-raw": 1})
    assert await ensure(config) == []
    start, started = AIOKafkaAdminClient.start, list[AIOKafkaAdminClient]()

    async def counted(self: AIOKafkaAdminClient) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(AIOKafkaAdminClient, "start", counted)
    found = [str(finding) async for finding in connect(config)]
    assert any("no authorizer" in finding for finding in found), "it was asked to the end"
    assert len(started) == 1
