"""The proxy does what it is told, and its books are right: what came through, what was answered."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.faults.proxy import Proxy, first_half, spans_in
from tests.services import eventually
from tests.sinks import faulty

CLIENT_SECONDS = 0.5
BULK = b"".join(b'{"create": {"_id": "%d"}}\n{"body": "%d"}\n' % (n, n) for n in range(5))


@asynccontextmanager
async def proxied(*replies: faulty.Reply) -> AsyncIterator[tuple[Proxy, faulty.FaultyServer, aiohttp.ClientSession]]:
    """A proxy in front of a server that answers like this; a client that does not wait for ever."""
    timeout = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
    async with faulty.faulty(*replies) as server, aiohttp.ClientSession(timeout=timeout) as client:
        proxy = Proxy(server.url, lambda path, body: [f"{path} {body.decode()}"])
        await proxy.open()
        try:
            yield proxy, server, client
        finally:
            await proxy.close()


async def test_what_passes_is_what_was_sent_and_said() -> None:
    async with proxied(faulty.status(201, "made")) as (proxy, server, client):
        body = gzip.compress(b"spans")
        headers = {"Content-Encoding": "gzip", "X-Ours": "yes"}
        async with client.post(f"{proxy.url}/v1/traces?a=%2F", data=body, headers=headers) as answer:
            assert (answer.status, await answer.text()) == (201, "made")
        (seen,) = server.seen
        assert (seen.path, seen.headers["X-Ours"]) == ("/v1/traces", "yes")
        (passage,) = proxy.passages
        assert (passage.keys, passage.accepted, passage.answered) == (["/v1/traces spans"], True, True)
        assert not proxy.hindered


@pytest.mark.parametrize("mode", ["reset", "time out", "refuse"])
async def test_the_server_sees_nothing(mode: str) -> None:
    async with proxied(faulty.status(200)) as (proxy, server, client):
        await proxy.behave(mode)
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await client.post(proxy.url, data=b"x")
        assert not server.seen
        assert not proxy.passages
        await proxy.behave("pass")
        async with client.post(proxy.url, data=b"x") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("code", ["429", "500", "503"])
async def test_an_answer_that_asks_to_wait(code: str) -> None:
    async with proxied(faulty.status(200)) as (proxy, server, client):
        await proxy.behave(code)
        async with client.post(proxy.url, data=b"x") as answer:
            assert answer.status == int(code)
            assert answer.headers["Retry-After"] == "1"
        assert not server.seen


async def test_a_lost_answer_is_in_the_books() -> None:
    async with proxied(faulty.status(200)) as (proxy, server, client):
        await proxy.behave("lose answers")
        with pytest.raises(aiohttp.ClientError):
            await client.post(proxy.url, data=b"x")
        assert len(server.seen) == 1
        (passage,) = proxy.passages
        assert (passage.accepted, passage.answered) == (True, False)


async def test_what_the_server_refuses_is_not_accepted() -> None:
    async with proxied(faulty.status(400)) as (proxy, _, client):
        async with client.post(proxy.url, data=b"x") as answer:
            assert answer.status == 400
        (passage,) = proxy.passages
        assert (passage.accepted, passage.answered) == (False, True)


async def test_a_client_that_has_gone_is_not_answered() -> None:
    async with proxied(faulty.status(200)) as (proxy, _, client):
        await proxy.behave("slow")
        with pytest.raises(TimeoutError):
            await client.post(proxy.url, data=b"x")

        async def accepted() -> bool:
            return any(passage.accepted for passage in proxy.passages)

        await eventually(accepted, 10.0, "the server has it")
        assert not proxy.passages[0].answered


@pytest.mark.parametrize("compress", [False, True])
async def test_items_that_fail_inside_a_success(compress: bool) -> None:
    created = {"took": 1, "errors": False, "items": [{"create": {"status": 201}}] * 2}
    async with proxied(faulty.json(created)) as (proxy, _, client):
        await proxy.behave("fail items")
        body = gzip.compress(BULK) if compress else BULK
        headers = {"Content-Encoding": "gzip"} if compress else {}
        async with client.post(f"{proxy.url}/_bulk", data=body, headers=headers) as answer:
            told = json.loads(await answer.text())
        assert [item["create"]["status"] for item in told["items"]] == [201, 201, 429, 429, 429]
        assert proxy.passages[0].keys == [f"/_bulk {b''.join(BULK.splitlines(keepends=True)[:4]).decode()}"]


def test_half_of_one_document_is_none() -> None:
    one = b"".join(BULK.splitlines(keepends=True)[:2])
    assert first_half(one, {}) == (b"", 1)
    assert first_half(gzip.compress(one), {"Content-Encoding": "gzip"}) == (b"", 1)


def test_other_paths_have_no_spans() -> None:
    assert spans_in("/v1/logs", b"") == []
