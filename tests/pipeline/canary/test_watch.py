"""What the canary makes of a Prometheus that answers, is away, and is there again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from pipeline.canary.backends import lookers
from pipeline.canary.probe import SPANS, Probe
from pipeline.canary.watch import Watch
from pipeline.config import Config
from tests.pipeline.configs import MINIMAL
from tests.services.serving import serving

LOGS = {"topic": "otlp_logs", "signal": "logs"}


class Prometheus:
    """One series, into which the pipeline counts what is sent, unless it loses it."""

    def __init__(self) -> None:
        self.value, self.away, self.loses = 100, False, False
        self.url = ""

    def sent(self) -> None:
        self.value += 0 if self.loses else SPANS

    async def answer(self, _: web.Request) -> web.Response:
        if self.away:
            return web.Response(status=503)
        return web.json_response({"data": {"result": [{"metric": {}, "value": [0, str(self.value)]}]}})


@asynccontextmanager
async def watching(monkeypatch: pytest.MonkeyPatch, backend: Prometheus) -> AsyncIterator[Watch]:
    """A canary whose traces go nowhere but into `backend`."""

    async def send(_: Watch, __: Probe) -> None:
        backend.sent()

    monkeypatch.setattr(Watch, "_send", send)
    monkeypatch.setattr("pipeline.canary.watch.POLL", 0.0)
    canary = {"timeout": 0.01, "prometheus": {"endpoint": backend.url}}
    sampling = MINIMAL["sampling"] | {"decision_wait": 0.001}
    config = Config.model_validate(
        MINIMAL | {"canary": canary, "sampling": sampling, "inputs": [*MINIMAL["inputs"], LOGS]}
    )
    watch = Watch(config, lookers(config), random.Random(1))
    try:
        yield watch
    finally:
        await watch.close()


async def outcomes(watch: Watch, traces: int) -> list[str]:
    return [finding.outcome for _ in range(traces) for finding in await watch.once()]


async def test_prometheus_was_away_and_nothing_comes_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted meanwhile must not pass for what is lost then."""
    backend = Prometheus()
    async with serving(backend.answer) as backend.url, watching(monkeypatch, backend) as watch:
        assert await outcomes(watch, 2) == ["complete"] * 2
        backend.away = True
        assert await outcomes(watch, 3) == ["unreachable"] * 3
        backend.away, backend.loses = False, True
        assert await outcomes(watch, 2) == ["incomplete"] * 2
        (missing,) = await watch.once()
        assert missing.outcome == "incomplete"
        assert str(missing).endswith(f"; trace {missing.trace_id}")
        assert len(bytes.fromhex(missing.trace_id)) == 16
        backend.loses = False
        assert await outcomes(watch, 2) == ["complete"] * 2


async def test_what_was_lost_while_prometheus_was_away_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Prometheus()
    async with serving(backend.answer) as backend.url, watching(monkeypatch, backend) as watch:
        assert await outcomes(watch, 2) == ["complete"] * 2
        backend.away = backend.loses = True
        assert await outcomes(watch, 3) == ["unreachable"] * 3
        backend.away = backend.loses = False
        assert await outcomes(watch, 3) == ["incomplete", "complete", "complete"]
