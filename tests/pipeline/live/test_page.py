"""The page's data over HTTP: a stream that ends with the worker, traces by id, and other workers beside this one."""

from __future__ import annotations

import asyncio
import json
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
from aiohttp import ClientSession

from pipeline.live.page import MOST_WATCHERS, STATIC
from schemas.decision import DecisionRecord
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.live.building import committed, kept, log, span, trace_id
from tests.pipeline.live.pages import LivePage, live_page
from tests.repository import ROOT
from tests.services.process import HOST, free_port

TOKEN = "correct-horse-battery"
STOPS_WITHIN = 5.0  # seconds


async def get(url: str, **headers: str) -> Any:
    async with ClientSession() as client, client.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_what_roles_feed_is_shown() -> None:
    async with live_page(payloads=True) as page:
        committed(page, kept(span(1, 1), span(1, 2, 1, at=3)), kept(log(1, 2)))
        shown = await get(f"{page.url}/live/view")
        (trace,) = shown["traces"]
        assert (trace["trace_id"], trace["spans"], trace["logs"]) == (trace_id(1).hex(), 2, 1)
        assert [(service["name"], service["calls"]) for service in shown["services"]] == [("cart", 3)]
        assert [role["unread"] for role in shown["roles"] if role["name"] == "ingest"] == [5]
        assert "all" in {policy["name"] for policy in shown["policies"]}  # and those of other tests in this process
        assert {node["name"] for node in shown["graph"]["nodes"]} >= {"ingest", "sample", "aggregate", "otlp_spans"}
        whole = await get(f"{page.url}/live/traces/{trace_id(1).hex()}")
        assert [bar["at_ms"] for bar in whole["bars"]] == [0, 3]
        assert whole["lines"][0]["body"] == "secret words"
        async with ClientSession() as client:
            async with client.get(f"{page.url}/live/traces/{trace_id(2).hex()}") as answer:
                assert answer.status == 404
            async with client.get(f"{page.url}/live/traces/..%2f..%2fmetrics") as answer:
                assert answer.status == 404


async def test_values_that_came_in_are_not_shown_unless_asked_for() -> None:
    async with live_page() as page:
        committed(page, kept(span(1, 1)), kept(log(1, 1)))
        whole = json.dumps(await get(f"{page.url}/live/traces/{trace_id(1).hex()}"))
        assert "secret" not in whole
        assert "secret" not in json.dumps(await get(f"{page.url}/live/view"))


async def test_a_stream_says_more_every_second_and_ends_with_the_worker() -> None:
    loop = asyncio.get_running_loop()
    async with ClientSession() as client:
        async with live_page() as page:
            stream = await client.get(f"{page.url}/live/events")
            assert stream.content_type == "text/event-stream"
            times = []
            async for line in stream.content:
                if line.startswith(b"data: "):
                    times.append(json.loads(line[6:])["time"])
                if len(times) == 3:
                    break
            assert times == sorted(set(times))
            asked = loop.time()
        assert loop.time() - asked < STOPS_WITHIN


async def test_streams_are_few() -> None:
    async with live_page() as page, ClientSession() as client:
        streams = [await client.get(f"{page.url}/live/events") for _ in range(MOST_WATCHERS)]
        async with client.get(f"{page.url}/live/events") as one_more:
            assert one_more.status == 503
        for stream in streams:
            stream.close()


async def test_other_workers_are_on_the_same_page() -> None:
    async with (
        live_page(token=TOKEN, payloads=True) as other,
        live_page(token="another-long-token", public_metrics=True) as open_metrics,
        live_page(token="another-long-token") as stranger,
    ):
        committed(other, kept(span(1, 1)))
        peers = [other.url, open_metrics.url, "http://127.0.0.1:9", stranger.url]
        async with live_page(token=TOKEN, peers=peers) as page:
            committed(page, kept(span(2, 1)))
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            shown = await get(f"{page.url}/live/view", **bearer)
            assert {trace["trace_id"] for trace in shown["traces"]} == {trace_id(n).hex() for n in (1, 2)}
            assert [(service["name"], service["calls"]) for service in shown["services"]] == [("cart", 6)]
            # Two take another token: of one /metrics is read, which needs none there.
            assert [role["workers"] for role in shown["roles"] if role["name"] == "ingest"] == [3]
            errors = [worker["error"] for worker in shown["workers"]]
            assert [bool(error) for error in errors] == [False, False, False, True, True]
            assert errors[-1] == f"{stranger.url}: HTTP 401: it wants another token (telemetry.token)"
            whole = await get(f"{page.url}/live/traces/{trace_id(1).hex()}", **bearer)
            assert whole["summary"]["trace_id"] == trace_id(1).hex()
            assert whole["payloads"]


async def test_peers_that_name_each_other_are_asked_once_for_a_trace_that_nobody_holds() -> None:
    ports = [free_port(), free_port()]
    peers = [f"http://{HOST}:{port}" for port in ports]
    async with live_page(port=ports[0], peers=peers[1:]) as page, live_page(port=ports[1], peers=peers[:1]) as other:
        asked: list[LivePage] = []
        for each in (page, other):
            each.watch.trace = lambda _, each=each: asked.append(each)  # type: ignore[method-assign, misc]
        async with ClientSession() as client, client.get(f"{page.url}/live/traces/{trace_id(1).hex()}") as answer:
            assert answer.status == 404
        assert asked == [page, other]


async def test_what_takes_longer_to_explain_than_anybody_waits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler goes on when its client has left, and one reads at a time."""
    monkeypatch.setattr("pipeline.live.page.EXPLAIN_SECONDS", 0.1)
    given_up: list[bytes] = []

    async def explain(trace: bytes) -> dict[str, Any] | None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(trace)
        return None

    async with (
        asyncio.timeout(DEADLINE),
        live_page(explain=explain) as page,
        ClientSession() as client,
        client.get(f"{page.url}/live/explain/{trace_id(1).hex()}") as answer,
    ):
        assert (answer.status, await answer.text()) == (503, "not found out within 0.1 s\n")
    assert given_up == [trace_id(1)]


async def test_a_restore_is_asked_for_with_valid_text_and_numbers() -> None:
    reasons: list[str] = []

    async def restore(_: bytes, why: str, __: float) -> dict[str, Any]:
        DecisionRecord(1, restored={1: why}).encode()
        reasons.append(why)
        return {"why": why}

    kind = "application/json"
    async with live_page(restore=restore) as page, ClientSession() as client:
        for body, of, status in (
            (b'{"why": "half \\ud83d of \\ud83d\\ude00"}', kind, 200),
            (b'{"why": "", "max_read_bytes": 1%b}' % (b"0" * 400), kind, 400),
            (b'{"why": ""}', f"{kind}; charset=klingon", 400),
        ):
            path = f"{page.url}/live/restore/{trace_id(1).hex()}"
            async with client.post(path, data=body, headers={"Content-Type": of}) as answer:
                assert answer.status == status, body[:80]
    assert reasons == ["half ? of \N{GRINNING FACE}"]


def test_the_files_of_the_page_are_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]["*"]
    for name in ("page.html", *STATIC):
        assert (ROOT / "pipeline" / "live" / name).is_file()
        assert any(fnmatch(name, pattern) for pattern in patterns), name
