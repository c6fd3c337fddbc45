"""The worker's pages, read over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from pipeline.config import Config
from pipeline.live.page import Page
from pipeline.live.watch import Watch
from pipeline.watching.serving import Server
from pipeline.watching.settings import Telemetry
from schemas.errors import ConfigError, Unavailable
from tests.pipeline.configs import MINIMAL
from tests.repository import ROOT

ROLES = {"ingest": True, "sink.jaeger/eu": False}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A worker with one role that has not come to its first partition yet."""
    server = Server(Telemetry(port=0), lambda: dict(ROLES))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_a_role_that_waits_is_a_zero_not_an_absence(url: str) -> None:
    async with ClientSession() as client, client.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert 'tailrace_ready{role="ingest"} 1.0' in lines
    assert 'tailrace_ready{role="sink.jaeger/eu"} 0.0' in lines


async def test_the_process_shows_its_memory(url: str) -> None:
    async with ClientSession() as client, client.get(f"{url}/metrics") as answer:
        assert "\nprocess_resident_memory_bytes " in await answer.text()


async def test_a_port_that_is_taken_is_named_with_its_key(url: str) -> None:
    port = int(url.rpartition(":")[2])
    expected = rf"telemetry\.port: 127\.0\.0\.1:{port}: Address already in use; .* another telemetry\.port"
    with pytest.raises(Unavailable, match=expected):
        await Server(Telemetry(port=port), dict).start()
    with pytest.raises(Unavailable, match=r"canary\.host, canary\.port: 192\.0\.2\.1:0: "):
        await Server(Telemetry(host="192.0.2.1", port=0, public_metrics=True), dict, section="canary").start()


async def test_a_host_that_there_is_not_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.host, telemetry\.port: no-such-host\.invalid:0: "):
        await Server(Telemetry(host="no-such-host.invalid", port=0, public_metrics=True), dict).start()


async def test_alive_but_not_ready(url: str) -> None:
    async with ClientSession() as client:
        async with client.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["roles"] == ROLES


async def test_without_the_live_page_there_is_none(url: str) -> None:
    async with ClientSession() as client, client.get(f"{url}/live") as answer:
        assert answer.status == 404


async def test_every_page_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "endpoints.md").read_text("utf-8")
    documented = set(re.findall(r"`(?:POST )?(/[\w./{}]*)`", page))
    config = Config.model_validate({**MINIMAL, "telemetry": {"live": True}})
    server = Server(config.telemetry, dict)
    served = {route.path.replace(":[0-9a-f]{32}", "") for route in Page(config, Watch(False), server.refresh).routes()}
    assert served | {"/metrics", "/healthz", "/readyz"} == documented
