"""Who may see the page, asked of a real server: loopback by its name, everybody else by the token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import ClientSession, CookieJar

from pipeline.live.access import COOKIE
from tests.pipeline.live.pages import live_page

TOKEN = "correct-horse-battery"
PATHS = (
    "/live",
    "/live/page.js",
    "/live/page.css",
    "/live/view",
    "/live/snapshot",
    "/live/events",
    f"/live/traces/{'0' * 32}",
)


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield session


async def status(client: ClientSession, url: str, headers: Mapping[str, str] | None = None) -> int:
    async with client.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "10.0.0.7:80", "", "[::1"]
)
async def test_a_foreign_name_for_loopback_sees_nothing(client: ClientSession, host: str) -> None:
    async with live_page() as page:
        for path in PATHS:
            assert await status(client, page.url + path, {"Host": host}) == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:9464", "127.8.8.8"])
async def test_loopback_by_its_names_is_enough(client: ClientSession, host: str) -> None:
    async with live_page() as page:
        assert await status(client, f"{page.url}/live", {"Host": host}) == 200


async def test_without_the_token_nothing_is_shown(client: ClientSession) -> None:
    wrong = [None, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}]
    wrong += [{"Authorization": "Bearer"}, {"Authorization": "Bearer \udcff"}, {"Cookie": f"{COOKIE}={TOKEN}"}]
    async with live_page("0.0.0.0", token=TOKEN) as page:
        for headers in wrong:
            for path in PATHS:
                assert await status(client, page.url + path, headers) == 401, headers
        assert await status(client, f"{page.url}/live?token={TOKEN[:-1]}") == 401
        assert await status(client, f"{page.url}/live?token=%ff") == 401


async def test_on_loopback_a_token_is_asked_for_too_if_there_is_one(client: ClientSession) -> None:
    async with live_page(token=TOKEN) as page:
        assert await status(client, f"{page.url}/live") == 401


async def test_a_bearer_token_opens_everything(client: ClientSession) -> None:
    bearer = {"Authorization": f"bearer {TOKEN}", "Host": "tailrace.example"}
    async with live_page("0.0.0.0", token=TOKEN) as page:
        for path in PATHS[:5]:
            assert await status(client, page.url + path, bearer) == 200


async def test_a_token_in_the_address_becomes_a_cookie(client: ClientSession) -> None:
    async with live_page("0.0.0.0", token=TOKEN) as page:
        async with client.get(f"{page.url}/live?token={TOKEN}", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/live")
            cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/live"} <= {part.strip() for part in cookie.split(";")}
        assert TOKEN not in cookie
        assert await status(client, f"{page.url}/live/view") == 200
        client.cookie_jar.clear()
        assert await status(client, f"{page.url}/live/view") == 401


async def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(client: ClientSession) -> None:
    async with live_page() as page:
        for path in PATHS:
            async with client.get(page.url + path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "Access-Control-Allow-Origin" not in answer.headers
                if path.endswith(("/live", ".js", ".css")):
                    text = (await answer.text()).replace("http://www.w3.org/2000/svg", "")
                    assert "//" not in text.replace("// ", "")
