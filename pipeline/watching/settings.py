"""The section `telemetry`: what a worker says about itself, to whom, and its live page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from schemas.settings import Broken, Section, is_loopback, refuse

SHORTEST_TOKEN = 16  # characters


class Live(Section):
    """The live page of a worker, `/live`: its roles, policies, some kept traces, requests per service, limits.

    `live: true` is short for `live: {enabled: true}`.
    """

    enabled: bool = Field(False, description="Serve it. False: roles keep nothing for it. `worker --live` wins.")
    payloads: bool = Field(
        False, description="Also show values that came in: attributes, log bodies, label values that were refused."
    )
    peers: list[str] = Field(
        [],
        description="Other workers to show on the same page, such as http://10.0.0.7:9464. Their pages must be on and "
        "take the same token; of one without a page, /metrics is shown.",
    )

    @field_validator("peers")
    @classmethod
    def _addresses(cls, peers: list[str]) -> list[str]:
        refuse(_peer_rules(peers))
        return peers


def _peer_rules(peers: list[str]) -> Iterator[Broken]:
    for i, peer in enumerate(peers):
        if rule := worker_rule(peer):
            yield (i,), rule
        elif urlsplit(peer).path not in ("", "/"):
            yield (i,), "must be http(s)://host:port"


def worker_rule(address: str) -> str | None:
    """What is wrong with the address of a worker's pages. It is shown in errors, so no secret may be in it."""
    try:
        url = urlsplit(address)
        found = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        found = False
    if not found:
        return "must be http(s)://host:port"
    if url.username or url.password or url.query:
        return "must not hold credentials; the token (telemetry.token) is sent to all workers"
    return None


class Telemetry(Section):
    """What a worker says about itself."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(9464, ge=0, le=65535, description="/metrics, /healthz, /readyz, /live; 0 picks a free port.")
    token: SecretStr | None = Field(
        None,
        min_length=SHORTEST_TOKEN,
        description="Whoever asks for /metrics, /live or the details of /readyz must send this: as a bearer token, or "
        "once as /live?token=…, which becomes a cookie of the live page. Required unless `host` is loopback.",
    )
    public_metrics: bool = Field(
        False, description="True: /metrics is for everybody who reaches it, also beyond loopback."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="JSON lines on standard error.")
    metrics_level: Literal["none", "normal"] = Field(
        "normal",
        description="none: the worker counts nothing about itself and has no live page. /healthz and /readyz stay; "
        "alerts, dashboards and autoscaling have nothing to go by.",
    )
    live: Annotated[
        Live,
        BeforeValidator(
            lambda value: {"enabled": value} if isinstance(value, bool) else value, json_schema_input_type=bool | Live
        ),
    ] = Field(Live(), description="The live page.")

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if rule := self.missing_token(self.host, self.live.enabled):
            refuse([(("token",), rule)])
        return self

    @property
    def bearer(self) -> str:
        """The token as it is sent, empty if there is none."""
        return self.token.get_secret_value() if self.token else ""

    def missing_token(self, host: str, live: bool = False) -> str:
        """The rule that stands against serving on `host`, with the live page or without; empty if there is none."""
        if self.token is not None or is_loopback(host) or (self.public_metrics and not live):
            return ""
        page = "the live page" if live else "/metrics (or public_metrics: true)"
        return f"is required for {page}: host {host} can be reached from other machines"
