"""What every Kafka client is given so that it reaches the brokers."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from pipeline.config import Kafka, Security
from schemas.errors import ConfigError, Unavailable


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """OAUTHBEARER tokens out of a file that something else keeps fresh, such as a projected service account token.

    The file is read for every new connection: tokens rotate. Raises Unavailable while it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def token(self) -> str:
        """The current token."""
        try:
            return (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except OSError as error:
            raise Unavailable(f"kafka.security.token_file: {error}") from error


def tls_context(security: Security) -> ssl.SSLContext:
    """TLS with the configured authorities and client certificate.

    Raises ConfigError naming the key whose file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"kafka.security.ca_file: {security.ca_file}: {error}") from error
    context.check_hostname = security.verify_hostname
    if security.cert_file:
        password = security.key_password.get_secret_value() if security.key_password else None
        try:
            # A wrong password must not make OpenSSL ask for one on the terminal.
            context.load_cert_chain(security.cert_file, security.key_file, password or "")
        except OSError as error:
            raise ConfigError(f"kafka.security.cert_file: {security.cert_file}: {error}") from error
    return context


def client_kwargs(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments that `AIOKafkaConsumer`, `AIOKafkaProducer` and `AIOKafkaAdminClient` have in common.

    Reads certificate files at once, token files when connecting. Raises ConfigError for files that cannot be used.
    """
    security = kafka.security
    kwargs: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "security_protocol": security.protocol,
    }
    if security.protocol in ("SSL", "SASL_SSL"):
        kwargs["ssl_context"] = tls_context(security)
    if security.sasl_mechanism and security.protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        kwargs["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            kwargs["sasl_oauth_token_provider"] = TokenFile(security.token_file or "")
        else:
            kwargs["sasl_plain_username"] = security.username
            kwargs["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    return kwargs
