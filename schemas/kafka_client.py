"""How any Kafka client reaches its brokers, those of the pipeline or those of a sink, and how a producer is let go."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from schemas.errors import ConfigError, Unavailable
from schemas.settings import Broken, Section, refuse

CLOSE_WAIT = 1.0  # seconds that anybody waits for a producer to close


def _words(value: Any) -> Any:
    """A list out of `a,b`, so that one environment variable can hold it."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def _address(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/,\[\]]+):\d{1,5}", text):
        raise ValueError(f"{text!r} must be host:port")
    return text


Addresses = Annotated[
    list[Annotated[str, AfterValidator(_address)]],
    BeforeValidator(_words, json_schema_input_type=list[str] | str),
]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Security(Section):
    """How to reach Kafka. Passed through to the client: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka's `security.protocol`."
    )
    ca_file: str | None = Field(None, description="Certificate authorities (PEM); unset: those of the system.")
    cert_file: str | None = Field(None, description="Client certificate (PEM), for mutual TLS.")
    key_file: str | None = Field(None, description="Its key (PEM); unset: it is in `cert_file`.")
    key_password: SecretStr | None = Field(None, description="Password of the key.")
    verify_hostname: bool = Field(True, description="False: do not compare the broker's name with its certificate.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="Needed by the two SASL protocols."
    )
    username: str | None = Field(None, description="PLAIN and SCRAM.")
    password: SecretStr | None = Field(None, description="PLAIN and SCRAM.")
    token_file: str | None = Field(None, description="OAUTHBEARER: a file with the current token, re-read when asked.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        sasl, tls = self.protocol.startswith("SASL_"), self.protocol in ("SSL", "SASL_SSL")
        if sasl and self.sasl_mechanism is None:
            yield ("sasl_mechanism",), f"is required by protocol: {self.protocol}"
        if not sasl and self.sasl_mechanism is not None:
            yield ("sasl_mechanism",), f"needs protocol: SASL_PLAINTEXT or SASL_SSL, not {self.protocol}"
        if sasl and self.sasl_mechanism == "OAUTHBEARER" and not self.token_file:
            yield ("token_file",), "is required by sasl_mechanism: OAUTHBEARER"
        if sasl and self.sasl_mechanism not in (None, "OAUTHBEARER"):
            for key in ("username", "password"):
                if getattr(self, key) is None:
                    yield (key,), f"is required by sasl_mechanism: {self.sasl_mechanism}"
        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(self, key) is not None and not tls:
                yield (key,), f"needs protocol: SSL or SASL_SSL, not {self.protocol}"
        if self.key_file is not None and self.cert_file is None:
            yield ("cert_file",), "is required by key_file"


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """OAUTHBEARER tokens out of a file that something else keeps fresh, such as a projected service account token.

    The file is read for every new connection: tokens rotate. Raises Unavailable, naming `key`, while it cannot be read.
    """

    def __init__(self, path: str, key: str) -> None:
        self._path, self._key = Path(path), key

    async def token(self) -> str:
        """The current token."""
        try:
            return (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except OSError as error:
            raise Unavailable(f"{self._key}: {error}") from error


def tls_context(security: Security, section: str) -> ssl.SSLContext:
    """TLS with the configured authorities and client certificate. `section` is the settings' path.

    Raises ConfigError naming the key whose file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{section}.ca_file: {security.ca_file}: {error}") from error
    context.check_hostname = security.verify_hostname
    if security.cert_file:
        password = security.key_password.get_secret_value() if security.key_password else None
        try:
            # A wrong password must not make OpenSSL ask for one on the terminal.
            context.load_cert_chain(security.cert_file, security.key_file, password or "")
        except OSError as error:
            raise ConfigError(f"{section}.cert_file: {security.cert_file}: {error}") from error
    return context


def connection(servers: Sequence[str], security: Security, section: str) -> dict[str, Any]:
    """Keyword arguments that `AIOKafkaConsumer`, `AIOKafkaProducer` and `AIOKafkaAdminClient` have in common.

    Reads certificate files at once, token files when connecting. Raises ConfigError for files that cannot be used;
    it names keys of `section`.
    """
    kwargs: dict[str, Any] = {"bootstrap_servers": list(servers), "security_protocol": security.protocol}
    if security.protocol in ("SSL", "SASL_SSL"):
        kwargs["ssl_context"] = tls_context(security, section)
    if security.sasl_mechanism and security.protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        kwargs["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            kwargs["sasl_oauth_token_provider"] = TokenFile(security.token_file or "", f"{section}.token_file")
        else:
            kwargs["sasl_plain_username"] = security.username
            kwargs["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    return kwargs


def told(error: BaseException) -> str:
    """An error of aiokafka as text; where it only says that it could not begin, in fewer words."""
    if isinstance(error, KafkaConnectionError) and "Unable to bootstrap" in str(error):
        return "no broker can be reached"
    return str(error) or type(error).__name__


_closing: set[asyncio.Task[None]] = set()


async def let_go(producer: AIOKafkaProducer) -> None:
    """Close a producer, in the background if its brokers are away.

    It flushes first, and aiokafka closes neither connections nor tasks of one whose `stop` was cancelled.
    """

    def ended(task: asyncio.Task[None]) -> None:
        _closing.discard(task)
        if not task.cancelled():
            task.exception()

    task = asyncio.create_task(producer.stop())
    _closing.add(task)
    task.add_done_callback(ended)
    await asyncio.wait({task}, timeout=CLOSE_WAIT)
