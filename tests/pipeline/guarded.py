"""A broker with a listener for every way to be reached, and the authorities behind it: certificates and tokens."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trustme
from aiohttp import web
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.services.process import HOST, free_port
from tests.services.servers import Kafka
from tests.services.serving import serving

USER, PASSWORD = "etl", "let-me-in-kafka"
CLIENT_ID, CLIENT_SECRET = "tailrace:workers", "pässword of the client"
KEY_PASSWORD = "open-the-key"
ISSUER, AUDIENCE = "https://issuer.example", "kafka"
TIMEOUT = 30.0
_JAAS = "org.apache.kafka.common.security"
_LISTENERS = {"TLS": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_PLAINTEXT", "GUARDED": "SASL_SSL"}


class Authorities:
    """Files of a certificate authority, a client and a stranger; and a key that signs tokens."""

    def __init__(self, folder: Path) -> None:
        ca, others = trustme.CA(), trustme.CA()
        self.ca_file = self._written(folder / "ca.pem", ca.cert_pem.bytes())
        self.other_ca_file = self._written(folder / "other-ca.pem", others.cert_pem.bytes())
        self.server = ca.issue_cert(HOST)
        server = self.server
        self.server_file = self._written(
            folder / "server.pem", _pkcs8(server.private_key_pem.bytes()), *(c.bytes() for c in server.cert_chain_pems)
        )
        client = ca.issue_cert("etl@example.org")
        key = _pkcs8(client.private_key_pem.bytes(), KEY_PASSWORD)
        self.key_file = self._written(folder / "client.key", key)
        self.cert_file = self._written(folder / "client.pem", *(c.bytes() for c in client.cert_chain_pems))
        self._signing = rsa.generate_private_key(65537, 2048)
        numbers = self._signing.public_key().public_numbers()
        public = {"n": _number(numbers.n), "e": _number(numbers.e)}
        jwks = {"keys": [{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", **public}]}
        self.jwks_file = self._written(folder / "jwks.json", json.dumps(jwks).encode())

    def token(self) -> str:
        """A signed JWT of USER."""
        now = time.time()
        claims = {"sub": USER, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600}
        parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1"}, claims)]
        signed = ".".join(parts)
        return f"{signed}.{_base64(self._signing.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    @staticmethod
    def _written(path: Path, *parts: bytes) -> str:
        path.write_bytes(b"".join(parts))
        return str(path)


class GuardedKafka(Kafka):
    """Beside the plain listener one with TLS, one that wants client certificates, one with a login, one with both."""

    def __init__(self, authorities: Authorities) -> None:
        super().__init__()
        self.addresses = {name: f"{HOST}:{free_port()}" for name in _LISTENERS}
        self.authorities = authorities
        # From Kafka 4.0 on a broker reads keys only from where it is told that it may.
        url = Path(authorities.jwks_file).as_uri()
        self.flags.append(f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={url}")
        own = ",".join(f"{name}://{address}" for name, address in self.addresses.items())
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in _LISTENERS.items())
        self.properties |= {
            "listeners": f"{self.properties['listeners']},{own}",
            "advertised.listeners": f"{self.properties['advertised.listeners']},{own}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": authorities.server_file,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": authorities.ca_file,
            "listener.name.mutual.ssl.client.auth": "required",
        }
        plain = f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = f"{_JAAS}.scram.ScramLoginModule required;"
        for listener in ("login", "guarded"):
            name = f"listener.name.{listener}"
            self.properties |= {
                f"{name}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
                f"{name}.plain.sasl.jaas.config": plain,
                f"{name}.scram-sha-256.sasl.jaas.config": scram,
                f"{name}.scram-sha-512.sasl.jaas.config": scram,
                f"{name}.oauthbearer.sasl.jaas.config": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
                f"{name}.oauthbearer.sasl.server.callback.handler.class": (
                    f"{_JAAS}.oauthbearer.OAuthBearerValidatorCallbackHandler"
                ),
            }
        self.properties |= {
            "sasl.oauthbearer.jwks.endpoint.url": url,
            "sasl.oauthbearer.expected.issuer": ISSUER,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
        }

    def add_user(self) -> None:
        """USER may log in with SCRAM."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one user a request
            user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for done in admin.alter_user_scram_credentials([user]).values():
                done.result(timeout=TIMEOUT)


@dataclass(slots=True)
class Provider:
    """An OIDC provider's token endpoint: who asked with which form, and what it answers."""

    url: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@asynccontextmanager
async def provider(authorities: Authorities) -> AsyncIterator[Provider]:
    """A provider that knows one client, behind TLS."""

    async def token(request: web.Request) -> web.Response:
        login = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        found.asked.append((login, dict(await request.post())))
        if login != f"{quote(CLIENT_ID, safe='')}:{quote(CLIENT_SECRET, safe='')}":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"access_token": authorities.token(), "token_type": "Bearer", "expires_in": 600})

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authorities.server.configure_cert(tls)
    async with serving(token, tls) as url:
        found = Provider(f"{url}/token")
        yield found


def _pkcs8(pem: bytes, password: str = "") -> bytes:
    """A key as Java reads it, and as OpenSSL does with a password."""
    key = serialization.load_pem_private_key(pem, None)
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
