"""Sinks behind the proxy that the environment names: all kinds obey it, and none asks it for what NO_PROXY has.

So do the queries of the canary.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from pipeline.canary.backends import Prometheus as PrometheusLooker
from pipeline.canary.probe import Probe
from pipeline.canary.settings import Backend
from pipeline.operating.connect import connect
from schemas.errors import Unavailable
from sinks import create
from sinks.contract import Outcome
from sinks.proxies import proxy_of
from tests.pipeline.configs import config_for
from tests.services import Jaeger as JaegerServer
from tests.services import Prometheus as PrometheusServer
from tests.services import free_port
from tests.services.process import HOST
from tests.sinks.building import counter, envelope, log, now_ms, record, sink, span, tick
from tests.sinks.faulty import faulty, json

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "grpc_proxy", "no_grpc_proxy")
PROXY = "http://proxy:3128"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def proxy_to(server: str, asked: list[str], refuse: bool = False) -> AsyncIterator[str]:
    """A proxy that leads to this server whatever it is asked for, which `asked` gets."""
    url = urlsplit(server)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().partition(" HTTP/")[0])
        if refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        inner, outer = await asyncio.open_connection(url.hostname, url.port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            outer.write(head)
        await asyncio.gather(copy(reader, outer), copy(inner, writer))

    listening = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"http://user:s3cret@{HOST}:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def sent(kind: str, endpoint: str, **settings: Any) -> Outcome:
    """What becomes of a span, a log or a sample."""
    destination = create(kind, sink(endpoint, timeout="10s", **settings))
    rows = envelope([log("a") if kind == "elasticsearch" else span()])
    samples = tick(1, now_ms(), counter("a_total", [(("cart",), 1)]))
    records = samples if kind == "prometheus" else [record(rows.encode())]
    try:
        await destination.start()
        *_, items = map(destination.encode, records)
        assert items
        return await destination.send(destination.request(items))
    finally:
        await destination.close()


async def told_of(kind: str, **settings: Any) -> str:
    """What is said of a destination that was not reached, be it raised or an outcome."""
    error: Unavailable | None = None
    try:
        outcome = await sent(kind, "https://there.test", **settings)
    except Unavailable as raised:
        error = raised
    if error is None:
        assert outcome.retry
        assert not outcome.lost
        return outcome.detail
    assert error.__suppress_context__ or error.__context__ is None
    return str(error)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_otlp_over_http(jaeger: JaegerServer, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    async with proxy_to(jaeger.otlp_http, asked) as proxy:
        monkeypatch.setenv(variable, proxy)
        assert await sent("jaeger", "http://jaeger.test:4318") == Outcome(accepted=1)
        assert asked == ["POST http://jaeger.test:4318/v1/traces"]
        config = config_for(f"{HOST}:{free_port()}")
        config = config.model_copy(update={"sinks": {"jaeger": sink("http://jaeger.test:4318")}})
        *_, found = [finding async for finding in connect(config, ["sink.jaeger"])]
        assert found.ok, "check --connect goes the same way"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_otlp_over_grpc(jaeger: JaegerServer, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    async with proxy_to(f"http://{jaeger.otlp_grpc}", asked) as proxy:
        monkeypatch.setenv(variable, proxy)
        assert await sent("jaeger", "http://jaeger.test", protocol="grpc") == Outcome(accepted=1)
        assert asked == ["CONNECT jaeger.test:4317"]


async def test_remote_write(prometheus: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    async with proxy_to(prometheus.url, asked) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.removeprefix("http://"))
        assert await sent("prometheus", "http://prometheus.test/api/v1/write") == Outcome(accepted=1)
        assert asked == ["POST http://prometheus.test/api/v1/write"]


async def test_the_queries_of_the_canary(prometheus: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    async with proxy_to(prometheus.url, asked) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        looker = PrometheusLooker(Backend(endpoint="http://prometheus.test:9090"), "no_calls_total")
        try:
            await looker.before(Probe(bytes(16), 0, 0.0))
        finally:
            await looker.close()
    assert [words.partition("?")[0] for words in asked] == ["GET http://prometheus.test:9090/api/v1/query"]


async def test_elasticsearch_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server has no TLS. The certificate is that of the server, not of the proxy."""
    ca, asked = trustme.CA(), list[str]()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("es.test").configure_cert(tls)
    async with (
        faulty(json({"items": [{"create": {"status": 201}}]}), tls=tls) as server,
        proxy_to(server.url, asked) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        settings = {"ca_file": str(tmp_path / "ca.pem"), "manage_template": False}
        assert await sent("elasticsearch", "https://es.test:9200", **settings) == Outcome(accepted=1)
        assert asked == ["CONNECT es.test:9200"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("jaeger", {}), ("jaeger", {"protocol": "grpc"}), ("elasticsearch", {"manage_template": False})],
)
async def test_a_proxy_that_refuses_is_told_without_its_password(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    async with proxy_to("http://unused:1", asked, refuse=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        told = await told_of(kind, **settings)
    assert asked
    assert told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:s3/cret@proxy:3128",
        "http://user:12/s3cret@proxy:3128",
        "http://user:s3#cret@proxy:3128",
        "user:s3 cret@proxy:3128",
        "http://user:s3[cret@proxy:3128",
        "http://user:s3c\u20acret@proxy:3128",
        "http://user:s3cret@proxy:99999",
        "http://user:s3cret@proxy..svc:3128",
        "http://user:s3cret@",
        "http://us%3Aer:s3cret@proxy:3128",
    ],
)
@pytest.mark.parametrize(
    ("kind", "settings"), [("jaeger", {}), ("jaeger", {"protocol": "grpc"}), ("elasticsearch", {}), ("prometheus", {})]
)
async def test_what_is_no_url_of_a_proxy_is_told_by_its_variable(
    kind: str, settings: dict[str, Any], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its password, and the sink tries again: it does not end."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    told = await told_of(kind, **settings)
    assert told.startswith("HTTPS_PROXY: ")
    assert not any(part in told for part in ("user:", "s3", "cret"))
    config = config_for(f"{HOST}:{free_port()}")
    config = config.model_copy(update={"sinks": {kind: sink("https://there.test", **settings)}})
    *_, found = [finding async for finding in connect(config, [f"sink.{kind}"])]
    assert (found.ok, found.text) == (False, told), "check --connect says the same"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("jaeger", {}), ("jaeger", {"protocol": "grpc"}), ("elasticsearch", {"manage_template": False})],
)
async def test_what_no_proxy_has_is_asked_directly(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    async with proxy_to("http://unused:1", asked, refuse=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("NO_PROXY", "elsewhere,.test")
        with contextlib.suppress(Unavailable):  # nobody knows that name
            assert (await sent(kind, "https://there.test", **settings)).retry
        with contextlib.suppress(Unavailable):  # nor is anything on this machine
            assert (await sent(kind, f"http://{HOST}:{free_port()}", **settings)).retry
    assert asked == []


@pytest.mark.parametrize(
    ("kind", "settings", "scheme", "rule"),
    [
        ("jaeger", {}, "socks5", "must begin with http:// or https:// here"),
        ("elasticsearch", {}, "socks5h", "must begin with http:// or https:// here"),
        ("prometheus", {}, "ftp", "must begin with http:// or https:// here"),
        ("jaeger", {"protocol": "grpc"}, "socks5", "must begin with http:// here"),
        ("jaeger", {"protocol": "grpc"}, "https", "must begin with http:// here"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_not_gone_past(
    kind: str, settings: dict[str, Any], scheme: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would ask the server directly; aiohttp would talk HTTP to it."""
    monkeypatch.setenv("https_proxy", f"{scheme}://user:s3cret@proxy:1080")
    assert (await told_of(kind, **settings)).startswith(f"https_proxy: {rule}")


def test_through_what_is_no_proxy_nothing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing can have been delivered."""
    monkeypatch.setenv("https_proxy", "socks5://proxy:1080")
    with pytest.raises(Unavailable) as caught:
        proxy_of("https://jaeger")
    assert not caught.value.asked


def test_the_case_of_a_scheme_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", PROXY.replace("http", "HTTP"))
    assert proxy_of("https://jaeger", ["http"]) == PROXY


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://jaeger:4318/v1/traces?a=b", PROXY),
        ("https://jaeger:4318", None),
        ("http://localhost:4318", None),
        ("http://127.0.0.1:4318", None),
        ("http://[::1]:4318", None),
        ("http://a.svc.cluster.local", None),
        ("http://named", None),
        ("http://with-port:9201", None),
        ("http://with-port:9200", PROXY),
    ],
)
def test_which_proxy_a_url_has(url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("no_proxy", ".svc.cluster.local, named, with-port:9201")
    assert proxy_of(url) == proxy
