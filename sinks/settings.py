"""How a destination is reached: one entry of the `sinks` map, and which of its keys are for which kind."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, FiniteFloat, SecretStr

from schemas.kafka_client import Addresses, Security, TopicName
from schemas.settings import Broken, Duration, Section, Url, is_loopback, is_secret_name, without_parameters

OTLP_KINDS = ("jaeger", "otlp")
KINDS = (*OTLP_KINDS, "elasticsearch", "prometheus", "kafka")
HTTP_KINDS = (*OTLP_KINDS, "elasticsearch", "prometheus")
TRACES_PATH, LOGS_PATH = "/v1/traces", "/v1/logs"  # of OTLP/HTTP
# Keys that only some kinds have.
KEYS_OF: dict[str, tuple[str, ...]] = {
    "endpoint": HTTP_KINDS,
    "endpoints": (*OTLP_KINDS, "elasticsearch"),
    "protocol": OTLP_KINDS,
    "signals": ("otlp",),
    "headers": HTTP_KINDS,
    "auth": HTTP_KINDS,
    "ca_file": HTTP_KINDS,
    "cert_file": HTTP_KINDS,
    "key_file": HTTP_KINDS,
    "compression": (*OTLP_KINDS, "elasticsearch", "kafka"),
    "dataset": ("elasticsearch",),
    "namespace": ("elasticsearch",),
    "mapping": ("elasticsearch",),
    "lifecycle": ("elasticsearch",),
    "manage_template": ("elasticsearch",),
    "shards": ("prometheus",),
    "bootstrap_servers": ("kafka",),
    "topic": ("kafka",),
    "security": ("kafka",),
    "max_message_bytes": ("kafka",),
}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


class Batch(Section):
    """When a sink sends: whichever comes first."""

    max_items: int = Field(1000, ge=1, description="Spans, documents or samples of one request.")
    max_bytes: int = Field(
        3 << 20, ge=1, description="Bytes of its body before compression; most gRPC servers take 4 MiB."
    )
    max_age: Duration = Field(1.0, gt=0, description="How long the oldest item waits.")


class Retry(Section):
    """Full-jitter exponential back-off; a server's Retry-After (gRPC: RetryInfo) wins."""

    initial_interval: Duration = Field(0.5, gt=0, description="Longest wait before the first retry.")
    max_interval: Duration = Field(30.0, gt=0, description="Longest wait of all; there is no last retry.")
    multiplier: FiniteFloat = Field(2.0, ge=1, description="From one wait to the next.")


class SinkAuth(Section):
    """Credentials: a name with its password, a bearer token or an API key; none by default.

    They are sent over TLS alone, unless the server is on this machine or `allow_http` says otherwise.
    """

    username: str | None = Field(None, description="HTTP basic authentication.")
    password: SecretStr | None = Field(None, description="HTTP basic authentication.")
    bearer_token: SecretStr | None = Field(None, description="Sent as `Authorization: Bearer`.")
    bearer_token_file: str | None = Field(
        None, description="The same out of a file, read anew for every request: tokens rotate."
    )
    api_key: SecretStr | None = Field(
        None, description="Sent as `Authorization: ApiKey` (Elasticsearch, encoded form)."
    )
    allow_http: bool = Field(
        False,
        description="True: send credentials, also those in `headers`, over http:// where anybody on the way reads "
        "them, such as inside a mesh that encrypts.",
    )

    @property
    def ways(self) -> list[str]:
        """The keys of the credentials that there are."""
        keys = ("username", "bearer_token", "bearer_token_file", "api_key")
        return [key for key in keys if getattr(self, key) is not None]


class Lifecycle(Section):
    """When documents are deleted and indices roll over. Neither key: never; one index grows for ever.

    The index template carries it, so it is for data streams made from now on; deploy/elasticsearch/README.md has the
    request that changes an existing one.
    """

    data_retention: Duration | None = Field(
        None, gt=0, description="The data stream's own lifecycle (Elasticsearch 8.14 and newer) keeps them so long."
    )
    policy: str | None = Field(
        None, min_length=1, description="Or the name of an ILM policy; deploy/elasticsearch has one to install."
    )


class Sink(Section):
    """One destination. The key in `sinks` is `kind` or `kind/name`.

    Kinds: jaeger, otlp, elasticsearch, prometheus, and kafka, which is a topic of kept spans for others to read. A key
    with a kind's name in front of its meaning is for that kind only.
    """

    endpoint: Url | None = Field(
        None,
        description="jaeger, otlp: base URL, of OTLP/HTTP (:4318) or OTLP/gRPC (:4317); elasticsearch: base URL; "
        "prometheus: remote-write URL. https:// is TLS, with gRPC too.",
    )
    endpoints: list[Url] = Field(
        [],
        description="jaeger, otlp, elasticsearch: several servers of one backend instead of `endpoint`. One that does "
        "not answer is left for the next.",
    )
    protocol: Literal["http/protobuf", "grpc"] = Field("http/protobuf", description="jaeger, otlp: how OTLP travels.")
    signals: list[Literal["traces", "logs"]] = Field(
        ["traces"], min_length=1, description="otlp: kept spans, kept and untraced logs, or both."
    )
    timeout: Duration = Field(30.0, gt=0, description="Of one request, answer included; then it is sent again.")
    headers: dict[str, str] = Field({}, description="Sent with every request; gRPC: its metadata.")
    auth: SinkAuth = Field(SinkAuth(), description="Credentials.")
    ca_file: str | None = Field(
        None, description="Certificate authorities (PEM); unset: those of the system, gRPC: those that grpcio brings."
    )
    cert_file: str | None = Field(None, description="Client certificate (PEM), for mutual TLS.")
    key_file: str | None = Field(None, description="Its key (PEM); unset: it is in `cert_file`.")
    compression: Literal["gzip", "none", "zstd", "lz4", "snappy"] | None = Field(
        None,
        description="jaeger, otlp, elasticsearch: gzip, unless none; kafka: any of them, unset zstd. Remote write is "
        "always snappy.",
    )
    batch: Batch = Field(Batch(), description="When a request is full.")
    retry: Retry = Field(Retry(), description="How a request that failed is sent again.")
    dataset: str = Field(
        "tailrace",
        pattern=r"^[a-z0-9._]{1,100}$",
        description="elasticsearch: documents go to the data stream `logs-<dataset>-<namespace>`.",
    )
    namespace: str = Field(
        "default", pattern=r"^[a-z0-9._]{1,100}$", description="elasticsearch: last part of the data stream's name."
    )
    mapping: Literal["otel", "ecs"] = Field(
        "otel",
        description="elasticsearch: shape of documents: OpenTelemetry's data model or the Elastic Common Schema. One "
        "data stream has one of them.",
    )
    lifecycle: Lifecycle = Field(Lifecycle(), description="elasticsearch: what becomes of old documents.")
    manage_template: bool = Field(
        True,
        description="elasticsearch: install the index template at start; false: deploy/elasticsearch has it to install "
        "by hand.",
    )
    shards: int = Field(4, ge=1, description="prometheus: parallel requests; a series stays on one shard.")
    bootstrap_servers: Addresses = Field([], description="kafka: `host:port` of some brokers, of any cluster.")
    topic: TopicName = Field("jaeger-spans", description="kafka: where kept spans go: otlp_proto, keyed by trace id.")
    security: Security = Field(Security(), description="kafka: TLS and SASL.")
    max_message_bytes: int = Field(
        1_000_000, ge=1, description="kafka: a trace with more becomes several messages; the topic must take as much."
    )

    @property
    def urls(self) -> list[str]:
        """The servers, at least one, unless it is a Kafka topic."""
        return [self.endpoint] if self.endpoint is not None else list(self.endpoints)

    @property
    def servers(self) -> list[str]:
        """Where it is, for people: URLs without parameters, or brokers with the topic."""
        return [*map(without_parameters, self.urls)] or [f"{', '.join(self.bootstrap_servers)} {self.topic}"]


def sink_kind(name: str) -> str:
    """The kind of destination that a key of `sinks` names.

    >>> sink_kind("jaeger/eu")
    'jaeger'
    """
    return name.partition("/")[0]


def of_kind(kind: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The keys that a kind has."""
    return {key: value for key, value in keys.items() if kind in KEYS_OF.get(key, KINDS)}


def _meant(name: str) -> str:
    """What a key of `sinks` that is no kind probably was to be.

    >>> _meant("jaeger:prod"), _meant("jeager"), _meant("tempo")
    ('; did you mean jaeger/prod?', '; did you mean jaeger?', ', such as otlp/tempo')
    """
    kind, _, rest = re.fullmatch(r"([a-zA-Z]*)([^a-zA-Z]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    close = difflib.get_close_matches(kind.lower(), KINDS, 1)
    after = re.sub(r"[^a-zA-Z0-9._-]+", "-", rest if close else name).strip("-")
    meant = "/".join(filter(None, [*(close or ["otlp"]), after]))
    return f"; did you mean {meant}?" if close else f", such as {meant}"


def sink_rules(name: str, sink: Sink) -> Iterator[Broken]:
    """What is wrong with an entry of `sinks` that its kind forbids or its keys together do."""
    kind = sink_kind(name)
    if kind not in KINDS or not re.fullmatch(r"[a-z]+(/[a-zA-Z0-9._-]+)?", name):
        yield (), f"must be one of {', '.join(KINDS)}, alone or with /NAME behind it{_meant(name)}"
        return
    for key in sorted(sink.model_fields_set & KEYS_OF.keys()):
        if kind not in KEYS_OF[key]:
            *most, last = KEYS_OF[key]
            yield (key,), f"is for {', '.join(most)}{' and ' if most else ''}{last} only"
    if kind == "kafka":
        if not sink.bootstrap_servers:
            yield ("bootstrap_servers",), "is required"
        return
    if sink.compression not in (None, "gzip", "none"):
        yield ("compression",), f"must be gzip or none for {kind}"
    if sink.endpoint is None and not sink.endpoints:
        yield ("endpoint",), "is required" + ", or endpoints" * (kind in KEYS_OF["endpoints"])
    if sink.endpoint is not None and sink.endpoints:
        yield ("endpoints",), "one of endpoint and endpoints is enough"
        return
    if len({url.rstrip("/") for url in sink.endpoints}) < len(sink.endpoints):
        yield ("endpoints",), "each server once"
    if kind in OTLP_KINDS:
        for url in sink.urls:
            if urlsplit(url).path.rstrip("/").endswith((TRACES_PATH, LOGS_PATH)):
                yield ("endpoint",), "is a base URL: the sink adds /v1/traces and /v1/logs itself"
    places: list[tuple[str | int, ...]] = [("endpoints", i) for i in range(len(sink.endpoints))] or [("endpoint",)]
    for place, url in zip(places, sink.urls, strict=False):
        yield from ((place, rule) for rule in url_rules(url, sink.auth, sink.headers))
    yield from _credential_rules(sink)
    if sink.lifecycle.data_retention is not None and sink.lifecycle.policy is not None:
        yield ("lifecycle",), "one of data_retention and policy is enough"
    if len(set(sink.signals)) < len(sink.signals):
        yield ("signals",), "each signal once"


def url_rules(text: str, auth: SinkAuth, headers: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a URL that gets these credentials and headers."""
    url = urlsplit(text)
    if not url.hostname:
        yield "has no host"
    elif not is_host(url.hostname):
        yield "has a host that is no name: between its dots are 1 to 63 characters"
    try:
        url.port  # noqa: B018 - it is read here
    except ValueError:
        yield "has no port between 0 and 65535"
    if url.username or url.password:
        yield "must not hold credentials; they belong in auth"
    sent = [*auth.ways, *(f"headers.{name}" for name in headers if is_secret_name(name))]
    if sent and url.scheme == "http" and not is_loopback(url.hostname or "") and not auth.allow_http:
        yield f"must be https://, since {sent[0]} goes there; auth.allow_http: true sends it in the clear"


def is_host(text: str) -> bool:
    """Whether asyncio can look a name up: with an empty label, or one of more than 63 characters, it fails.

    >>> is_host("jaeger.svc"), is_host("::1"), is_host("jaeger..svc")
    (True, True, False)
    """
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def is_one_line(text: str, ascii: bool = True) -> bool:
    """Whether a text may be the value of a header.

    >>> is_one_line("s3cret"), is_one_line("s3cret\\n")
    (True, False)
    """
    return text.isprintable() and (text.isascii() or not ascii)


def _credential_rules(sink: Sink) -> Iterator[Broken]:
    auth = sink.auth
    if len(auth.ways) > 1:
        yield ("auth",), f"one way is enough: {', '.join(auth.ways)}"
    if (auth.username is None) != (auth.password is None):
        yield ("auth",), "username and password belong together"
    for key in ("password", "bearer_token", "api_key"):
        secret = "" if (found := getattr(auth, key)) is None else found.get_secret_value()
        # A password is encoded; a line break at its end is never meant.
        if not (secret == secret.rstrip("\r\n") if key == "password" else is_one_line(secret)):
            yield ("auth", key), "holds a line break or what no header may; was it written with echo instead of printf?"
    for name, value in sink.headers.items():
        if not _HEADER_NAME(name):
            yield ("headers", name), "is no name of a header"
        elif not is_one_line(value.replace("\t", " "), ascii=sink.protocol == "grpc"):
            yield ("headers", name), "must be one line" + " of printable ASCII with gRPC" * (sink.protocol == "grpc")
        elif sink.protocol == "grpc" and name.lower().endswith("-bin"):
            yield ("headers", name), "gRPC takes names with -bin for bytes, which cannot be given here"
    if sink.key_file is not None and sink.cert_file is None:
        yield ("cert_file",), "is required by key_file"
