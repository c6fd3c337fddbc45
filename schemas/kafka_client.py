"""How any Kafka client reaches its brokers, those of the pipeline or those of a sink, and how a producer is let go."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from schemas import kafka_connect
from schemas.errors import ConfigError
from schemas.kafka_connect import NO_ANSWER
from schemas.kafka_tokens import Client, ClientCredentials, TokenFile
from schemas.settings import Broken, Section, Url, is_loopback, refuse
from schemas.tls import trusting

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
    token_file: str | None = Field(
        None, description="OAUTHBEARER: a file with the current token, read anew for every connection."
    )
    token_endpoint_url: Url | None = Field(
        None,
        description="OAUTHBEARER: or the token endpoint of an OIDC provider, asked with client credentials (KIP-768, "
        "`sasl.oauthbearer.token.endpoint.url`) before the last token ends.",
    )
    token_endpoint_ca_file: str | None = Field(
        None, description="Certificate authorities of the token endpoint (PEM); unset: those of the system."
    )
    client_id: str | None = Field(None, description="OAUTHBEARER with a token endpoint.")
    client_secret: SecretStr | None = Field(None, description="OAUTHBEARER with a token endpoint.")
    scope: str | None = Field(None, description="OAUTHBEARER with a token endpoint: what is asked for, if anything.")

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
        if sasl and self.sasl_mechanism == "OAUTHBEARER":
            yield from self._token_rules()
        if sasl and self.sasl_mechanism not in (None, "OAUTHBEARER"):
            for key in ("username", "password"):
                if getattr(self, key) is None:
                    yield (key,), f"is required by sasl_mechanism: {self.sasl_mechanism}"
        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(self, key) is not None and not tls:
                yield (key,), f"needs protocol: SSL or SASL_SSL, not {self.protocol}"
        if self.key_file is not None and self.cert_file is None:
            yield ("cert_file",), "is required by key_file"

    def _token_rules(self) -> Iterator[Broken]:
        if self.token_endpoint_url is None:
            if not self.token_file:
                yield ("token_file",), "is required by sasl_mechanism: OAUTHBEARER, or token_endpoint_url"
            return
        if self.token_file:
            yield ("token_endpoint_url",), "one of token_file and token_endpoint_url is enough"
        for key in ("client_id", "client_secret"):
            if getattr(self, key) is None:
                yield (key,), "is required by token_endpoint_url"
        url = urlsplit(self.token_endpoint_url)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield ("token_endpoint_url",), "must be https: client_secret is sent to it"
        if url.username or url.password:
            yield ("token_endpoint_url",), "must not hold credentials; they are client_id and client_secret"


def tls_context(security: Security, section: str) -> ssl.SSLContext:
    """TLS with the configured authorities and client certificate. `section` is the settings' path.

    Raises ConfigError naming the key whose file cannot be used.
    """
    context = trusting(security.ca_file, f"{section}.ca_file")
    context.check_hostname = security.verify_hostname
    if security.cert_file:
        password = security.key_password.get_secret_value() if security.key_password else None
        try:
            # A wrong password must not make OpenSSL ask for one on the terminal.
            context.load_cert_chain(security.cert_file, security.key_file, password or "")
        except OSError as error:
            raise ConfigError(f"{section}.cert_file: {security.cert_file}: {error}") from error
    return context


@cache
def _client_credentials(security: Security, section: str) -> ClientCredentials:
    """One for all clients of a section: a provider that each partition's producer asks would be asked often."""
    url, client_id, secret = security.token_endpoint_url, security.client_id, security.client_secret
    if url is None or client_id is None or secret is None:
        raise ConfigError(f"{section}.token_endpoint_url needs client_id and client_secret")
    tls = None
    if security.token_endpoint_ca_file is not None:
        tls = trusting(security.token_endpoint_ca_file, f"{section}.token_endpoint_ca_file")
    return ClientCredentials(Client(url, client_id, secret, security.scope), tls, f"{section}.token_endpoint_url")


def _tokens(security: Security, section: str) -> AbstractTokenProvider:
    if security.token_file:
        return TokenFile(security.token_file, f"{section}.token_file")
    return _client_credentials(security, section)


def connection(servers: Sequence[str], security: Security, section: str) -> dict[str, Any]:
    """Keyword arguments that `AIOKafkaConsumer`, `AIOKafkaProducer` and `AIOKafkaAdminClient` have in common.

    Reads certificate files at once, token files when connecting. Raises ConfigError for files that cannot be used;
    it names keys of `section`. Those that are made afterwards connect as schemas/kafka_connect.py says.
    """
    kafka_connect.begin()
    kwargs: dict[str, Any] = {"bootstrap_servers": list(servers), "security_protocol": security.protocol}
    if security.protocol in ("SSL", "SASL_SSL"):
        kwargs["ssl_context"] = tls_context(security, section)
    if security.sasl_mechanism and security.protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        kwargs["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            kwargs["sasl_oauth_token_provider"] = _tokens(security, section)
        else:
            kwargs["sasl_plain_username"] = security.username
            kwargs["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    return kwargs


def told(error: BaseException) -> str:
    """An error of aiokafka as text; where it only says that it could not begin, in fewer words."""
    if isinstance(error, KafkaConnectionError) and "Unable to bootstrap" in str(error):
        return "no broker can be reached"
    return str(error) or type(error).__name__


# What a TLS stack or a broker says, and what is to be done about it; {section} is the settings' path.
_ADVICE = (
    (
        r"(?i)self[- ]signed certificate|unable to get (local )?issuer certificate",
        "{section}.ca_file must hold the authority that signed the brokers' certificate",
    ),
    (
        r"(?i)certificate is not valid for|hostname mismatch|IP address mismatch",
        "the brokers' certificate names other hosts: use one of those in bootstrap_servers and in the brokers' "
        "advertised.listeners, or set {section}.verify_hostname: false",
    ),
    (r"(?i)certificate has expired", "the brokers' certificate has expired: the brokers need a new one"),
    (
        r"(?i)certificate[_ ]required|bad[_ ]certificate|unknown[_ ]ca|handshake[_ ]failure",
        "the brokers refuse the client's certificate: {section}.cert_file must hold one that their authority signed",
    ),
    (
        r"WRONG_VERSION_NUMBER|(?i:wrong version number)",
        "this listener has no TLS: {section}.protocol, or another port",
    ),
    (r"IllegalSaslState", "{section}.protocol must be its listener's: this one takes no SASL"),
    (
        r"does not support \S+ sasl mechanism|UnsupportedSaslMechanism",
        "{section}.sasl_mechanism must be one that this listener has enabled",
    ),
    (
        r"(?i)authentication ?failed|invalid_token|access token",
        "the brokers refuse the login: {section}.username and password, or the token; look at sasl_mechanism too",
    ),
    (
        NO_ANSWER,
        "the address (`bootstrap_servers`) must be right, and no firewall or NetworkPolicy in between",
    ),
    (
        # A connection that is reset in the middle of a TLS handshake is an error without a text.
        r"Connection at \S+ closed|0 bytes read|EOF occurred|ConnectionResetError|Connection reset|\": (;|$)",
        "the broker hangs up: {section}.protocol must be its listener's, or it wants {section}.cert_file (mutual TLS)",
    ),
)


def advice(said: str, section: str = "kafka.security") -> str:
    """What to do about an error text of a connection, naming keys; empty where nothing is known.

    >>> advice("[SSL: WRONG_VERSION_NUMBER] wrong version number")
    'this listener has no TLS: kafka.security.protocol, or another port'
    """
    return next((text.format(section=section) for pattern, text in _ADVICE if re.search(pattern, said)), "")


_closing: set[asyncio.Task[None]] = set()


async def let_go(producer: AIOKafkaProducer) -> None:
    """Close a producer, in the background if its brokers are away.

    It flushes first, and aiokafka closes neither connections nor tasks of one whose `stop` was cancelled.
    """

    def ended(task: asyncio.Task[None]) -> None:
        _closing.discard(task)
        for each in (task, *_unheard(producer)):
            if each.done() and not each.cancelled():
                each.exception()  # or asyncio logs that nobody asked for it

    task = asyncio.create_task(producer.stop())
    _closing.add(task)
    task.add_done_callback(ended)
    await asyncio.wait({task}, timeout=CLOSE_WAIT)


def _unheard(producer: AIOKafkaProducer) -> Iterator[asyncio.Future[Any]]:
    """What aiokafka 0.14 fails of a producer that is fenced, whether anybody waits for it or not."""
    for batch in chain.from_iterable(producer._message_accumulator._batches.values()):
        yield batch._drain_waiter
        yield from (future for future, _ in batch._msg_futures)
    if producer._txn_manager is not None and producer._txn_manager._transaction_waiter is not None:
        yield producer._txn_manager._transaction_waiter
