"""Whether everything that roles need is there and theirs to use: what `tailrace check --connect` tries.

Nothing is written anywhere: topics are listed, rights are asked for, of raw topics the newest record is decoded, sinks
get an empty request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.config import Config, Input
from pipeline.kafka import admin, granted, tools, topics
from pipeline.kafka.acls import Acl, Resource
from pipeline.kafka.overheard import Overheard
from pipeline.operating import beginning
from pipeline.operating.raw_look import look
from pipeline.rights import needed
from pipeline.roles import Role, diagram, expand
from schemas.errors import ConfigError, TailraceError
from schemas.http_client import in_words
from schemas.kafka_client import connection, told
from schemas.kafka_connect import CONNECT_LIMIT
from schemas.settings import without_parameters
from sinks.http import (
    ANSWER_BYTES,
    ELASTIC_PRODUCT,
    NO_ELASTICSEARCH,
    Answer,
    Rejected,
    Tls,
    authorization,
    elsewhere,
)
from sinks.otlp_http import at
from sinks.otlp_service import LOGS, TRACES
from sinks.prometheus import HEADERS, NOTHING
from sinks.proxies import proxy_of
from sinks.settings import OTLP_KINDS, Sink, sink_kind

# A broker or sink that needs longer than this is not usable, whatever its own time-outs are.
PATIENCE_SECONDS = 10.0
KAFKA_SECONDS = CONNECT_LIMIT + 2.0  # so that each address that is dead is said to be so

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: what, how it went, and how long it took if something answered.

    `hint`: it is as it may be, and may surprise.
    """

    ok: bool
    subject: str
    text: str
    seconds: float | None = None
    hint: bool = False

    def __str__(self) -> str:
        taken = "" if self.seconds is None else f" ({self.seconds * 1000:.0f} ms)"
        return f"{self.subject}: {self.text}{taken}"


async def connect(config: Config, names: Sequence[str] = ("all",)) -> AsyncIterator[Finding]:
    """Try the brokers, topics, rights and sinks of these roles; findings come as they are made.

    Raises ConfigError for a role that is none.
    """
    roles = [role for role in diagram(config) if role.name in expand(config, names)]
    served = {name: sink for name, sink in config.sinks.items() if f"sink.{name}" in {role.name for role in roles}}
    sinks = [asyncio.ensure_future(_sink(name, sink)) for name, sink in served.items()]
    try:
        async with AsyncExitStack() as stack:
            async for finding in _kafka(config, roles, stack):
                yield finding
        for sink in sinks:
            yield await sink
    finally:
        for sink in sinks:
            sink.cancel()


async def _kafka(config: Config, roles: Sequence[Role], stack: AsyncExitStack) -> AsyncIterator[Finding]:
    """All on one connection, which ends with the stack."""
    subject = f"kafka {', '.join(config.kafka.bootstrap_servers)}"
    began = time.monotonic()
    client = await _answer(stack.enter_async_context(admin.connected(config)), subject)
    if isinstance(client, Finding):
        yield client
        return
    found = await _answer(admin.counts(client), subject)
    if isinstance(found, Finding):
        yield found
        return
    yield Finding(True, subject, "answers", time.monotonic() - began)
    if len(config.kafka.bootstrap_servers) > 1:
        for hint in await asyncio.gather(*map(_dead, config.kafka.bootstrap_servers)):
            if hint is not None:
                yield hint
    wanted = needed(config, [role.name for role in roles]) if config.kafka.transactions else []
    began = time.monotonic()
    lacking = await _answer(granted.missing(client, wanted), "rights")
    asked = time.monotonic() - began
    if isinstance(lacking, Finding):
        yield lacking
        return
    # A topic that this user may not see is not in the list; whether it exists is for somebody else to say.
    hidden = {acl.resource.name for acl in lacking if acl.resource.kind == "topic"} - found.keys()
    touched = {topic for role in roles for topic in (*role.reads, *role.writes)} - hidden
    for item in config.inputs:
        name = f"raw topic {item.topic}"
        if item.topic in touched & found.keys():
            readable = Acl(Resource("topic", item.topic), "Read") not in lacking
            yield await _raw(config, item, found[item.topic], readable)
        elif item.topic in touched:
            yield Finding(False, name, "does not exist; the producers' side creates it")
    for role in roles:
        if role.name.startswith("sink.") and (hint := await _new_group(client, config, role, found)) is not None:
            yield hint
    if not config.kafka.transactions:
        return
    async for finding in _internal(client, config, touched):
        yield finding
    for acl in lacking:
        yield Finding(False, f"ACL {acl}", tools.remedy(config.kafka, acl))
    if lacking:
        return
    unguarded = await _answer(granted.unguarded(client), "ACLs")
    if isinstance(unguarded, Finding):
        yield unguarded
    elif unguarded:
        yield Finding(True, "ACLs", "these brokers have no authorizer: everybody may do everything", asked, hint=True)
    else:
        yield Finding(True, "ACLs", f"all {len(wanted)} rights that the roles need", asked)


async def _dead(server: str) -> Finding | None:
    """A hint if this one of several addresses is not there; the others hide it, until they are away as well."""
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            _reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return Finding(True, f"kafka {server}", f"no connection within {CONNECT_LIMIT:g} s; others answer", hint=True)
    except OSError as error:
        return Finding(True, f"kafka {server}", f"{in_words(error)}; others answer", hint=True)
    writer.close()
    return None


async def _new_group(
    client: AIOKafkaAdminClient, config: Config, role: Role, counts: Mapping[str, int]
) -> Finding | None:
    """A hint if a sink will deliver all that its topics hold; none where that cannot be asked, which others tell."""
    group = topics.Topics(config.kafka.prefix).group(role.name)
    partitions = [TopicPartition(topic, n) for topic in role.reads for n in range(counts.get(topic, 0))]
    retained = await _answer(beginning.retained(client, config, group, partitions), role.name)
    if isinstance(retained, Finding) or not retained:
        return None
    text = (
        f"its group {group} has no offsets in {' and '.join(retained)}, so it begins there with the oldest of up to "
        f"{retained.total()} records that Kafka keeps"
    )
    return Finding(True, role.name, f"{text}; how to begin at the end: docs/how-to/sinks.md", hint=True)


async def _raw(config: Config, source: Input, partitions: int, readable: bool) -> Finding:
    """A raw topic by its newest records, if this user may read them; that it may not is said among the rights."""
    subject, began = f"raw topic {source.topic}", time.monotonic()
    counted = f"{partitions} partitions"
    if not readable:
        return Finding(True, subject, f"{counted}; what is in it was not read: the right is missing", hint=True)
    found = await _answer(look(config, source, partitions), subject)
    if isinstance(found, Finding):
        return Finding(False, subject, f"{counted}; the newest record cannot be read: {found.text}")
    taken = time.monotonic() - began
    if not found.fit and not found.unfit:
        words = f"of {source.signal} ({source.encoding}), as the file says; no record to look at yet"
        return Finding(True, subject, f"{counted} {words}", taken)
    unfit = "; ".join(found.unfit)
    if not found.fit:
        return Finding(False, subject, f"{counted}; {unfit}", taken)
    fit = f"{counted}; newest record decodes as {' and '.join(found.fit)}"
    return Finding(True, subject, f"{fit}, but {unfit}" if unfit else fit, taken, hint=bool(unfit))


async def _internal(client: AIOKafkaAdminClient, config: Config, touched: set[str]) -> AsyncIterator[Finding]:
    began = time.monotonic()
    found = await _answer(topics.survey(client, config), "internal topics")
    if isinstance(found, Finding):
        yield found
        return
    problems = [problem for problem in found.problems if problem.topic in touched]
    raw = {item.topic for item in config.inputs}
    for problem in problems:
        kind = "raw" if problem.topic in raw else "internal"
        yield Finding(not problem.stops, f"{kind} topic {problem.topic}", problem.text, hint=not problem.stops)
    if not problems:
        count = len(touched & {spec.name for spec in topics.topic_specs(config)})
        yield Finding(True, "internal topics", f"{count} as they must be", time.monotonic() - began)
    if thin := [name for name in found.thin if name in touched]:
        yield Finding(True, "topics", topics.told_thin(thin), hint=True)
    if found.short_decisions and topics.Topics(config.kafka.prefix).decisions in touched:
        yield Finding(True, "topics", found.short_decisions, hint=True)
    if created := [name for name in found.created if name in touched]:
        yield Finding(True, "topics", topics.told_created(created), hint=True)


async def _answer(work: Awaitable[T], subject: str, section: str = "kafka.security") -> T | Finding:
    """What `work` gives, or why it gives nothing; `section` has the keys of its connection."""
    with Overheard() as overheard:
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                return await work
        except TimeoutError:
            text = f"no answer within {KAFKA_SECONDS:g} s"
        except ConfigError as error:
            ours = "kafka.security" if subject.startswith("kafka ") else subject
            return Finding(False, ours, str(error).removeprefix(f"{ours}."))
        except TailraceError as error:
            text = str(error).removeprefix(f"{subject}: ")
        except (KafkaError, OSError) as error:
            text = told(error)
    return Finding(False, subject, overheard.after(text, section))


async def _sink(name: str, sink: Sink) -> Finding:
    """Try every server of a sink; the first one that is wrong tells."""
    if sink_kind(name) == "kafka":
        return await _topic(name, sink)
    findings = [await _server(name, sink, url.rstrip("/")) for url in sink.urls]
    return next((finding for finding in findings if not finding.ok), findings[0])


async def _server(name: str, sink: Sink, url: str) -> Finding:
    """Send a request that stores nothing, with the sink's own TLS, headers and credentials."""
    subject, patience = f"sink {name} {without_parameters(url)}", min(PATIENCE_SECONDS, sink.timeout)
    began = time.monotonic()
    try:
        async with asyncio.timeout(patience):
            if sink_kind(name) in OTLP_KINDS and sink.protocol == "grpc":
                return await _called(subject, sink, url, began)
            return await _posted(subject, sink_kind(name), sink, url, began)
    except TimeoutError:
        return Finding(False, subject, f"no answer within {patience:g} s")
    except (aiohttp.ClientError, OSError, TailraceError) as error:
        return Finding(False, subject, _mended(in_words(error)))


def _mended(text: str) -> str:
    """An error of TLS with the key that mends it."""
    if "certificate is not valid for" in text or "Hostname mismatch" in text:
        return f"{text}; the server's certificate names other hosts: use one of those as endpoint"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"{text}; ca_file must hold the authority that signed the server's certificate"
    if "CERTIFICATE_REQUIRED" in text.upper().replace(" ", "_"):
        return f"{text}; it wants a client certificate: cert_file, key_file"
    return text


async def _topic(name: str, sink: Sink) -> Finding:
    """Whether the brokers of a kafka sink have its topic, and let it write; listing all topics makes none."""
    subject, began = f"sink {name} {', '.join(sink.servers)}", time.monotonic()
    write = Acl(Resource("topic", sink.topic), "Write")

    async def asked() -> tuple[dict[str, int], bool]:
        client = AIOKafkaAdminClient(**connection(sink.bootstrap_servers, sink.security, f"sinks.{name}.security"))
        try:
            await client.start()
            return await admin.counts(client), not await granted.on_topics(client, [write])
        finally:
            await client.close()

    answer = await _answer(asked(), subject, f"sinks.{name}.security")
    if isinstance(answer, Finding):
        return answer
    found, writable = answer
    if not writable:
        return Finding(False, subject, f"ACL {write}: {tools.remedy(sink, write)}")
    if sink.topic not in found:
        return Finding(False, subject, f"{sink.topic} does not exist")
    return Finding(True, subject, f"{found[sink.topic]} partitions", time.monotonic() - began)


async def _called(subject: str, sink: Sink, url: str, began: float) -> Finding:
    """A call of every OTLP service that the sink uses, with no rows in it."""
    from sinks.otlp_grpc import OverGrpc  # 60 ms that no other command should wait for

    transport = OverGrpc(sink.model_copy(update={"endpoint": url, "endpoints": []}))
    try:
        await transport.open()
        for signal in sink.signals:
            outcome = await transport.export(TRACES if signal == "traces" else LOGS, b"", 1)
            if isinstance(outcome, Rejected) or outcome.retry:
                hint = _GRPC_HINTS.get(outcome.detail.partition(" ")[0], "")
                text = _mended(f"answers {outcome.detail}{hint}")
                return Finding(False, subject, text, time.monotonic() - began)
        return Finding(True, subject, "answers", time.monotonic() - began)
    finally:
        await transport.close()


async def _posted(subject: str, kind: str, sink: Sink, url: str, began: float) -> Finding:
    """A request of every kind that the sink sends: the first one that is wrong tells."""
    urls = [url]
    if kind in OTLP_KINDS:
        urls = [at(url, TRACES.path if signal == "traces" else LOGS.path) for signal in sink.signals]
    findings = [await _asked(subject, kind, sink, url, began) for url in urls]
    return next((finding for finding in findings if not finding.ok), findings[-1])


async def _asked(subject: str, kind: str, sink: Sink, url: str, began: float) -> Finding:
    method, headers, body = "POST", {**sink.headers, **authorization(sink.auth)}, b""
    if kind in OTLP_KINDS:
        headers["Content-Type"] = "application/x-protobuf"  # no bytes: a request with no rows
    elif kind == "elasticsearch":
        method, url = "GET", at(url.partition("?")[0], "/_cluster/health")  # its client drops parameters
    else:
        headers, body = headers | HEADERS, NOTHING
    tls = Tls.of(sink)
    sent: dict[str, Any] = {"headers": headers, "data": body or None, "ssl": tls.context if tls else True}
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, url, allow_redirects=False, proxy=proxy_of(url), **sent) as response,
    ):
        answer = Answer(response.status, response.headers, await response.content.read(ANSWER_BYTES), url)
        taken, status = time.monotonic() - began, answer.status
        named = response.headers.get(ELASTIC_PRODUCT[0]) == ELASTIC_PRODUCT[1]
    if 200 <= status < 300 and kind == "elasticsearch" and not named:
        return Finding(False, subject, NO_ELASTICSEARCH, taken)
    if answer.is_page:
        return Finding(False, subject, f"answers {answer.of_page}", taken)
    if 200 <= status < 300:
        return Finding(True, subject, "answers", taken)
    if status == HTTPStatus.FORBIDDEN and kind == "elasticsearch":  # who is not known gets 401
        return Finding(True, subject, "answers; these credentials may not ask for its health, nor need to", taken)
    hint = {
        401: "it wants other credentials: auth",
        403: "it refuses these credentials: auth",
        404: "nothing is served at this path"
        + (": Prometheus needs --web.enable-remote-write-receiver" if kind == "prometheus" else ""),
    }.get(status) or elsewhere(status, answer.headers)
    return Finding(False, subject, f"answers {status}" + (f"; {hint}" if hint else ""), taken)


_GRPC_HINTS = {
    "UNAUTHENTICATED": "; it wants other credentials: auth",
    "PERMISSION_DENIED": "; it refuses these credentials: auth",
    "UNIMPLEMENTED": "; it does not take this signal: signals",
}
