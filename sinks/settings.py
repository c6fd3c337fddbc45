"""How a destination is reached: one entry of the `sinks` map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from schemas.settings import Duration, Section


class Batch(Section):
    """When a sink sends: whichever comes first."""

    max_items: int = Field(1000, ge=1)
    max_bytes: int = Field(4 << 20, ge=1)
    max_age: Duration = 1.0


class Retry(Section):
    """Full-jitter exponential back-off; a server's Retry-After wins."""

    initial_interval: Duration = 0.5
    max_interval: Duration = 30.0
    multiplier: float = Field(2.0, ge=1)


class SinkAuth(Section):
    username: str | None = None
    password: SecretStr | None = None
    bearer_token: SecretStr | None = None
    api_key: SecretStr | None = None


class Sink(Section):
    """One destination. The key in `sinks` is `kind` or `kind/name`; kinds: jaeger, elasticsearch, prometheus."""

    endpoint: str = Field(
        pattern=r"^https?://",
        description="jaeger: base URL of OTLP/HTTP (:4318). elasticsearch: base URL. prometheus: full remote-write URL.",
    )
    timeout: Duration = 30.0
    headers: dict[str, str] = {}
    auth: SinkAuth = SinkAuth()
    ca_file: str | None = None
    compression: Literal["gzip", "none"] = Field(
        "gzip", description="jaeger and elasticsearch; remote write is always snappy."
    )
    batch: Batch = Batch()
    retry: Retry = Retry()
    dataset: str = Field("tailrace", description="elasticsearch: data stream logs-<dataset>-<namespace>.")
    namespace: str = "default"
    shards: int = Field(4, ge=1, description="prometheus: parallel requests; a series stays on one shard.")
