"""How a destination is reached: one entry of the `sinks` map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from schemas.settings import Duration, Section


class Batch(Section):
    """When a sink sends: whichever comes first."""

    max_items: int = Field(1000, ge=1, description="Spans, documents or samples of one request.")
    max_bytes: int = Field(4 << 20, ge=1, description="Bytes of its body before compression.")
    max_age: Duration = Field(1.0, gt=0, description="How long the oldest item waits.")


class Retry(Section):
    """Full-jitter exponential back-off; a server's Retry-After wins."""

    initial_interval: Duration = Field(0.5, gt=0, description="Longest wait before the first retry.")
    max_interval: Duration = Field(30.0, gt=0, description="Longest wait of all; there is no last retry.")
    multiplier: float = Field(2.0, ge=1, description="From one wait to the next.")


class SinkAuth(Section):
    """Credentials: a name with its password, a bearer token or an API key; none by default."""

    username: str | None = Field(None, description="HTTP basic authentication.")
    password: SecretStr | None = Field(None, description="HTTP basic authentication.")
    bearer_token: SecretStr | None = Field(None, description="Sent as `Authorization: Bearer`.")
    api_key: SecretStr | None = Field(
        None, description="Sent as `Authorization: ApiKey` (Elasticsearch, encoded form)."
    )


class Sink(Section):
    """One destination. The key in `sinks` is `kind` or `kind/name`; kinds: jaeger, elasticsearch, prometheus."""

    endpoint: str = Field(
        pattern=r"^https?://",
        description="jaeger: base URL of OTLP/HTTP (:4318); elasticsearch: base URL; prometheus: remote-write URL.",
    )
    timeout: Duration = Field(30.0, gt=0, description="Of one request, answer included; then it is sent again.")
    headers: dict[str, str] = Field({}, description="Sent with every request.")
    auth: SinkAuth = Field(SinkAuth(), description="Credentials.")
    ca_file: str | None = Field(None, description="Certificate authorities (PEM); unset: those of the system.")
    compression: Literal["gzip", "none"] = Field(
        "gzip", description="jaeger and elasticsearch; remote write is always snappy."
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
    shards: int = Field(4, ge=1, description="prometheus: parallel requests; a series stays on one shard.")
