"""Kept and untraced logs to an Elasticsearch data stream, each document once.

A document's `_id` comes from where its raw record lies, so the same log sent again is the same document: its 409 is
success. That holds within one backing index: a repetition across a rollover is stored twice. Only the action `create`
exists in a data stream. Source: Elasticsearch reference 8.19, "Bulk API", "Data streams".
"""

from __future__ import annotations

import asyncio
import base64
import importlib.resources
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import orjson
from elastic_transport import AiohttpHttpNode, HttpHeaders, NdjsonSerializer, SerializationError, TransportError
from elasticsearch import ApiError, AsyncElasticsearch, UnsupportedProductError
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.envelope import Envelope, RowVerdict
from schemas.errors import Malformed, Unavailable
from schemas.http_client import in_words
from schemas.otlp_build import logs_data
from sinks.contract import Coordinates, Destination, Item, Outcome, Refusal, Request, SourceRecord
from sinks.ecs_document import ecs_document
from sinks.http import (
    ELASTIC_PRODUCT,
    NO_ELASTICSEARCH,
    REFUSING,
    USER_AGENT,
    Rejected,
    Tls,
    authorization,
    bisect,
    compressed,
    in_short,
    retry_after,
    shortened,
)
from sinks.log_document import log_document, log_record, resource_fields, scope_fields
from sinks.proxies import proxy_of
from sinks.receiver import NOT_ONE
from sinks.settings import Sink

DOCUMENTS = {"otel": log_document, "ecs": ecs_document}
ID_BYTES = 16
CREATED = frozenset({200, 201})
CONFLICT = 409
FAILURE_STORE = "used"  # stored, but not where anybody looks (Elasticsearch 8.19, 9.1 and newer)
GZIP_FROM = 1024  # bytes: below, headers outweigh what compression saves
TOO_OLD = "unrecognized parameter"  # of a server before 8.13, whatever is in the request: require_data_stream
# Refusals for which an operator, and no document, is to blame: the cluster has as many shards as it may, somebody has
# closed the index, or it names an ingest pipeline that is not there.
OF_CLUSTER = frozenset({"validation_exception", "index_closed_exception"})
FAILED = "fail_processor_exception"  # of a document that an ingest pipeline has been told to fail; its status is 500
NO_PIPELINE = re.compile(r"pipeline with id \[.*\] does not exist")
IS_IT_ELASTICSEARCH = "is the endpoint that of Elasticsearch, and https:// if it has TLS?"  # a 400 of it names itself
DOCUMENT_BYTES = 400  # about what action, times, ids and verdict take


@dataclass(slots=True)
class _Header:
    """A resource or a scope of an envelope as it came, and its `fields` in each document: about `size` bytes."""

    message: bytes
    fields: dict[str, Any]
    size: int = 0
    defect: str = ""

    @classmethod
    def of(cls, message: bytes, read: Callable[[bytes], dict[str, Any]]) -> _Header:
        """Read one."""
        try:
            fields = read(message)
        except Malformed as error:
            return cls(message, {}, defect=error.detail)
        return cls(message, fields, len(orjson.dumps(fields)))


@dataclass(slots=True, kw_only=True)
class LogItem(Item):
    """One log record: `row` as it came, under its headers, and `record` read from it.

    Its document is made when it is sent, and again when it is sent again: with its resource, which all records of a
    message share, it may be a thousand times as large. `size` is a guess at it.
    """

    resource: _Header
    scope: _Header
    row: bytes
    record: LogRecord | None
    verdict: RowVerdict | None

    def dead_letter(self, *others: LogItem) -> bytes:
        """An ExportLogsServiceRequest with these records as they came."""
        return logs_data((item.resource.message, item.scope.message, [item.row]) for item in (self, *others))


class Elasticsearch(Destination[LogItem]):
    """`_bulk` into `logs-<dataset>-<namespace>`. `clock` gives seconds since the epoch (for Retry-After dates)."""

    def __init__(self, settings: Sink, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self.stream = f"logs-{settings.dataset}-{settings.namespace}"
        self._stream_fields = {"type": "logs", "dataset": settings.dataset, "namespace": settings.namespace}
        self._client: AsyncElasticsearch | None = None
        self._former: dict[AsyncElasticsearch, asyncio.Task[None]] = {}  # with what will close each
        self._tls: Tls | None = None
        self._is_one = False  # it has answered as Elasticsearch does

    async def start(self) -> None:
        """Install our index template unless the same or one of a later version is there. Raises Unavailable.

        A later version stays, so workers of two versions may run side by side during an upgrade.
        """
        if self._client is None:
            self._tls = Tls.of(self._settings)
            self._client = _client(self._settings, self._tls)
        client = self._current(self._client).options(headers=authorization(self._settings.auth))
        if not self._settings.manage_template:
            return
        wanted = template(self._settings)
        name = f"tailrace-logs-{self._settings.dataset}"
        try:
            if not _serves(await _installed(client, name), wanted):
                await client.indices.put_index_template(name=name, body=wanted)
            self._is_one = True
        except ApiError as error:
            what = f"index template {name}: {_text(error)}"
            raise Unavailable(what, retry_after(error.meta.headers, self._clock())) from error
        except (TransportError, SerializationError) as error:
            raise Unavailable(f"index template {name}: {_words(error)}") from error

    async def close(self) -> None:
        """Close connections."""
        for closing in self._former.values():
            closing.cancel()
        clients, self._client, self._former = (self._client, *self._former), None, {}
        for client in clients:
            if client is not None:
                await client.close()

    def _current(self, client: AsyncElasticsearch) -> AsyncElasticsearch:
        """This one, or one that trusts what is in files that have been renewed. The former is closed in time."""
        if self._tls is None or not self._tls.look():
            return client
        self._client = _client(self._settings, self._tls)
        self._former[client] = asyncio.create_task(self._let_go(client))
        return self._client

    async def _let_go(self, client: AsyncElasticsearch) -> None:
        """Close one when nothing that it was asked can be under way any more: else that would be cut off."""
        await asyncio.sleep(self._settings.timeout * len(self._settings.urls))  # a node after the other
        await client.close()
        self._former.pop(client, None)

    def encode(self, record: SourceRecord) -> list[LogItem]:
        """The log records of an envelope of `kept.logs` or `untraced.logs`. What is no OTLP becomes a defect."""
        envelope = Envelope.decode(record.value)
        resources = [_Header.of(header, resource_fields) for header in envelope.resources]
        scopes = [_Header.of(header, scope_fields) for header in envelope.scopes]
        items = []
        for index in range(len(envelope)):
            place = envelope.messages[envelope.message[index]]
            origin = Coordinates(envelope.topic, envelope.partition, *place, envelope.item[index])
            resource, scope = resources[envelope.resource[index]], scopes[envelope.scope[index]]
            row, read, defect = envelope.row(index), None, resource.defect or scope.defect
            try:
                read = log_record(row)
            except Malformed as error:
                defect = defect or error.detail
            items.append(
                LogItem(
                    origin=origin,
                    size=len(row) + resource.size + scope.size + DOCUMENT_BYTES,
                    redelivered=record.redelivered,
                    defect=defect,
                    resource=resource,
                    scope=scope,
                    row=row,
                    record=read,
                    verdict=envelope.verdicts[index] if envelope.verdicts else None,
                )
            )
        return items

    def _lines(self, item: LogItem) -> bytes:
        """Action and document."""
        if item.record is None:
            raise ValueError(f"no document: {item.defect}")
        make, origin = DOCUMENTS[self._settings.mapping], item.origin
        document = make(item.record, item.resource.fields, item.scope.fields, item.verdict, origin.timestamp)
        document["data_stream"] = self._stream_fields
        action = {"create": {"_index": self.stream, "_id": document_id(origin)}}
        newline = orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(action, option=newline) + orjson.dumps(document, option=newline)

    def request(self, items: Sequence[LogItem]) -> Request[LogItem]:
        """The body of a `_bulk`."""
        return Request(items, b"".join(map(self._lines, items)))

    async def send(self, request: Request[LogItem]) -> Outcome:
        """Send it; every document has its own answer. A request that is refused as a whole is halved."""

        async def attempt(items: Sequence[LogItem]) -> Outcome | Rejected:
            part = request if len(items) == len(request.items) else self.request(items)
            return await self._bulk(part)

        return await bisect(request, request.items, attempt)

    async def _bulk(self, request: Request[LogItem]) -> Outcome | Rejected:
        if self._client is None:
            raise RuntimeError("the client is not open")
        client = self._current(self._client)
        body, headers = request.body, authorization(self._settings.auth)
        if self._settings.compression != "none" and len(body) >= GZIP_FROM:
            body, headers = await asyncio.to_thread(compressed, body), headers | {"content-encoding": "gzip"}
        count = len(request.items)
        try:
            answer = await client.options(headers=headers).bulk(operations=body, require_data_stream=True)  # type: ignore[arg-type]
        except ApiError as error:
            text = _text(error)
            product, name = ELASTIC_PRODUCT
            self._is_one = self._is_one or error.meta.headers.get(product) == name
            if error.status_code == HTTPStatus.BAD_REQUEST and not self._is_one:
                return Outcome.retry_all(count, NOT_ONE, f"{text}; {IS_IT_ELASTICSEARCH}")
            if error.status_code in REFUSING and TOO_OLD not in text:
                return Rejected(text, _said(error.body))
            wait = retry_after(error.meta.headers, self._clock())
            return Outcome.retry_all(count, str(error.status_code), text, wait)
        except (TransportError, SerializationError) as error:
            raise Unavailable(_words(error)) from error
        self._is_one = True
        statuses = answer.body.get("items", []) if isinstance(answer.body, dict) else []
        if len(statuses) != count:
            return Outcome.retry_all(count, "incomplete", f"{len(statuses)} answers for {count} documents")
        return outcome([status["create"] for status in statuses])


def outcome(answers: Sequence[Mapping[str, Any]]) -> Outcome:
    """What the answers to the documents of one bulk request say.

    Refused is only what is wrong with a document. A missing template (404) or pipeline (400), a full disk (403, 429)
    and whatever else is wrong with the server mend without it. Of what an ingest pipeline throws, with a status of 500,
    nothing but its `fail` processor says that it is the document: Elasticsearch leaves out that it was a pipeline.
    """
    accepted = conflicts = 0
    refused: list[Refusal] = []
    retry: list[int] = []
    reason = detail = ""
    for index, answer in enumerate(answers):
        status = answer["status"]
        if answer.get("failure_store") == FAILURE_STORE:
            refused.append(Refusal(index, f"in the failure store of {answer.get('_index', 'its stream')}"))
        elif status in CREATED:
            accepted += 1
        elif status == CONFLICT:
            conflicts += 1
        elif _of_document(answer):
            refused.append(Refusal(index, _cause(answer), said=_said(answer)))
        else:
            retry.append(index)
            if not reason:
                reason, detail = f"item_{status}", _cause(answer)
    return Outcome(accepted, conflicts, tuple(refused), tuple(retry), None, reason, detail)


def document_id(origin: Coordinates) -> str:
    """The `_id` of a log: 128 bits of BLAKE2b over where its raw record lies, base64url without padding.

    The timestamp tells a record from one that took its offset after the topic was made anew.
    """
    text = f"{origin.topic}\0{origin.partition}\0{origin.offset}\0{origin.timestamp}\0{origin.index}"
    digest = blake2b(text.encode(), digest_size=ID_BYTES).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def template(settings: Sink) -> dict[str, Any]:
    """The index template of a sink's data streams; `version` rises with every change of its file.

    `_meta` says what else it was made of, so that a changed configuration is installed, too.
    """
    file = importlib.resources.files("sinks").joinpath(f"{settings.mapping}_template.json")
    made: dict[str, Any] = orjson.loads(file.read_bytes())
    made["index_patterns"] = [f"logs-{settings.dataset}-*"]
    lifecycle = settings.lifecycle
    told = lifecycle.model_dump(mode="json", exclude_none=True)
    made["_meta"] |= {"mapping": settings.mapping, "lifecycle": told}
    if (retention := lifecycle.data_retention) is not None:
        made["template"]["lifecycle"] = {"data_retention": f"{round(retention)}s"}
        # As those that are installed say it: another text of the same days would ask for the right to install again.
        if retention >= 1 and float(f"{retention:g}") == retention:
            told["data_retention"] = f"{retention:g}s"
    elif lifecycle.policy is not None:
        made["template"]["settings"] = {"index.lifecycle.name": lifecycle.policy}
    return made


class _Bytes(NdjsonSerializer):
    """Request bodies that are bytes go out untouched: the client's own would add a newline behind a gzip stream."""

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else super().dumps(data)


class _Node(AiohttpHttpNode):
    """Follows no redirect: aiohttp would carry documents and headers of a tenant to any host, in clear as well.

    Goes through a proxy where the other sinks do.
    """

    async def perform_request(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """The client's own has no settings for that."""
        if self.session is None:
            proxy = proxy_of(self.base_url)
            self._create_aiohttp_session()  # if it is called otherwise one day, nothing is sent
            session: Any = self.session
            straight: Any = SimpleNamespace(
                request=partial(session.request, allow_redirects=False, proxy=proxy),
                close=session.close,
            )
            self.session = straight
        answer: Any = await super().perform_request(*args, **options)
        return answer if answer.meta.status < HTTPStatus.BAD_REQUEST else _readable(answer)


def _readable(error: Any) -> Any:
    """With a body that is text if it is no JSON, whatever it says: one that cannot be read would hide its status."""
    meta, body, kind = error.meta, error.body, "application/json"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        body, kind = body.decode("utf-8", "replace").encode(), "text/plain"
    return error._replace(meta=replace(meta, headers=HttpHeaders({**meta.headers, "content-type": kind})), body=body)


def _client(settings: Sink, tls: Tls | None) -> AsyncElasticsearch:
    """The official client. A node that is not reached is left for the next; whoever sends repeats the rest."""
    options: dict[str, Any] = {}
    if tls is not None:  # its own does not verify the name of an IP address
        options["ssl_context"] = tls.context
    ndjson = _Bytes()
    return AsyncElasticsearch(
        [_node(url) for url in settings.urls],
        node_class=_Node,
        headers=settings.headers | {"user-agent": USER_AGENT},
        request_timeout=settings.timeout,
        retry_on_timeout=False,
        retry_on_status=(),
        max_retries=len(settings.urls) - 1,
        serializers={ndjson.mimetype: ndjson, "application/vnd.elasticsearch+x-ndjson": ndjson},
        **options,
    )


def _words(error: TransportError) -> str:
    """What went wrong: the client's error as a text only says of what kind it is."""
    return f"{type(error).__name__}: {shortened(in_words(OSError(error.message)))}"


def _node(endpoint: str) -> str:
    """A URL as the client wants it, with its port."""
    url = urlsplit(endpoint)
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}"


async def _installed(client: AsyncElasticsearch, name: str) -> Mapping[str, Any]:
    """The template of this name on the server, empty if there is none."""
    answer = await client.options(ignore_status=404).indices.get_index_template(name=name)
    found = answer.get("index_templates") or []
    return dict(found[0]["index_template"]) if found else {}


def _serves(installed: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a template may stay: of a later version, or of ours and made of the same settings."""
    version = int(installed.get("version", 0))
    if version == wanted["version"]:
        return bool(installed.get("_meta") == wanted["_meta"])
    return bool(version > wanted["version"])


def _of_document(answer: Mapping[str, Any]) -> bool:
    """Whether the answer to one document is about it: that to any other would be another one."""
    errors = _causes(answer)
    if answer["status"] in REFUSING:
        return not errors or not _of_cluster(errors[0])
    return any(error.get("type") == FAILED for error in errors)


def _of_cluster(error: Mapping[str, Any]) -> bool:
    """Whether the error of one document would be that of any other."""
    return error.get("type") in OF_CLUSTER or NO_PIPELINE.match(str(error.get("reason"))) is not None


def _causes(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The error of one document and what caused it."""
    causes, error = [], answer.get("error")
    while isinstance(error, Mapping) and error:
        causes.append(error)
        error = error.get("caused_by")
    return causes


def _cause(answer: Mapping[str, Any]) -> str:
    """The error of one document with its innermost cause, which names the field."""
    parts = [f"{error.get('type')}: {error.get('reason')}" for error in _causes(answer)]
    return shortened(f"{answer['status']} {'; '.join(parts)}")


def _said(answer: Any) -> str:
    """The server's JSON, which its client has read; "" of a body without anything in it."""
    if not answer:
        return ""
    return answer if isinstance(answer, str) else orjson.dumps(answer, default=str).decode()


def _text(error: ApiError) -> str:
    if isinstance(error, UnsupportedProductError):
        return NO_ELASTICSEARCH
    return in_short(error.status_code, error.meta.headers, str(error.body or ""))
