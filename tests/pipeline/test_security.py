"""Every way to log in, on a real broker with TLS; and what an operator reads when it does not work."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipeline.config import Config
from pipeline.connect import connect
from pipeline.security import client_kwargs
from pipeline.topics import partition_counts
from schemas.errors import ConfigError, Unavailable
from schemas.kafka_client import Security, TokenFile, tls_context
from sinks.contract import Outcome
from sinks.kafka_topic import KafkaTopic
from sinks.settings import Sink
from tests.pipeline.configs import config_for
from tests.services.process import HOST, free_port
from tests.services.servers import Kafka
from tests.sinks.building import envelope, record, span

STORE_PASSWORD = "storepass"
SECRET = "let-me-in"
JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Guarded:
    """A broker whose second listener wants TLS and a login."""

    address: str
    ca_file: Path

    def config(self, **security: Any) -> Config:
        given = {"protocol": "SASL_SSL", "ca_file": str(self.ca_file), "verify_hostname": True, **security}
        return config_for(self.address, security=given)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Its certificate is made by the JDK that runs it."""
    folder = tmp_path_factory.mktemp("tls")
    store = folder / "broker.p12"
    key = ["-alias", "broker", "-keystore", str(store), "-storepass", STORE_PASSWORD]
    subject = ["-dname", "CN=localhost", "-ext", f"SAN=ip:{HOST}", "-validity", "2"]
    keytool("-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", *subject, *key)
    keytool("-exportcert", "-rfc", "-file", str(folder / "ca.pem"), *key)

    # Kafka() picks the ports of its two plain listeners; the third one is ours, and they are told together.
    plain = Kafka()
    address = f"{HOST}:{free_port()}"
    names = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL"
    guarded = "listener.name.guarded"
    plain.properties |= {
        "listeners": f"{plain.properties['listeners']},GUARDED://{address}",
        "advertised.listeners": f"{plain.properties['advertised.listeners']},GUARDED://{address}",
        "listener.security.protocol.map": names,
        "inter.broker.listener.name": "PLAINTEXT",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": STORE_PASSWORD,
        f"{guarded}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{guarded}.plain.sasl.jaas.config": f'{JAAS}.plain.PlainLoginModule required user_etl="{SECRET}";',
        f"{guarded}.scram-sha-256.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule required;",
        f"{guarded}.scram-sha-512.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule required;",
        f"{guarded}.oauthbearer.sasl.jaas.config": (
            f'{JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
    }
    with plain as server:
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one user a request
            user = UserScramCredentialUpsertion("etl", ScramCredentialInfo(mechanism, 4096), SECRET.encode())
            for done in admin.alter_user_scram_credentials([user]).values():
                done.result(timeout=30)
        yield Guarded(address, folder / "ca.pem")


def keytool(*words: str) -> None:
    subprocess.run(["keytool", *words], check=True, capture_output=True)


def unsecured_token(lifetime_seconds: float = 600) -> str:
    """A JWT without a signature: what Kafka's built-in validator for tests takes."""
    now = time.time()
    parts = [{"alg": "none"}, {"sub": "etl", "iat": now, "exp": now + lifetime_seconds}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_login_with_a_password(guarded: Guarded, mechanism: str) -> None:
    config = guarded.config(sasl_mechanism=mechanism, username="etl", password=SECRET)
    assert (await partition_counts(config)).keys() <= {"kept"}


async def test_a_topic_of_a_guarded_cluster_as_a_sink(guarded: Guarded) -> None:
    kafka = guarded.config(sasl_mechanism="SCRAM-SHA-512", username="etl", password=SECRET).kafka
    await create_with(client_kwargs(kafka), "kept")
    settings = Sink(bootstrap_servers=[guarded.address], security=kafka.security, topic="kept")
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


async def test_login_with_a_token(guarded: Guarded, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(unsecured_token() + "\n")
    config = guarded.config(sasl_mechanism="OAUTHBEARER", token_file=str(token))
    assert (await partition_counts(config)).keys() <= {"kept"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_told_but_not_shown(guarded: Guarded, mechanism: str) -> None:
    config = guarded.config(sasl_mechanism=mechanism, username="etl", password="something-else")
    (finding,) = [finding async for finding in connect(config)]
    assert not finding.ok
    assert "uthentication" in str(finding)
    assert "something-else" not in str(finding)


async def test_an_unknown_authority_is_told(guarded: Guarded) -> None:
    config = guarded.config(sasl_mechanism="PLAIN", username="etl", password=SECRET, ca_file=None)
    (finding,) = [finding async for finding in connect(config)]
    assert "CERTIFICATE_VERIFY_FAILED" in str(finding)


async def test_a_token_file_is_read_for_every_connection(tmp_path: Path) -> None:
    tokens = TokenFile(str(tmp_path / "token"), "kafka.security.token_file")
    with pytest.raises(Unavailable, match="token_file"):
        await tokens.token()
    for token in ("one", "two"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert await tokens.token() == token


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
