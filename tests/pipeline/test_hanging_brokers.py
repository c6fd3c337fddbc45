"""A worker whose brokers hang: connections stay open, nothing answers (a broker that is stopped with SIGSTOP)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from pipeline.config import Config
from pipeline.telemetry import REGISTRY
from pipeline.worker import Worker, running
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, holds, trace_id
from tests.services import Kafka, eventually
from tests.services.process import HOST
from tests.sinks.faulty import faulty, status

ROLES = ("ingest", "sample", "aggregate", "sink.otlp")
PAGES = ("/metrics", "/healthz", "/live", "/live/view", "/live/snapshot", f"/live/traces/{trace_id('bad/1').hex()}")
ANSWERED_WITHIN = 5.0  # seconds: less than any probe or scrape waits
FLAP = 1.0  # seconds


@pytest.fixture(scope="module")
def hanging() -> Iterator[Kafka]:
    """A broker of their own: that of other tests must go on."""
    with Kafka() as server:
        yield server


@pytest.fixture
async def stages(hanging: Kafka, tmp_path: Path) -> AsyncIterator[Stages]:
    """All roles, and a sink whose destination takes nothing."""
    async with faulty(status(503)) as destination:
        found = Stages(hanging.bootstrap, tmp_path)
        found.settings |= {"sinks": {"otlp": {"endpoint": destination.url}}, "telemetry": {"port": 0, "live": True}}
        found.config = Config.model_validate(found.settings)
        yield await found.create()
        hanging.resume()


@asynccontextmanager
async def asking(worker: Worker) -> AsyncIterator[Callable[[str], Awaitable[tuple[int, Any]]]]:
    """Asks the worker's pages: status and JSON or text. Raises TimeoutError where an answer takes too long."""
    url = f"http://{HOST}:{worker.server.port}"
    async with ClientSession(timeout=ClientTimeout(ANSWERED_WITHIN)) as client:

        async def ask(path: str) -> tuple[int, Any]:
            async with client.get(url + path) as answer:
                return answer.status, await (answer.json() if "json" in answer.content_type else answer.text())

        yield ask


def stuck(stages: Stages) -> float:
    """Seconds for which the sink has not got on."""
    labels = {"sink": "otlp", "topic": stages.topics.kept_spans}
    return REGISTRY.get_sample_value("tailrace_sink_stuck_seconds", labels) or 0.0


async def test_every_role_tells_that_brokers_hang_and_the_pages_answer_meanwhile(
    hanging: Kafka, stages: Stages
) -> None:
    """Neither a flap nor a destination that is away nor idleness is such a reason."""
    async with running(stages.config, ROLES) as worker, asking(worker) as ask, stages.producer() as producer:

        async def all_are(ready: bool) -> bool:
            """And each page answers."""
            for page in PAGES:
                await ask(page)
            code, told = await ask("/readyz")
            return bool(told["roles"] == dict.fromkeys(ROLES, ready)) and code == (200 if ready else 503)

        async def is_stuck() -> bool:
            return stuck(stages) > stages.config.kafka.session_timeout

        await holds(worker, *ROLES)
        await stages.produce(producer, "bad/1!")
        await eventually(is_stuck, DEADLINE, "the destination has been away for longer than a session")
        assert await all_are(True)
        hanging.pause()
        flapped = time.monotonic() + FLAP
        while time.monotonic() < flapped:
            assert await all_are(True)
        hanging.resume()
        assert await all_are(True)
        hanging.pause()
        await eventually(lambda: all_are(False), DEADLINE, "every role tells it")
        hanging.resume()
        await eventually(lambda: all_are(True), DEADLINE, "every role goes on")
