"""Every way to reach a real broker, a worker through each; and what an operator reads when it does not work."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from click.testing import CliRunner
from pydantic import SecretStr, ValidationError

from pipeline import worker as working
from pipeline.cli import cli
from pipeline.config import Config
from pipeline.kafka.security import client_kwargs
from pipeline.operating.connect import connect
from schemas.errors import ConfigError
from schemas.kafka_client import Security, tls_context
from schemas.kafka_tokens import Client, ClientCredentials, NoToken, TokenFile
from sinks.contract import Outcome
from sinks.kafka_topic import KafkaTopic
from sinks.settings import Sink
from tests.pipeline.configs import config_for
from tests.pipeline.guarded import (
    CLIENT_ID,
    CLIENT_SECRET,
    KEY_PASSWORD,
    PASSWORD,
    USER,
    Authorities,
    GuardedKafka,
    Provider,
    provider,
)
from tests.pipeline.stages import Stages
from tests.services import eventually, free_port
from tests.services.process import spawn
from tests.sinks.building import envelope, record, span
from tests.sinks.faulty import faulty, status

BY_PASSWORD = {"username": USER, "password": PASSWORD}
WAYS = ("tls", "mutual", "login", "plain", "scram-256", "scram-512", "token file", "provider")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedKafka]:
    with GuardedKafka(Authorities(tmp_path_factory.mktemp("tls"))) as server:
        server.add_user()
        token = Path(server.authorities.ca_file).with_name("token")
        token.write_text(server.authorities.token() + "\n")
        yield server


def ways(server: GuardedKafka, oidc: Provider) -> dict[str, tuple[str, dict[str, Any]]]:
    """`kafka.security` of every way, and the listener it is for."""
    files = server.authorities
    tls = {"protocol": "SSL", "ca_file": files.ca_file}
    both = {"protocol": "SASL_SSL", "ca_file": files.ca_file}
    client = {"cert_file": files.cert_file, "key_file": files.key_file, "key_password": KEY_PASSWORD}
    token = str(Path(files.ca_file).with_name("token"))
    asked = {"token_endpoint_url": oidc.url, "token_endpoint_ca_file": files.ca_file, "scope": "kafka"}
    asked |= {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    return {
        "tls": ("TLS", tls),
        "mutual": ("MUTUAL", tls | client),
        "login": ("LOGIN", {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", **BY_PASSWORD}),
        "plain": ("GUARDED", both | {"sasl_mechanism": "PLAIN", **BY_PASSWORD}),
        "scram-256": ("GUARDED", both | {"sasl_mechanism": "SCRAM-SHA-256", **BY_PASSWORD}),
        "scram-512": ("GUARDED", both | {"sasl_mechanism": "SCRAM-SHA-512", **BY_PASSWORD}),
        "token file": ("GUARDED", both | {"sasl_mechanism": "OAUTHBEARER", "token_file": token}),
        "provider": ("GUARDED", both | {"sasl_mechanism": "OAUTHBEARER", **asked}),
    }


async def test_a_worker_through_every_listener(guarded: GuardedKafka, tmp_path: Path) -> None:
    """All its clients get in: groups, transactional producers, readers of decisions, the admin of topics."""
    async with provider(guarded.authorities) as oidc:

        async def through(way: str) -> None:
            listener, security = ways(guarded, oidc)[way]
            folder = tmp_path / way
            folder.mkdir()
            stages = await Stages(guarded.bootstrap, folder).create()
            kafka = stages.settings["kafka"] | {
                "bootstrap_servers": [guarded.addresses[listener]],
                "security": security,
            }
            config = Config.model_validate({**stages.settings, "kafka": kafka})
            roles = ["ingest", "sample", "aggregate"]
            async with (
                working.running(config, roles, stopping=asyncio.Event()),
                stages.producer() as producer,
            ):
                await stages.produce(producer, "a/1", "a/2!", "b/1")
                await stages.settled()

        await asyncio.gather(*map(through, WAYS))
        ((_, form),) = oidc.asked  # one token serves every client of the section
        assert form == {"grant_type": "client_credentials", "scope": "kafka"}


async def test_a_topic_of_a_guarded_cluster_as_a_sink(guarded: GuardedKafka) -> None:
    security = Security(
        protocol="SASL_SSL",
        ca_file=guarded.authorities.ca_file,
        sasl_mechanism="SCRAM-SHA-512",
        username=USER,
        password=SecretStr(PASSWORD),
    )
    settings = Sink(bootstrap_servers=[guarded.addresses["GUARDED"]], security=security, topic="kept")
    kafka = config_for(guarded.addresses["GUARDED"], security=security).kafka
    await create_with(client_kwargs(kafka), "kept")
    destination = KafkaTopic(settings, "sinks.kafka.security")
    await destination.start()
    items = destination.encode(record(envelope([span(), span()]).encode()))
    assert await destination.send(destination.request(items)) == Outcome(accepted=2)
    await destination.close()


async def create_with(client: dict[str, Any], topic: str) -> None:
    """A topic, made by this client."""
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("way", "change", "told"),
    [
        ("tls", {"ca_file": "OTHER"}, "kafka.security.ca_file must hold the authority"),
        ("tls", {"ca_file": None}, "kafka.security.ca_file must hold the authority"),
        ("tls", {"host": "localhost"}, "set kafka.security.verify_hostname: false"),
        ("mutual", {"cert_file": None, "key_file": None}, "it wants kafka.security.cert_file (mutual TLS)"),
        ("plain", {"password": "something-else"}, "kafka.security.username and password"),
        ("scram-512", {"password": "something-else"}, "kafka.security.username and password"),
        ("token file", {"token_file": "CA"}, "the brokers refuse the login"),
        ("token file", {"token_file": "/no/where"}, "kafka.security.token_file: [Errno 2]"),
        ("provider", {"client_secret": "something-else"}, "answers 401: invalid_client"),
        ("login", {"protocol": "SASL_SSL"}, "kafka.security.protocol must be its listener's"),
        ("login", {"listener": "PLAINTEXT"}, "kafka.security.protocol must be its listener's: this one takes no SASL"),
        ("tls", {"protocol": "PLAINTEXT", "ca_file": None}, "kafka.security.protocol must be its listener's"),
    ],
)
async def test_what_is_wrong_is_told_with_its_key(
    guarded: GuardedKafka, way: str, change: dict[str, Any], told: str
) -> None:
    """And without the secret."""
    files = {"OTHER": guarded.authorities.other_ca_file, "CA": guarded.authorities.ca_file}
    async with provider(guarded.authorities) as oidc:
        listener, security = ways(guarded, oidc)[way]
        host = change.get("host", "")
        security |= {key: files.get(value, value) for key, value in change.items() if key not in ("host", "listener")}
        addresses = guarded.addresses | {"PLAINTEXT": guarded.bootstrap}
        address = addresses[change.get("listener", listener)]
        address = f"{host}:{address.rpartition(':')[2]}" if host else address
        findings = [finding async for finding in connect(config_for(address, security=security))]
    text = str(findings[0])
    assert not findings[0].ok, text
    assert told in text, text
    assert all(secret not in text for secret in (PASSWORD, CLIENT_SECRET, "something-else", KEY_PASSWORD))


async def test_a_token_file_is_read_for_every_connection(tmp_path: Path) -> None:
    tokens = TokenFile(str(tmp_path / "token"), "kafka.security.token_file")
    with pytest.raises(NoToken, match="token_file"):
        await tokens.token()
    for token in ("one", "two"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert await tokens.token() == token
    (tmp_path / "token").write_text("\n")
    with pytest.raises(KafkaError, match="is empty"):  # aiokafka tries those again
        await tokens.token()


async def test_a_token_of_a_provider_is_renewed_before_it_ends() -> None:
    now = 0.0

    async with faulty(
        status(200, '{"access_token": "one", "expires_in": 100}'), status(200, '{"access_token": "two"}'), status(500)
    ) as server:
        client = Client(server.url, "me", SecretStr("my secret"))
        tokens = ClientCredentials(client, None, "kafka.security.token_endpoint_url", lambda: now)
        assert set(await asyncio.gather(tokens.token(), tokens.token())) == {"one"}
        now = 79.0
        assert await tokens.token() == "one"
        now = 80.0
        assert await tokens.token() == "two"
        now = 200.0
        with pytest.raises(NoToken, match=r"kafka.security.token_endpoint_url: .* answers 500") as raised:
            await tokens.token()
        assert "my secret" not in str(raised.value)
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({}, "token_file: is required"),
        ({"token_file": "/t", "token_endpoint_url": "https://a/t"}, "one of token_file and token_endpoint_url"),
        ({"token_endpoint_url": "https://a/t", "client_id": "me"}, "client_secret: is required by token_endpoint_url"),
        (
            {"token_endpoint_url": "http://a/t", "client_id": "me", "client_secret": "x"},
            "token_endpoint_url: must be https: client_secret is sent to it",
        ),
    ],
)
def test_what_a_token_needs(keys: dict[str, str], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Security.model_validate({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **keys})


def test_plain_text_needs_nothing_else() -> None:
    kwargs = client_kwargs(config_for("a:1").kafka)
    assert kwargs == {"bootstrap_servers": ["a:1"], "security_protocol": "PLAINTEXT"}


def test_hostnames_are_verified_unless_told_otherwise() -> None:
    assert tls_context(Security(protocol="SSL"), "kafka.security").check_hostname
    context = tls_context(Security(protocol="SSL", verify_hostname=False), "kafka.security")
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_a_certificate_that_cannot_be_read_is_a_configuration_error(tmp_path: Path, key: str) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    for file in (tmp_path / "missing.pem", tmp_path / "junk.pem"):
        with pytest.raises(ConfigError, match=f"kafka.security.{key}"):
            tls_context(Security.model_validate({"protocol": "SSL", key: str(file)}), "kafka.security")


SECRETS = {
    "KAFKA_PASSWORD": PASSWORD,
    "SINK_TOKEN": "bearer-of-the-sink",
    "SINK_HEADER": "key-in-a-header",
    "SINK_PASSWORD": "password-of-the-sink",
    "PAGES_TOKEN": "token-of-the-pages",
    "HMAC_KEY": "key-of-the-redaction",
    "KEY_PASSWORD": "password-of-a-private-key",
    "CLIENT_SECRET": "secret-of-an-oauth-client",
    "API_KEY": "api-key-of-the-canary",
    "COOKIE": "cookie-of-the-canary",
}
WRONG = "password-that-is-wrong"


def begun(stages: Stages, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A worker process that writes into `log`."""
    command = [sys.executable, "-m", "pipeline.cli", "worker", "--config", str(stages.file)]
    with log.open("wb") as file:
        roles = ["--role", "ingest,sample,sink.jaeger,sink.elasticsearch"]
        return spawn([*command, *roles], environment, output=file)


async def told(stages: Stages, environment: dict[str, str], until: Callable[[str], bool]) -> str:
    """What a worker at DEBUG and its pages print, from its start until `until` is content with its log."""
    log, port = stages.file.with_name("log"), free_port()
    worker = begun(stages, {**environment, "PORT": str(port)}, log)
    try:
        pages: list[str] = []

        async def content() -> bool:
            assert worker.poll() is None, log.read_text()
            return until(log.read_text())

        await eventually(content, 60.0, "the worker has worked and failed")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {SECRETS['PAGES_TOKEN']}"}) as client:
            for page in ("metrics", "readyz", "healthz", "live", "live/view"):
                async with client.get(f"http://127.0.0.1:{port}/{page}") as answer:
                    assert answer.status in (200, 503), page
                    pages.append(await answer.text())
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(worker.wait, 20.0)
    finally:
        worker.kill()
        worker.wait()
    return "\n".join([log.read_text(), *pages])


async def test_a_worker_tells_no_secret(guarded: GuardedKafka, tmp_path: Path) -> None:
    """At DEBUG, with credentials that are taken and with ones that are not: log, pages, config print, check."""
    stages = await Stages(guarded.bootstrap, tmp_path).create()
    async with faulty(status(401, "who are you?"), status(200)) as traces, faulty(status(401, "no")) as logs:
        security = {
            "protocol": "SASL_SSL", "ca_file": guarded.authorities.ca_file, "sasl_mechanism": "PLAIN", "username": USER,
            "password": "${KAFKA_PASSWORD}", "key_password": "${KEY_PASSWORD}", "client_secret": "${CLIENT_SECRET}",
        }  # fmt: skip
        kafka = {"bootstrap_servers": [guarded.addresses["GUARDED"]], "security": security}
        stages.settings |= {
            "kafka": stages.settings["kafka"] | kafka,
            "redaction": {"allow_all_keys": True, "hash_function": "hmac-sha256", "hmac_key": "${HMAC_KEY}"},
            "sinks": {
                "jaeger": {
                    "endpoint": traces.url, "protocol": "http/protobuf", "auth": {"bearer_token": "${SINK_TOKEN}"},
                    "headers": {"X-Api-Key": "${SINK_HEADER}"}, "batch": {"max_age": "50ms"},
                    "retry": {"initial_interval": "50ms"},
                },
                "elasticsearch": {"endpoint": logs.url, "auth": {"username": "me", "password": "${SINK_PASSWORD}"}},
            },
            "canary": {
                "jaeger": {
                    "endpoint": traces.url, "auth": {"api_key": "${API_KEY}"}, "headers": {"Cookie": "${COOKIE}"},
                },
            },
            "telemetry": {"port": "${PORT}", "token": "${PAGES_TOKEN}", "log_level": "DEBUG", "live": True},
        }  # fmt: skip
        stages.file.write_text(yaml.safe_dump(stages.settings))
        async with stages.producer() as producer:
            await stages.produce(producer, "a/1", "a/2!")
        delivered = await told(stages, SECRETS, lambda _: len(traces.seen) > 1 and bool(logs.seen))
        wrong = SECRETS | {"KAFKA_PASSWORD": WRONG}
        refused = await told(stages, wrong, lambda log: "uthentication failed" in log)
    assert traces.seen[0].headers["Authorization"] == f"Bearer {SECRETS['SINK_TOKEN']}"
    assert '"level":"DEBUG","logger":"aiokafka' in delivered
    assert "who are you?" in delivered, "and it says what went wrong"
    environment = {**wrong, "PORT": "0"}
    words = ["check", str(stages.file), "--connect"]
    checked = await asyncio.to_thread(CliRunner().invoke, cli, words, env=environment)
    printed = CliRunner().invoke(cli, ["config", "print", str(stages.file)], env=environment)
    assert "bearer_token" in printed.output
    shown = "\n".join([delivered, refused, checked.output, printed.output])
    assert "kafka.security.username and password" in checked.output
    login = base64.b64encode(f"me:{SECRETS['SINK_PASSWORD']}".encode()).decode()
    assert not [name for name, text in {**SECRETS, "WRONG": WRONG, "login": login}.items() if text in shown]
