"""OTLP/gRPC: export requests as unary calls, with the bytes of OTLP/HTTP.

What a status says of the rows follows the OTLP specification ("Failures") with one difference, the same as over HTTP:
a status that an operator can mend (credentials, a service that is not there) costs time, not data. Refused because of
what is in the request: INVALID_ARGUMENT, FAILED_PRECONDITION, ALREADY_EXISTS, INTERNAL (grpc-go's word for a message
that it cannot decode, and the Collector's for every permanent error) and RESOURCE_EXHAUSTED for a message that is too
large. RESOURCE_EXHAUSTED otherwise is a limit: with RetryInfo the specification says to wait, without it servers such
as Tempo mean the same.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # or its core writes lines of its own among those of JSON

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from schemas.errors import ConfigError
from sinks.contract import Outcome, Unavailable
from sinks.endpoints import Endpoints
from sinks.http import USER_AGENT, Rejected, Tls, authorization, shortened
from sinks.otlp_service import REFUSING, Service
from sinks.proxies import proxy_of
from sinks.settings import Sink

DEFAULT_PORT = 4317
NO_MESSAGE = "OK"  # the reason of a retry after a success that says nothing, or nothing of OTLP
NO_ANSWER = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
# grpc-go: "received message larger than max", "received message after decompression larger than max"; grpc-core:
# "Received message larger than max"; grpc-java: "gRPC message exceeds maximum size".
TOO_LARGE = re.compile(r"larger than max|exceeds (the )?maximum|length too large")  # gRPC's of C and Go, .NET, Rust
OF_SIZE = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
# What gRPC makes of the answer of a proxy that is no gRPC: 413 and 422 are in sinks/http.py's REFUSING as well.
OF_PROXY = re.compile(r"status(?: code)?:? *(?:413|422)\b")
# The client's own word, often INTERNAL, for a stream that was cut, or for an answer that it cannot read: no answer.
CUT = re.compile(r"^Stream removed \(|RST_STREAM|Compression bit set but no encoding configured")
# The client's own INTERNAL for a page or a word of HTTP from what is in front of the server: no gRPC server says that.
OF_HTTP = re.compile(r"Received http2 header with status: 400\b")
DETAILS = "grpc-status-details-bin"
METADATA_BYTES = 256 << 10
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 310_000, 20_000  # servers of grpc-go take a ping in five minutes


class OverGrpc:
    """Calls one of the sink's servers, until that one does not answer."""

    def __init__(self, settings: Sink) -> None:
        self._settings = settings
        self._endpoints = Endpoints(settings.urls)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._tls: Tls | None = None  # gRPC reads certificates once and tells of none that cannot be used
        self._closing: set[asyncio.Task[None]] = set()
        self._compression = grpc.Compression.NoCompression if settings.compression == "none" else grpc.Compression.Gzip

    async def open(self) -> None:
        """Read the certificates, make a channel to each server. Connects to nothing yet. Raises ConfigError."""
        if not self._channels:
            self._tls, self._channels = Tls.of(self._settings), self._made()

    def _made(self) -> dict[str, grpc.aio.Channel]:
        retry = self._settings.retry
        options = [
            ("grpc.enable_retries", 0),  # pipeline/sending/delivery.py has them
            ("grpc.max_send_message_length", -1),
            # What a server says of an error may be long: beyond 8 KiB the client would make a limit of it.
            ("grpc.max_metadata_size", METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES),
            # A connection that died without a word is noticed, by TCP_USER_TIMEOUT too: else by TCP after 15 minutes.
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.primary_user_agent", USER_AGENT),
            # How long calls fail at once after a failed connection: left alone, up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", round(retry.initial_interval * 1000)),
            ("grpc.max_reconnect_backoff_ms", round(retry.max_interval * 1000)),
        ]
        channels: dict[str, grpc.aio.Channel] = {}
        for text in self._settings.urls:
            url = urlsplit(text)
            host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
            target = f"{host}:{url.port or DEFAULT_PORT}"
            # Tunnelled in any case, as grpc-go and the Collector have it. Past another proxy gRPC would go silently.
            proxy = proxy_of(f"https://{target}", ["http"])
            through = ("grpc.http_proxy", proxy) if proxy else ("grpc.enable_http_proxy", 0)
            if url.scheme == "https":
                channel = grpc.aio.secure_channel(target, _credentials(self._settings), [*options, through])
            else:
                channel = grpc.aio.insecure_channel(target, [*options, through])
            channels[text.rstrip("/")] = channel
        return channels

    async def close(self) -> None:
        """Close every channel."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()
        await asyncio.gather(*self._closing)

    async def export(self, service: Service, body: bytes, items: int) -> Outcome | Rejected:
        """Call the service's method."""
        if self._tls is not None and self._tls.look():
            self._renew()
        server = self._endpoints.current
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[server].unary_unary(service.method)
        timeout = self._settings.timeout
        headers = {**self._settings.headers, **authorization(self._settings.auth)}
        metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            answer = await call(body, timeout=timeout, metadata=metadata, compression=self._compression)
        except grpc.aio.AioRpcError as error:
            return self._failure(server, error, items)
        if answer is None:  # trailers alone, as of a proxy: neither an answer nor an error to grpc.aio
            return Outcome.retry_all(items, NO_MESSAGE, "OK without a message")
        if not service.is_answer(answer):
            return Outcome.retry_all(items, NO_MESSAGE, f"OK with what is no {service.response.DESCRIPTOR.name}")
        return service.accepted(answer, items)

    def _renew(self) -> None:
        """Channels with certificates that have been renewed."""
        try:
            before, self._channels = self._channels, self._made()
        except ConfigError:  # one is away again: it is looked at when it comes back
            return
        for channel in before.values():  # with time for what is under way: else its calls would be cancelled
            closing = asyncio.create_task(channel.close(self._settings.timeout))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _failure(self, server: str, error: grpc.aio.AioRpcError, items: int) -> Outcome | Rejected:
        code, said = error.code(), error.details() or ""
        detail = shortened(f"{code.name} {said}")
        if code in NO_ANSWER or CUT.search(said):
            self._endpoints.failed(server)
            raise Unavailable(detail)
        too_large = code in OF_SIZE and TOO_LARGE.search(said)
        by_proxy = code is grpc.StatusCode.UNKNOWN and OF_PROXY.search(said)
        of_http = code is grpc.StatusCode.INTERNAL and OF_HTTP.match(said)
        if (code.value[0] in REFUSING and not of_http) or too_large or by_proxy:
            return Rejected(detail, said)
        wait = retry_delay(error.trailing_metadata())
        if code is grpc.StatusCode.UNAVAILABLE:
            wait = self._endpoints.failed(server, wait)
        return Outcome.retry_all(items, code.name, detail, wait)


def retry_delay(metadata: Iterable[tuple[str, Any]] | None) -> float | None:
    """Seconds of the RetryInfo in an answer's trailing metadata; None for none, or for what does not decode."""
    for key, value in metadata or ():
        if key == DETAILS and isinstance(value, bytes):
            try:
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return max(0.0, float(info.retry_delay.ToTimedelta().total_seconds()))
            except (DecodeError, OverflowError, ValueError):
                return None
    return None


def _credentials(settings: Sink) -> grpc.ChannelCredentials:
    """TLS with the configured authorities and client certificate. Raises ConfigError."""
    key = settings.key_file or settings.cert_file
    return grpc.ssl_channel_credentials(
        _read("ca_file", settings.ca_file), _read("key_file", key), _read("cert_file", settings.cert_file)
    )


def _read(key: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from error
