"""Credentials and TLS, checked by a real Prometheus, a Collector, and a proxy in front of a real Elasticsearch."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from pipeline.operating.connect import connect
from schemas.errors import Unavailable
from sinks.contract import Outcome
from sinks.elasticsearch import Elasticsearch
from sinks.otlp import Otlp
from sinks.prometheus import Prometheus
from tests.pipeline.configs import config_for
from tests.services import Collector, free_port
from tests.services import Elasticsearch as ElasticsearchServer
from tests.services import Prometheus as PrometheusServer
from tests.services.process import HOST
from tests.services.serving import serving
from tests.sinks.building import counter, envelope, log, record, sink, span, tick
from tests.sinks.faulty import faulty, status
from tests.sinks.faulty_grpc import faulty_grpc, ok

USER, PASSWORD = "tailrace", "open sesame"
BCRYPT = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"  # of PASSWORD
API_KEY = "aWQ6a2V5LW9mLXRoZS1zaW5r"
BASIC = {"username": USER, "password": PASSWORD}


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, a server at HOST and a client; and an authority that signed neither."""

    ca: str
    other_ca: str
    server: str
    server_key: str
    client: str

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        ca, other = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        other.cert_pem.write_to_path(folder / "other.pem")
        server = ca.issue_cert(HOST)
        server.private_key_pem.write_to_path(folder / "server.key")
        (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
        ca.issue_cert("tailrace@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
        return cls(*(str(folder / name) for name in ("ca.pem", "other.pem", "server.pem", "server.key", "client.pem")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made(tmp_path_factory.mktemp("tls"))


class LockedPrometheus(PrometheusServer):
    """Wants TLS, a client certificate and a password."""

    def __init__(self, files: Certificates) -> None:
        super().__init__()
        self._files = files
        self.url = self.url.replace("http:", "https:")
        self.remote_write_url = f"{self.url}/api/v1/write"

    def command(self) -> list[str]:
        web_file, files = self.data / "web.json", self._files
        tls = {"cert_file": files.server, "key_file": files.server_key, "client_ca_file": files.ca}
        tls["client_auth_type"] = "RequireAndVerifyClientCert"
        web_file.write_text(json.dumps({"tls_server_config": tls, "basic_auth_users": {USER: BCRYPT}}))
        return [*super().command(), f"--web.config.file={web_file}"]

    def ask(self, path: str) -> Any:
        context = ssl.create_default_context(cafile=self._files.ca)
        context.load_cert_chain(self._files.client)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Basic {pair}"})
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return answer.read()

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("/-/ready"))
        except OSError:
            return False


async def test_prometheus_with_tls_a_client_certificate_and_a_password(files: Certificates) -> None:
    both = {"ca_file": files.ca, "cert_file": files.client}
    metric = f"m{uuid.uuid4().hex[:8]}_total"
    with LockedPrometheus(files) as server:

        async def sent(**settings: Any) -> Outcome:
            destination = Prometheus(sink(server.remote_write_url, **settings))
            await destination.start()
            try:
                *_, items = map(destination.encode, tick(1, int(1e3 * 1e6), counter(metric, [(("cart",), 3)])))
                assert items
                return await destination.send(destination.request(items))
            finally:
                await destination.close()

        assert await sent(auth=BASIC, **both) == Outcome(accepted=1)
        assert metric in server.ask("/api/v1/label/__name__/values?start=0&end=4e9").decode()
        assert (await sent(auth=BASIC | {"password": "wrong"}, **both)).reason == "401"
        for lacking in ({"ca_file": files.ca}, {"ca_file": files.other_ca, "cert_file": files.client}, {}):
            with pytest.raises(Unavailable):
                await sent(auth=BASIC, **lacking)
        told = await findings("prometheus", server.remote_write_url, auth=BASIC, cert_file=files.client)
        assert "ca_file must hold the authority" in told
        told = await findings("prometheus", server.remote_write_url, auth={"bearer_token": "x"}, **both)
        assert "it wants other credentials: auth" in told
        strange = server.remote_write_url.replace(HOST, "localhost")
        assert "use one of those as endpoint" in await findings("prometheus", strange, auth=BASIC, **both)
        assert PASSWORD not in told


async def findings(name: str, endpoint: str, **settings: Any) -> str:
    """What `tailrace check --connect` says of a sink."""
    config = config_for(f"{HOST}:{free_port()}")
    config = config.model_copy(update={"sinks": {name: sink(endpoint, **settings)}})
    return "\n".join([str(finding) async for finding in connect(config, [f"sink.{name}"])][1:])


async def test_a_server_that_does_not_say_it_is_elasticsearch_is_told() -> None:
    async with faulty(status(200, "{}")) as server:
        assert "OpenSearch is not supported" in await findings("elasticsearch", server.url)
    async with faulty(status(200, "{}", X_Elastic_Product="Elasticsearch")) as server:
        assert "answers (" in await findings("elasticsearch", server.url)


async def test_a_redirect_and_a_signal_that_is_not_taken_are_told() -> None:
    """Sinks follow no redirect, and send each signal to a path of its own."""
    async with faulty(status(308, Location="https://there:4318/")) as server:
        assert "no redirect is followed: set the endpoint to what it is (https://there:4318/)" in await findings(
            "otlp", server.url
        )
    async with faulty(status(200), status(404)) as server:
        told = await findings("otlp", server.url, signals=["traces", "logs"])
        assert "answers 404; nothing is served at this path" in told
        assert [seen.path for seen in server.seen] == ["/v1/traces", "/v1/logs"]


@pytest.mark.parametrize("name", ["otlp", "prometheus"])
async def test_a_page_in_place_of_a_receiver_is_told(name: str) -> None:
    page = web.Response(text="<html>sign in</html>", content_type="text/html")
    async with faulty(lambda request, body: page) as server:
        assert "answers 200 text/html: a web page, no receiver" in await findings(name, server.url)


async def test_parameters_of_an_endpoint_are_not_told() -> None:
    query = f"u={USER}&p=s3cret"
    async with faulty(status(404), status(308, Location=f"https://there/write?{query}"), status(200)) as server:
        for says in ("answers 404", "set the endpoint to what it is (https://there/write)", "answers ("):
            told = await findings("prometheus", f"{server.url}/write?{query}")
            assert f"sink prometheus {server.url}/write" in told
            assert says in told
            assert "s3cret" not in told


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("otlp", "/tenant/v1/traces?token=s3cret"),
        ("elasticsearch", "/tenant/_cluster/health"),
        ("prometheus", "/tenant?token=s3cret"),
    ],
)
async def test_what_is_asked_is_the_url_of_the_sink(name: str, asked: str) -> None:
    def answer(request: web.Request, _: bytes) -> web.Response:
        right = request.path_qs == asked
        return web.Response(status=200 if right else 404, headers={"X-Elastic-Product": "Elasticsearch"})

    async with faulty(answer) as server:
        assert "answers (" in await findings(name, f"{server.url}/tenant?token=s3cret")


@pytest.fixture(scope="module")
def collector(files: Certificates) -> Iterator[dict[str, str]]:
    """The endpoints, by protocol, of a Collector that wants TLS and a password."""
    http, grpc = (f"{HOST}:{free_port()}" for _ in range(2))
    guarded = {
        "tls": {"cert_file": files.server, "key_file": files.server_key},
        "auth": {"authenticator": "basicauth"},
    }
    protocols = {"http": {"endpoint": http, **guarded}, "grpc": {"endpoint": grpc, **guarded}}
    config = {
        "extensions": {"basicauth": {"htpasswd": {"inline": f"{USER}:{BCRYPT}"}}},
        "receivers": {"otlp": {"protocols": protocols}},
        "exporters": {"nop": {}},
        "service": {
            "extensions": ["basicauth"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["nop"]}},
        },
    }
    with Collector(config):
        yield {"http/protobuf": f"https://{http}", "grpc": f"https://{grpc}"}


@pytest.mark.parametrize(("protocol", "refusal"), [("http/protobuf", "401"), ("grpc", "UNAUTHENTICATED")])
async def test_otlp_with_tls_and_a_password(
    collector: dict[str, str], files: Certificates, protocol: str, refusal: str
) -> None:
    async def sent(**auth: str) -> Outcome:
        settings = {"protocol": protocol, "ca_file": files.ca, "auth": auth}
        destination = Otlp(sink(None, endpoints=[collector[protocol]], **settings), ["spans"])
        await destination.start()
        try:
            items = destination.encode(record(envelope([span()]).encode()))
            return await destination.send(destination.request(items))
        finally:
            await destination.close()

    assert await sent(**BASIC) == Outcome(accepted=1)
    assert (await sent(**BASIC | {"password": "wrong"})).reason == refusal
    assert (await sent()).reason == refusal


@asynccontextmanager
async def checking(upstream: str, accepted: set[str], files: Certificates) -> AsyncIterator[str]:
    """The URL of a proxy with TLS that hands on what comes with an accepted Authorization header."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") not in accepted:
            return web.json_response({"status": 401}, status=401, headers={"X-Elastic-Product": "Elasticsearch"})
        skipped = {"host", "authorization", "content-length", "transfer-encoding"}
        headers = {key: value for key, value in request.headers.items() if key.lower() not in skipped}
        async with client.request(
            request.method, f"{upstream}{request.path_qs}", data=await request.read(), headers=headers
        ) as answer:
            kept = {key: answer.headers[key] for key in ("Content-Type", "X-Elastic-Product") if key in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.server, files.server_key)
    async with (
        aiohttp.ClientSession(auto_decompress=True) as client,
        serving(handle, tls, auto_decompress=False) as url,
    ):
        yield url


async def test_elasticsearch_with_tls_an_api_key_and_a_token_that_rotates(
    elasticsearch: ElasticsearchServer, files: Certificates, tmp_path: Path
) -> None:
    token, authorities = tmp_path / "token", tmp_path / "authorities.pem"
    shutil.copy(files.ca, authorities)
    accepted = {f"ApiKey {API_KEY}", "Bearer one"}
    async with checking(elasticsearch.url, accepted, files) as proxy:

        @asynccontextmanager
        async def started(**auth: str) -> AsyncIterator[Elasticsearch]:
            settings = {"ca_file": str(authorities), "auth": auth, "dataset": f"d{uuid.uuid4().hex[:8]}"}
            destination = Elasticsearch(sink(proxy, **settings))
            try:
                await destination.start()
                yield destination
            finally:
                await destination.close()

        own = record(envelope([log("a" * 2000)]).encode())

        async def sent(destination: Elasticsearch) -> Outcome:
            items = destination.encode(own)
            return await destination.send(destination.request(items))

        async with started(api_key=API_KEY) as destination:
            assert await sent(destination) == Outcome(accepted=1)
        with pytest.raises(Unavailable, match="401"):
            async with started(api_key="d3Jvbmc="):
                pass
        with pytest.raises(Unavailable, match=r"auth\.bearer_token_file: .*No such file"):
            async with started(bearer_token_file=str(token)):
                pass
        token.write_text("one\n")
        async with started(bearer_token_file=str(token)) as destination:
            assert await sent(destination) == Outcome(accepted=1)
            shutil.copy(files.other_ca, authorities)
            with pytest.raises(
                Unavailable, match=r"^TlsError: Cannot connect to host \S+ \[.*CERTIFICATE_VERIFY_FAILED"
            ):
                await sent(destination)
            with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await destination.start()
            shutil.copy(files.ca, authorities)
            assert await sent(destination) == Outcome(already_delivered=1)  # the first one has the same place
            accepted.remove("Bearer one")
            assert (await sent(destination)).reason == "401"
            token.write_text("two\n")
            accepted.add("Bearer two")
            assert await sent(destination) == Outcome(already_delivered=1)


async def test_a_token_that_rotates_over_grpc(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with faulty_grpc(ok) as server:
        auth = {"bearer_token_file": str(token)}
        destination = Otlp(sink(None, endpoints=[server.url], protocol="grpc", auth=auth), ["spans"])
        await destination.start()
        try:
            for text in ("one", "two"):
                token.write_text(text)
                items = destination.encode(record(envelope([span()]).encode()))
                assert await destination.send(destination.request(items)) == Outcome(accepted=1)
            token.write_text("not a\ntoken")
            with pytest.raises(Unavailable, match="does not hold a token"):
                await destination.send(destination.request(items))
        finally:
            await destination.close()
    assert [call.metadata["authorization"] for call in server.seen] == ["Bearer one", "Bearer two"]
