"""The worker's pages, read over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from pipeline.config import Telemetry
from pipeline.serving import Server

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


async def test_alive_but_not_ready(url: str) -> None:
    async with ClientSession() as client:
        async with client.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["roles"] == ROLES
