"""Who may see /metrics, /healthz and /readyz, asked of a real server and by a real Prometheus."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from pipeline.watching.serving import Server
from pipeline.watching.settings import Telemetry
from tests.repository import read_yaml
from tests.services import Prometheus, eventually

DEADLINE = 60.0
TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}", "Host": "tailrace.example"}
STRANGERS = (None, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}, {"Host": "127.0.0.1"})
ALIVE = {"status": "alive"}
TOLD = {"ready": False, "roles": {"ingest": True, "sample": False}, "config": {"hash": "4711", "stale": None}}


@contextlib.asynccontextmanager
async def pages(**settings: Any) -> AsyncIterator[str]:
    """A worker's pages, one of whose roles is not ready."""
    server = Server(Telemetry.model_validate({"port": 0, **settings}), lambda: {"ingest": True, "sample": False})
    server.configuration = lambda: {"hash": "4711", "stale": None}
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


async def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON, or text."""
    async with ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status, await (answer.json() if answer.content_type == "application/json" else answer.text())


async def test_beyond_loopback_strangers_get_a_word_and_no_metrics() -> None:
    async with pages(host="0.0.0.0", token=TOKEN) as url:
        for headers in STRANGERS:
            status, text = await get(f"{url}/metrics", headers)
            assert (status, "tailrace_" in text, "telemetry.token" in text) == (401, False, True)
            assert await get(f"{url}/metrics?token={TOKEN}", headers) == (status, text), "addresses end up in logs"
            assert await get(f"{url}/readyz", headers) == (503, {"ready": False})
            assert await get(f"{url}/healthz", headers) == (200, ALIVE)


async def test_with_the_token_everything_is_told() -> None:
    async with pages(host="0.0.0.0", token=TOKEN) as url:
        status, text = await get(f"{url}/metrics", BEARER)
        assert (status, 'tailrace_ready{role="sample"} 0.0' in text) == (200, True)
        assert await get(f"{url}/readyz", BEARER) == (503, TOLD)


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_metrics_may_be_opened_and_nothing_else_with_them(token: str | None) -> None:
    async with pages(host="0.0.0.0", token=token, public_metrics=True) as url:
        for headers in STRANGERS:
            assert (await get(f"{url}/metrics", headers))[0] == 200
            assert await get(f"{url}/readyz", headers) == (503, {"ready": False})


async def test_on_loopback_its_names_are_enough_and_foreign_ones_are_not() -> None:
    async with pages() as url:
        assert (await get(f"{url}/metrics", {"Host": "localhost:9464"}))[0] == 200
        assert await get(f"{url}/readyz") == (503, TOLD)
        for host in ("evil.example", "127.0.0.1.evil.example:80", ""):
            assert (await get(f"{url}/metrics", {"Host": host}))[0] == 403
            assert await get(f"{url}/readyz", {"Host": host}) == (503, {"ready": False})
            assert await get(f"{url}/healthz", {"Host": host}) == (200, ALIVE)


async def test_prometheus_scrapes_with_the_token_in_a_file(prometheus: Prometheus, tmp_path: Path) -> None:
    """As deploy/prometheus/prometheus.yml says it."""
    jobs = {job["job_name"]: job for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    deployed = jobs["tailrace"]["authorization"]
    file = tmp_path / Path(deployed["credentials_file"]).name
    file.write_text(f"{TOKEN}\n")

    async def up() -> str | None:
        _, answer = await get(f'{prometheus.url}/api/v1/query?query=up{{job="known"}}')
        return next((series["value"][1] for series in answer["data"]["result"]), None)

    authorization = {**deployed, "credentials_file": str(file)}
    async with pages(host="0.0.0.0", token=TOKEN) as url:
        with prometheus.scraping("known", [url.removeprefix("http://")], authorization=authorization):
            assert await eventually(up, DEADLINE, "a scrape") == "1"
