"""The HTTP client against faults, and bisecting."""

from __future__ import annotations

import asyncio
import gzip
import html
import json
import math
import os
import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Unavailable
from sinks.contract import Coordinates, Item, Outcome, Request
from sinks.http import DETAIL_CHARACTERS, HALF_PAUSE, USER_AGENT, Answer, HttpClient, Rejected, Tls, bisect, retry_after
from tests.services import free_port
from tests.services.process import HOST
from tests.sinks.building import sink
from tests.sinks.faulty import Reply, faulty, reset, status


class Numbered(Item):
    """An item that is a number."""

    def dead_letter(self, *others: Numbered) -> bytes:
        return str(self.origin.index).encode()


def numbered(count: int) -> list[Numbered]:
    return [Numbered(origin=Coordinates("t", 0, 0, 0, index), size=1) for index in range(count)]


async def post(url: str, body: bytes = b"x", *, compress: bool = False, **settings: Any) -> Outcome | Rejected:
    client = HttpClient(sink(url, **settings), clock=lambda: 0.0)
    await client.open()
    try:
        return client.outcome(await client.post(url, body, {"Content-Type": "a/b"}, gzip=compress), 3)
    finally:
        await client.close()


@pytest.mark.parametrize("code", [200, 202, 204])
async def test_success_accepts_everything(code: int) -> None:
    async with faulty(status(code)) as server:
        assert await post(server.url) == Outcome(accepted=3)


def page(text: str) -> Reply:
    """A success in HTML."""
    return lambda request, body: web.Response(text=text, content_type="text/html")


async def test_a_page_is_no_success() -> None:
    """As of a login in front of the receiver, or of its user interface."""
    async with faulty(page("<html>sign in</html>"), page("")) as server:
        outcome = await post(server.url)
        assert isinstance(outcome, Outcome)
        assert (outcome.accepted, outcome.retry, outcome.reason) == (0, (0, 1, 2), "web_page")
        assert outcome.detail.startswith("200 text/html: a web page, no receiver")
        assert await post(server.url) == Outcome(accepted=3), "some frameworks say text/html of nothing at all"


@pytest.mark.parametrize("code", [301, 401, 403, 404, 408, 429, 500, 502, 503, 504])
async def test_what_says_nothing_about_the_items_is_sent_again(code: int) -> None:
    async with faulty(status(code, "later", Retry_After="7")) as server:
        outcome = await post(server.url)
    assert outcome == Outcome.retry_all(3, str(code), f"{code} later", 7.0, lost=code >= 500)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("code", "location", "detail"),
    [
        (503, "", "503 Service Unavailable"),
        (599, "", "599"),
        (
            308,
            "https://sso/login?state=s3cret",
            "308 no redirect is followed: set the endpoint to what it is (https://sso/login)",
        ),
    ],
)
async def test_an_answer_without_a_word_is_told_by_its_status(code: int, location: str, detail: str) -> None:
    headers = {"Location": location} if location else {}
    async with faulty(status(code, **headers)) as server:
        outcome = await post(server.url)
    assert outcome == Outcome.retry_all(3, str(code), detail, lost=code >= 500)


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_what_the_items_cause_is_a_rejection(code: int) -> None:
    async with faulty(status(code, "no\n good")) as server:
        assert await post(server.url) == Rejected(f"{code} no good", "no\n good")


async def test_a_long_error_text_is_cut() -> None:
    async with faulty(status(400, "x" * 10_000_000)) as server:
        outcome = await post(server.url)
    assert isinstance(outcome, Rejected)
    assert len(outcome.detail) == DETAIL_CHARACTERS + len("400 …")


QUERY = "db=metrics&p=s%33cret%2F1%3D"  # as InfluxDB takes a password


@pytest.mark.parametrize("code", [200, 400, 503])
async def test_what_an_answer_repeats_of_the_urls_parameters_is_left_out(code: int) -> None:
    def echo(request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=code, text=f"{request.raw_path}: no {request.query['p']} in {request.query_string}")

    async with faulty(echo) as server:
        client = HttpClient(sink(f"{server.url}/api/write?{QUERY}"))
        await client.open()
        answer = await client.post(f"{server.url}/api/write?{QUERY}", b"x", {})
        await client.close()
    assert answer.said.startswith("/api/write?")
    assert not {"s3cret", "s%33cret", "metrics"} & {*re.split(r"[^\w%]", answer.said)}
    assert "s3cret" not in answer.detail + str(client.outcome(answer, 1))


@pytest.mark.parametrize(
    "escaped",
    [
        lambda text: json.dumps({"error": text}),
        lambda text: json.dumps({"error": text}, ensure_ascii=False),
        lambda text: json.dumps({"error": text}).replace("<", r"\u003c").replace("&", r"\u0026"),  # as Go has it
        html.escape,
        lambda text: html.escape(text, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
    ],
)
def test_what_an_answer_escapes_of_the_urls_parameters_is_left_out(escaped: Callable[[str], str]) -> None:
    password = "s3\"'<&é-cret"
    url = f"https://influx/write?p={quote(password)}"
    answer = Answer(400, {}, escaped(f"no {password} here").encode(), url)
    assert answer.said == escaped("no ********** here")
    assert answer.detail == f"400 {answer.said}"


async def test_an_error_names_no_parameters_of_the_url() -> None:
    """Of an answer that is no HTTP aiohttp says to which URL it came."""

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match=f"http://{HOST}:{port}/api/write") as unavailable:
            await post(f"http://{HOST}:{port}/api/write?{QUERY}")
    assert "cret" not in str(unavailable.value)


async def test_a_reset_connection_is_unavailable() -> None:
    async with faulty(reset) as server:
        with pytest.raises(Unavailable) as unavailable:
            await post(server.url)
    assert unavailable.value.asked


async def test_a_refused_connection_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="Connect") as unavailable:
        await post(f"http://{HOST}:{free_port()}")
    assert not unavailable.value.asked


async def test_an_answer_that_does_not_come_is_unavailable() -> None:
    release = asyncio.Event()

    async def hang(request: web.Request, body: bytes) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    async with faulty(hang) as server:
        with pytest.raises(Unavailable, match=r"no answer within 0.05 s"):
            await post(server.url, timeout="50ms")
        release.set()


async def test_the_sinks_own_headers_cannot_override_the_protocols() -> None:
    async with faulty(status(200)) as server:
        await post(server.url, headers={"content-type": "text/plain", "user-agent": "me", "X-Scope-OrgID": "team"})
    headers = {name.lower(): value for name, value in server.seen[0].headers.items()}
    assert (headers["content-type"], headers["user-agent"], headers["x-scope-orgid"]) == ("a/b", USER_AGENT, "team")


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ({"username": "ü", "password": "p:w"}, "Basic w7w6cDp3"),
        ({"bearer_token": "abc"}, "Bearer abc"),
        ({"api_key": "k=="}, "ApiKey k=="),
    ],
)
async def test_credentials(auth: dict[str, str], sent: str) -> None:
    async with faulty(status(200)) as server:
        await post(server.url, auth=auth)
    assert server.seen[0].headers["Authorization"] == sent


async def test_gzip() -> None:
    async with faulty(status(200)) as server:
        await post(server.url, b"body" * 100, compress=True)
    (seen,) = server.seen
    assert seen.headers["Content-Encoding"] == "gzip"
    assert b"body" * 100 in (seen.body, gzip.decompress(seen.body) if seen.body[:2] == b"\x1f\x8b" else b"")


@pytest.mark.parametrize("text", ["", "soon", "-1", "Thu, 99 Jan 1970 00:00:00 GMT"])
def test_nonsense_in_retry_after_is_no_time(text: str) -> None:
    assert retry_after({"Retry-After": text}, 0) is None


def test_a_date_that_has_passed_is_now() -> None:
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT"}, 50) == 0.0


@given(st.integers(1, 200), st.data())
def test_bisecting_finds_exactly_the_bad_items(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    requests = 0

    async def attempt(items: Sequence[Numbered]) -> Outcome | Rejected:
        nonlocal requests
        requests += 1
        found = {item.origin.index for item in items} & bad
        return Rejected("bad") if found else Outcome(accepted=len(items))

    told: list[int] = []
    request = Request(numbered(count), b"", rejected=lambda said, refused: told.append(refused))
    outcome = asyncio.run(bisect(request, request.items, attempt))
    assert told == sorted(told)
    assert set(told) == (set(range(len(bad) + 1)) if bad and count > 1 else set())
    assert {refusal.index for refusal in outcome.refused} == bad
    assert outcome.accepted == count - len(bad)
    assert not outcome.retry
    assert requests <= 1 + 2 * len(bad) * (math.ceil(math.log2(count)) if count > 1 else 0)


@given(st.integers(1, 100), st.integers(1, 20), st.booleans(), st.data())
def test_an_outage_while_bisecting_loses_nothing(count: int, fails_at: int, raises: bool, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    accepted: list[int] = []
    requests = 0

    async def attempt(items: Sequence[Numbered]) -> Outcome | Rejected:
        nonlocal requests
        requests += 1
        if requests >= fails_at:
            if raises:
                raise Unavailable("gone", 3.0)
            return Outcome.retry_all(len(items), "503", "gone", 3.0)
        numbers = [item.origin.index for item in items]
        if bad & set(numbers):
            return Rejected("bad")
        accepted.extend(numbers)
        return Outcome(accepted=len(items))

    async def run() -> Outcome:
        try:
            return await bisect(Request((), b""), numbered(count), attempt)
        except Unavailable:
            return Outcome.retry_all(count, "no_answer", "")

    outcome = asyncio.run(run())
    refused = [refusal.index for refusal in outcome.refused]
    assert sorted([*accepted, *refused, *outcome.retry]) == list(range(count))
    assert outcome.accepted == len(accepted)
    assert set(refused) <= bad
    assert sum(outcome.parts) in (0, len(outcome.retry))


@given(st.integers(1, 100), st.integers(2, 10), st.data())
def test_what_is_left_of_a_halving_goes_on_where_it_stood(count: int, every: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    requests = 0

    async def attempt(items: Sequence[Numbered]) -> Outcome | Rejected:
        nonlocal requests
        requests += 1
        if requests % every == 0:
            return Outcome.retry_all(len(items), "429", "slow down")
        found = {item.origin.index for item in items} & bad
        return Rejected("bad") if found else Outcome(accepted=len(items))

    left, refused, outcome = numbered(count), [], Outcome()
    answered = 1 + 2 * len(bad) * math.ceil(math.log2(count))
    while left:
        assert requests <= 1 + answered * every // (every - 1)
        outcome = asyncio.run(bisect(Request(left, b"", parts=outcome.parts), left, attempt))
        refused += [left[refusal.index].origin.index for refusal in outcome.refused]
        assert outcome.accepted == len(left) - len(outcome.refused) - len(outcome.retry)
        left = [left[index] for index in outcome.retry]
    assert refused == sorted(bad)


def test_half_of_a_renewal_is_not_read_with_every_request(tmp_path: Path) -> None:
    own, now = tmp_path / "client.pem", 0.0
    trustme.CA().issue_cert("tailrace@example.org").private_key_and_cert_chain_pem.write_to_path(own)
    whole = own.read_bytes()
    tls = Tls(sink("https://a:1", cert_file=str(own)), lambda: now)
    own.write_bytes(b"")
    half = own.stat().st_mtime_ns
    assert not tls.look()
    own.write_bytes(whole)
    os.utime(own, ns=(half, half))  # in the same tick: nothing shows it
    assert not tls.look()
    now = HALF_PAUSE
    assert tls.look()


@pytest.mark.parametrize("half", [False, True], ids=["at once", "certificate before key"])
async def test_a_certificate_that_is_renewed_is_read_again(tmp_path: Path, half: bool) -> None:
    """As cert-manager does it, while a worker runs: nobody restarts it for that."""
    ca, other = trustme.CA(), trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.verify_mode = ssl.CERT_REQUIRED
    ca.issue_cert(HOST).configure_cert(tls)
    ca.configure_trust(tls)
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    good, bad = (each.issue_cert("tailrace@example.org") for each in (ca, other))

    def write(key: bool = True, certificate: bool = True) -> None:
        if certificate:
            (tmp_path / "client.pem").write_bytes(b"".join(pem.bytes() for pem in current.cert_chain_pems))
        if key:
            (tmp_path / "client.key").write_bytes(current.private_key_pem.bytes())

    current = bad
    write()
    names = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    async with faulty(status(200), tls=tls) as server:
        client = HttpClient(sink(server.url, **{key: str(tmp_path / name) for key, name in names.items()}))
        await client.open()
        try:
            with pytest.raises(Unavailable):
                await client.post(server.url, b"x", {})
            current = good
            if half:
                write(key=False)
                with pytest.raises(Unavailable):
                    await client.post(server.url, b"x", {})
            write()
            assert (await client.post(server.url, b"x", {})).ok
        finally:
            await client.close()
