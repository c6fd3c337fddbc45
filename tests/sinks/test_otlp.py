"""Kept spans in a real Jaeger over both protocols, with TLS; faults from local servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import grpc
import pytest
import trustme
from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from schemas.envelope import Envelope, RowVerdict
from schemas.errors import ConfigError, Unavailable
from sinks.contract import Outcome, Signal
from sinks.endpoints import Endpoints
from sinks.http import ANSWER_BYTES, USER_AGENT
from sinks.otlp import Otlp
from sinks.otlp_grpc import DETAILS, NO_ANSWER, retry_delay
from sinks.otlp_service import LOGS, REFUSING, TRACES
from tests.repository import ROOT, python_path
from tests.services import Collector, eventually, free_port
from tests.services import Jaeger as JaegerServer
from tests.services.process import HOST
from tests.sinks.building import envelope, log, record, sink, span
from tests.sinks.faulty import faulty, status
from tests.sinks.faulty_grpc import answer, failure, faulty_grpc, ok

Protocol = Literal["http/protobuf", "grpc"]
PROTOCOLS: list[Protocol] = ["http/protobuf", "grpc"]
KEPT = RowVerdict(kept=True, policy="errors", threshold=0)
FEW = RowVerdict(kept=True, policy="5 %", threshold=0xF333_3333_3333_00)
Code = grpc.StatusCode
REFUSED = {code for code in Code if code.value[0] in REFUSING}


@asynccontextmanager
async def started(*endpoints: str, signals: list[Signal] | None = None, **settings: Any) -> AsyncIterator[Otlp]:
    destination = Otlp(sink(None, endpoints=list(endpoints), **settings), signals or ["spans"])
    try:
        await destination.start()
        yield destination
    finally:
        await destination.close()


async def deliver(destination: Otlp, rows: Envelope, signal: Signal = "spans") -> Outcome:
    items = destination.encode(record(rows.encode(), signal=signal))
    return await destination.send(destination.request(items))


async def send(endpoint: str, rows: Envelope, **settings: Any) -> Outcome:
    async with started(endpoint, **settings) as destination:
        return await deliver(destination, rows)


def url(server: JaegerServer, protocol: Protocol) -> str:
    return f"http://{server.otlp_grpc}" if protocol == "grpc" else server.otlp_http


async def stored(server: JaegerServer, trace_id: bytes) -> dict[str, dict[str, Any]]:
    """Attributes by span name of a trace in Jaeger."""

    async def ask() -> Any:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{server.query_url}/api/v3/traces/{trace_id.hex()}") as response,
        ):
            return await response.json(content_type=None) if response.status == 200 else None

    found = await eventually(ask, 10, f"trace {trace_id.hex()} in Jaeger")
    return {
        spn["name"]: {a["key"]: next(iter(a["value"].values())) for a in spn.get("attributes", [])}
        for part in found["result"]["resourceSpans"]
        for scp in part["scopeSpans"]
        for spn in scp["spans"]
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_spans_arrive_with_what_decided(jaeger: JaegerServer, protocol: Protocol, compression: str) -> None:
    trace = os.urandom(16)
    rows = envelope([span(trace, "a", **{"http.route": "/x"}), span(trace, "b"), span(trace, "c")], [KEPT, FEW, None])
    outcome = await send(url(jaeger, protocol), rows, protocol=protocol, compression=compression)
    assert outcome == Outcome(accepted=3)
    assert await stored(jaeger, trace) == {
        "a": {"http.route": "/x", "tailsampling.policy": "errors"},
        "b": {
            "tailsampling.policy": "5 %",
            "tailsampling.threshold": "f33333333333",
            "tailsampling.adjusted_count": pytest.approx(20),
        },
        "c": {},
    }


@pytest.mark.parametrize(("protocol", "said"), [("http/protobuf", "400 "), ("grpc", "INTERNAL ")])
async def test_jaeger_refuses_one_span_and_gets_the_others(jaeger: JaegerServer, protocol: Protocol, said: str) -> None:
    trace = os.urandom(16)
    rows = [span(trace, str(n)) for n in range(20)]
    rows[13] = span(b"abc", "13")  # OTLP: a trace id has 16 bytes
    outcome = await send(url(jaeger, protocol), envelope(rows), protocol=protocol)
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (19, [13], ())
    assert outcome.refused[0].detail.startswith(said)
    assert (await stored(jaeger, trace)).keys() == {str(n) for n in range(20)} - {"13"}


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_a_span_that_is_too_large_for_a_call_costs_its_neighbours_nothing(
    jaeger: JaegerServer, compression: str
) -> None:
    trace = os.urandom(16)
    rows = [span(trace, str(n)) for n in range(5)]
    rows[2] = span(trace, "2", text="x" * (5 << 20))  # a gRPC server takes 4 MiB
    outcome = await send(url(jaeger, "grpc"), envelope(rows), protocol="grpc", compression=compression)
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (4, [2], ())
    assert "larger than max" in outcome.refused[0].detail
    assert (await stored(jaeger, trace)).keys() == {"0", "1", "3", "4"}


# ---- TLS -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """A Collector that wants client certificates, and the files to reach it with."""

    http: str
    grpc: str
    ca_file: str
    cert_file: str
    stranger_file: str

    def url(self, protocol: Protocol) -> str:
        return self.grpc if protocol == "grpc" else self.http


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    ca, others = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    server = ca.issue_cert(HOST)
    server.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
    ca.issue_cert("tailrace@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    others.issue_cert("else@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "stranger.pem")
    files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
    tls = {key: str(folder / file) for key, file in files.items()}
    http, over_grpc = (f"{HOST}:{free_port()}" for _ in range(2))
    protocols = {"http": {"endpoint": http, "tls": tls}, "grpc": {"endpoint": over_grpc, "tls": tls}}
    config = {
        "receivers": {"otlp": {"protocols": protocols}},
        "exporters": {"nop": {}},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["nop"]}}},
    }
    with Collector(config):
        names = [str(folder / name) for name in ("ca.pem", "client.pem", "stranger.pem")]
        yield Guarded(f"https://{http}", f"https://{over_grpc}", *names)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_tls_with_a_client_certificate(guarded: Guarded, protocol: Protocol) -> None:
    files = {"ca_file": guarded.ca_file, "cert_file": guarded.cert_file}
    assert await send(guarded.url(protocol), envelope([span()]), protocol=protocol, **files) == Outcome(accepted=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("lacking", ["authority", "certificate", "trusted certificate"])
async def test_tls_is_verified_by_both_sides(guarded: Guarded, protocol: Protocol, lacking: str) -> None:
    files = {"ca_file": guarded.ca_file, "cert_file": guarded.cert_file}
    if lacking == "authority":
        files["ca_file"] = guarded.stranger_file
    elif lacking == "certificate":
        del files["cert_file"]
    else:
        files["cert_file"] = guarded.stranger_file
    try:
        outcome = await send(guarded.url(protocol), envelope([span()]), protocol=protocol, **files)
    except Unavailable:
        return  # over HTTP the connection is not made
    assert (outcome.accepted, outcome.retry, outcome.reason) == (0, (0,), "UNAVAILABLE")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_certificate_that_is_renewed_is_read_again(
    guarded: Guarded, tmp_path: Path, protocol: Protocol
) -> None:
    """While the worker runs: nobody restarts it for that."""
    own = tmp_path / "client.pem"
    shutil.copy(guarded.stranger_file, own)
    files: dict[str, Any] = {"ca_file": guarded.ca_file, "cert_file": str(own)}
    async with started(guarded.url(protocol), protocol=protocol, **files) as destination:

        async def accepted() -> bool:
            try:
                return (await deliver(destination, envelope([span()]))).accepted == 1
            except Unavailable:
                return False

        assert not await accepted()
        shutil.copy(guarded.cert_file, own)
        await eventually(accepted, 10, "the new certificate is used")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
async def test_while_half_a_renewal_stands_the_sink_goes_on(
    guarded: Guarded, tmp_path: Path, protocol: Protocol, key: str
) -> None:
    """A key whose certificate is not written yet; authorities of which nothing is."""
    files: dict[str, Any] = {"ca_file": guarded.ca_file, "cert_file": guarded.cert_file}
    renewed = tmp_path / "renewed.pem"
    shutil.copy(files[key], renewed)
    async with started(guarded.url(protocol), protocol=protocol, **files | {key: str(renewed)}) as destination:
        batch = envelope([span()])
        assert (await deliver(destination, batch)).accepted == 1
        renewed.write_bytes(renewed.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0])
        assert (await deliver(destination, batch)).accepted == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_authority_that_is_taken_out_is_trusted_no_longer(
    guarded: Guarded, tmp_path: Path, protocol: Protocol
) -> None:
    authorities = tmp_path / "ca.pem"
    shutil.copy(guarded.ca_file, authorities)
    files: dict[str, Any] = {"ca_file": str(authorities), "cert_file": guarded.cert_file}
    async with started(guarded.url(protocol), protocol=protocol, **files) as destination:
        batch = envelope([span()])
        assert (await deliver(destination, batch)).accepted == 1
        trustme.CA().cert_pem.write_to_path(authorities)
        with contextlib.suppress(Unavailable):
            assert (await deliver(destination, batch)).retry
        shutil.copy(guarded.ca_file, authorities)
        assert (await deliver(destination, batch)).accepted == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
async def test_a_certificate_that_is_not_there_is_a_configuration_error(
    tmp_path: Path, protocol: Protocol, key: str
) -> None:
    destination = Otlp(sink("https://a:4317", protocol=protocol, **{key: str(tmp_path / "none.pem")}), ["spans"])
    with pytest.raises(ConfigError, match=r"none\.pem"):
        await destination.start()
    await destination.close()


async def test_a_user_interface_that_answers_with_a_page_has_taken_nothing(jaeger: JaegerServer) -> None:
    """Jaeger's answers any POST with 200: what is sent there by mistake waits, and the reason says so."""
    outcome = await send(jaeger.query_url, envelope([span(), span()]))
    assert (outcome.accepted, outcome.retry, outcome.reason) == (0, (0, 1), "web_page")
    assert outcome.detail.startswith("200 text/html: a web page, no receiver")


# ---- what only a faulty server shows -------------------------------------------------------------------------


def partial(rejected: int) -> bytes:
    said = ExportTracePartialSuccess(rejected_spans=rejected, error_message="full")
    return bytes(ExportTraceServiceResponse(partial_success=said).SerializeToString())


@asynccontextmanager
async def answering(protocol: Protocol, message: bytes) -> AsyncIterator[str]:
    """A server whose successes have this message."""
    if protocol == "grpc":
        async with faulty_grpc(answer(message)) as called:
            yield called.url
        assert len(called.seen) == 1
    else:
        async with faulty(lambda request, body: web.Response(body=message)) as posted:
            yield posted.url
        assert len(posted.seen) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_partial_success_dead_letters_every_candidate_and_counts_what_was_refused(protocol: Protocol) -> None:
    async with answering(protocol, partial(2)) as endpoint:
        outcome = await send(endpoint, envelope([span(), span(), span()]), protocol=protocol)
    assert (outcome.accepted, len(outcome.refused), outcome.retry) == (1, 3, ())
    assert outcome.refused[0].detail == "partial success: 2 of 3 spans rejected: full"
    assert outcome.refused[0].said == "full"


@pytest.mark.parametrize(
    ("answered", "accepted"),
    [
        ({"partialSuccess": {"rejectedSpans": "2", "errorMessage": "full"}}, 1),
        ({"partialSuccess": {"errorMessage": "a warning"}}, 3),
        ({}, 3),
        ({"code": 0, "message": "ok"}, 3),
        (None, 3),
        ({"partialSuccess": {"errorMessage": "x" * ANSWER_BYTES, "rejectedSpans": "2"}}, 0),
    ],
)
async def test_a_success_in_json_is_read(answered: Any, accepted: int) -> None:
    """Some vendors answer so whatever they were asked in."""
    body = json.dumps(answered, separators=(",", ":"))

    def reply(request: web.Request, _: bytes) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with faulty(reply) as server:
        outcome = await send(server.url, envelope([span(), span(), span()]))
    assert (outcome.accepted, outcome.retry, len(outcome.refused)) == (accepted, (), 0 if accepted == 3 else 3)


async def test_parameters_of_the_base_url_stay_behind_the_path() -> None:
    def answer(request: web.Request, _: bytes) -> web.Response:
        return web.Response(status=200 if request.path_qs == "/tenant/v1/traces?token=s3cret" else 404)

    async with faulty(answer) as posted:
        outcome = await send(f"{posted.url}/tenant/?token=s3cret", envelope([span()]), protocol="http/protobuf")
    assert outcome.accepted == 1


async def test_a_partial_success_that_repeats_a_parameter_of_the_url_is_read_all_the_same() -> None:
    async with answering("http/protobuf", partial(2)) as endpoint:
        outcome = await send(f"{endpoint}/?p=full&x=", envelope([span(), span(), span()]), protocol="http/protobuf")
    assert (outcome.accepted, len(outcome.refused)) == (1, 3)
    assert outcome.refused[0].detail == "partial success: 2 of 3 spans rejected: **********"
    assert outcome.refused[0].said == "**********"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_partial_success_that_rejects_nothing_is_a_warning(protocol: Protocol) -> None:
    told: list[str] = []
    async with answering(protocol, partial(0)) as endpoint, started(endpoint, protocol=protocol) as destination:
        destination.warned = told.append
        outcome = await deliver(destination, envelope([span(), span()]))
    assert (outcome.accepted, outcome.refused, outcome.retry, told) == (2, (), (), ["full"])


def test_logs_have_their_own_partial_success() -> None:
    said = ExportLogsPartialSuccess(rejected_log_records=1, error_message="no")
    outcome = LOGS.accepted(ExportLogsServiceResponse(partial_success=said).SerializeToString(), 4)
    assert (outcome.accepted, outcome.refused[3].detail) == (
        3,
        "partial success: 1 of 4 log records rejected: no",
    )


async def test_a_wait_is_handed_on() -> None:
    async with faulty(status(429, Retry_After="3")) as server:
        outcome = await send(server.url, envelope([span(), span()]))
    assert (outcome.retry, outcome.retry_after, outcome.reason) == ((0, 1), 3.0, "429")


@pytest.mark.parametrize(("seconds", "wait"), [(10**15, None), (-5, 0.0), (3, 3.0)])
def test_a_wait_that_cannot_be_is_none(seconds: int, wait: float | None) -> None:
    status = Status()
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    assert retry_delay([(DETAILS, status.SerializeToString())]) == wait


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
@pytest.mark.parametrize("seconds", [None, 2.5])
async def test_retry_info_is_handed_on(code: grpc.StatusCode, seconds: float | None) -> None:
    async with faulty_grpc(failure(code, "rate limit", seconds)) as server:
        outcome = await send(server.url, envelope([span(), span()]), protocol="grpc")
    assert outcome == Outcome(retry=(0, 1), retry_after=seconds, reason=code.name, detail=f"{code.name} rate limit")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "code",
    sorted(set(Code) - REFUSED - NO_ANSWER - {Code.OK, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}, key=str),
)
async def test_a_status_that_says_nothing_about_the_rows_costs_time_not_data(code: grpc.StatusCode) -> None:
    async with faulty_grpc(failure(code)) as server:
        outcome = await send(server.url, envelope([span(), span()]), protocol="grpc")
    assert (outcome.retry, outcome.refused, outcome.reason) == ((0, 1), (), code.name)


@pytest.mark.parametrize("code", sorted(REFUSED, key=str))
async def test_a_permanent_status_is_narrowed_down_to_the_row(code: grpc.StatusCode) -> None:
    async def refuse_poison(body: bytes, context: Any) -> bytes:
        return await (failure(code, "no") if b"poison" in body else ok)(body, context)

    rows = [span(name=str(n)) for n in range(16)]
    rows[5].name = "poison"
    async with faulty_grpc(refuse_poison) as server:
        outcome = await send(server.url, envelope(rows), protocol="grpc")
    assert (outcome.accepted, [(r.index, r.detail) for r in outcome.refused]) == (15, [(5, f"{code.name} no")])


def literal(name: str, value: str) -> bytes:
    """A header of HTTP/2, as it is."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


@asynccontextmanager
async def proxy_of_http2(*headers: tuple[str, str], data: bytes = b"", trailers: bytes = b"") -> AsyncIterator[str]:
    """Answers every call with these headers, and no more of gRPC than they, `data` and `trailers` have."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)  # the client's preface
        writer.write(frame(4, 0, 0))  # settings
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                if kind == 4 and not flags & 1:
                    writer.write(frame(4, 1, 0))
                elif kind == 1:
                    begun = b"".join(literal(*header) for header in headers)
                    if data:
                        writer.write(frame(1, 4, stream, begun) + frame(0, 0, stream, data))
                    writer.write(frame(1, 5, stream, trailers or begun))
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("status", "refused"), [(413, 2), (422, 2), (500, 0), (503, 0)])
async def test_a_proxy_that_refuses_a_call_is_believed_as_over_http(status: int, refused: int) -> None:
    """It would be asked again for ever; halved, what fits is delivered. So says nginx beyond client_max_body_size."""
    async with proxy_of_http2((":status", str(status))) as url:
        outcome = await send(url, envelope([span(), span()]), protocol="grpc")
    assert (len(outcome.refused), len(outcome.retry)) == (refused, 2 - refused)


GRPC = [(":status", "200"), ("content-type", "application/grpc")]


async def test_a_success_without_a_message_has_taken_nothing_that_anybody_knows_of() -> None:
    """Trailers alone: grpc.aio gives neither an answer nor an error."""
    async with proxy_of_http2(*GRPC, ("grpc-status", "0")) as url:
        outcome = await send(url, envelope([span(), span()]), protocol="grpc")
    assert (outcome.accepted, outcome.retry, outcome.detail) == (0, (0, 1), "OK without a message")


async def test_a_success_that_is_no_answer_of_otlp_has_taken_nothing_either() -> None:
    async with faulty_grpc(answer(b"<html>sign in</html>"), ok) as server:
        outcome = await send(server.url, envelope([span(), span()]), protocol="grpc")
        assert (outcome.accepted, outcome.retry, outcome.reason) == (0, (0, 1), "OK")
        assert outcome.detail == "OK with what is no ExportTraceServiceResponse"
        assert await send(server.url, envelope([span(), span()]), protocol="grpc") == Outcome(accepted=2)


async def test_a_proxy_that_answers_with_a_page_refuses_no_row() -> None:
    """As nginx does to what it cannot read; the client makes INTERNAL of it, as servers do of a request."""
    async with proxy_of_http2((":status", "400"), ("content-type", "text/html")) as url:
        outcome = await send(url, envelope([span(), span()]), protocol="grpc")
    assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1), "INTERNAL")
    assert outcome.detail == "INTERNAL Received http2 header with status: 400"


async def test_an_answer_that_the_client_cannot_read_refuses_no_row() -> None:
    """It says INTERNAL of it, as servers do of a request: here of one that is compressed, and not said how."""
    answered = {"data": b"\1\0\0\0\5hello", "trailers": literal("grpc-status", "0")}
    async with proxy_of_http2(*GRPC, **answered) as url:
        with pytest.raises(Unavailable, match="Compression bit"):
            await send(url, envelope([span(), span()]), protocol="grpc")


async def test_a_status_that_the_client_cannot_read_refuses_no_row() -> None:
    """So does what is no HTTP/2."""
    async with proxy_of_http2(*GRPC, ("grpc-status", "abc")) as url:
        with pytest.raises(Unavailable, match="INTERNAL Stream removed"):
            await send(url, envelope([span(), span()]), protocol="grpc")


async def test_a_request_that_is_refused_as_a_whole_is_told_at_once() -> None:
    told: list[tuple[str, int]] = []
    async with (
        faulty_grpc(failure(Code.INVALID_ARGUMENT, "bad")) as server,
        started(server.url, protocol="grpc") as destination,
    ):
        request = destination.request(destination.encode(record(envelope([span(), span()]).encode())))
        request.rejected = lambda said, refused: told.append((said, refused))
        await destination.send(request)
    assert told == [("bad", 0), ("bad", 1), ("bad", 2)]


@pytest.mark.parametrize("code", [Code.DEADLINE_EXCEEDED, Code.CANCELLED])
async def test_a_call_without_an_answer_is_unavailable(code: grpc.StatusCode) -> None:
    async with faulty_grpc(failure(code)) as server:
        with pytest.raises(Unavailable, match=code.name):
            await send(server.url, envelope([span()]), protocol="grpc")


async def test_a_call_says_who_calls(jaeger: JaegerServer) -> None:
    headers = {"X-Scope-OrgID": "7"}
    async with (
        faulty_grpc(ok) as server,
        started(
            server.url, protocol="grpc", headers=headers, auth={"bearer_token": "t"}, signals=["spans", "logs"]
        ) as destination,
    ):
        await deliver(destination, envelope([span()]))
        await deliver(destination, envelope([log()]), "logs")
    assert [call.method for call in server.seen] == [TRACES.method, LOGS.method]
    metadata = server.seen[0].metadata
    assert (metadata["x-scope-orgid"], metadata["authorization"]) == ("7", "Bearer t")
    assert str(metadata["user-agent"]).startswith(USER_AGENT)


# ---- several servers -----------------------------------------------------------------------------------------


def nowhere() -> str:
    return f"http://{HOST}:{free_port()}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_server_that_is_not_there_is_left_for_the_next(jaeger: JaegerServer, protocol: Protocol) -> None:
    async with started(nowhere(), url(jaeger, protocol), protocol=protocol) as destination:
        for attempt in range(3):
            try:
                outcome = await deliver(destination, envelope([span()]))
            except Unavailable:
                outcome = Outcome(retry=(0,))
            assert bool(outcome.retry) is (attempt == 0), "the first attempt finds out, later ones know"


def test_requests_under_way_together_move_on_once() -> None:
    endpoints = Endpoints(["http://a/", "http://b"])
    for _ in range(2):
        endpoints.failed("http://a")
    assert endpoints.current == "http://b"
    endpoints.failed("http://b")
    assert endpoints.current == "http://a"


def test_who_asks_to_be_left_alone_is_passed_over_and_waited_for_only_if_all_do() -> None:
    now = 50.0
    endpoints = Endpoints(["http://a", "http://b", "http://c"], clock=lambda: now)
    assert (endpoints.failed("http://a", 100), endpoints.current) == (None, "http://b")
    assert (endpoints.failed("http://b"), endpoints.current) == (None, "http://c")
    assert (endpoints.failed("http://c"), endpoints.current) == (None, "http://b")  # a is left alone
    assert (endpoints.failed("http://b", 30), endpoints.current) == (None, "http://c")
    now = 60.0
    assert (endpoints.failed("http://c", 1e9), endpoints.current) == (20, "http://b")
    assert (endpoints.failed("http://c", 1e9), endpoints.current) == (20, "http://b")  # was under way
    assert (endpoints.failed("http://b", 7), endpoints.current) == (7, "http://b")
    now = 200.0
    assert (endpoints.failed("http://b"), endpoints.current) == (None, "http://a")


def test_a_failure_without_a_time_does_not_end_the_wait_that_was_asked_for() -> None:
    """Of a request that was under way when the server asked to be left alone."""
    endpoints = Endpoints(["http://a", "http://b"], clock=lambda: 50.0)
    endpoints.failed("http://a", 100)
    assert (endpoints.failed("http://a"), endpoints.current) == (None, "http://b")
    assert (endpoints.failed("http://b", 30), endpoints.current) == (30, "http://b")
    assert (endpoints.failed("http://b"), endpoints.current) == (30, "http://b")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_server_that_asks_to_wait_and_is_left_delays_nobody(protocol: Protocol) -> None:
    """The next one is asked at once; of a single server the time is obeyed."""
    waiting = failure(Code.UNAVAILABLE, "", 60) if protocol == "grpc" else status(503, Retry_After="60")
    taking = ok if protocol == "grpc" else status(200)
    servers: Any = faulty_grpc if protocol == "grpc" else faulty
    async with servers(waiting) as asks, servers(taking) as takes:
        async with started(asks.url, takes.url, protocol=protocol) as destination:
            outcome = await deliver(destination, envelope([span()]))
            assert (outcome.retry, outcome.retry_after) == ((0,), None)
            assert await deliver(destination, envelope([span()])) == Outcome(accepted=1)
        async with started(asks.url, protocol=protocol) as destination:
            assert (await deliver(destination, envelope([span()]))).retry_after == 60


async def refuse_poison(body: bytes, context: Any) -> bytes:
    """INTERNAL for a request with a span of that name."""
    return await (failure(Code.INTERNAL, "no") if b"poison" in body else ok)(body, context)


async def test_a_refusal_with_much_to_say_is_one() -> None:
    """Beyond 8 KiB gRPC makes a limit of it, which is waited for: one bad row would hold its partition for ever."""
    async with faulty_grpc(failure(Code.INVALID_ARGUMENT, "why " * 8_000)) as server:
        outcome = await send(server.url, envelope([span()]), protocol="grpc")
    assert [refusal.index for refusal in outcome.refused] == [0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_a_collector_says_of_a_permanent_error_is_narrowed_down(protocol: Protocol) -> None:
    """A real one in between hands on what the server behind it says: over HTTP as 500."""
    rows = [span(name="poison" if number == 2 else "") for number in range(4)]
    async with faulty_grpc(refuse_poison) as server:
        address = server.url.removeprefix("http://")
        off = {"enabled": False}
        exporter = {"endpoint": address, "tls": {"insecure": True}, "sending_queue": off, "retry_on_failure": off}
        service = {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp"]}}}
        with Collector({"exporters": {"otlp": exporter}, "service": service}).start() as collector:
            endpoint = f"http://{collector.otlp_grpc}" if protocol == "grpc" else collector.otlp_http
            outcome = await send(endpoint, envelope(rows), protocol=protocol)
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (3, [2], ())
    assert outcome.refused[0].detail.endswith("no")


@pytest.mark.parametrize(
    ("body", "kind"), [(Status(code=14, message="no"), "protobuf"), (Status(code=13), "json"), (None, "protobuf")]
)
async def test_another_500_says_nothing_of_the_rows(body: Status | None, kind: str) -> None:
    headers = {"Content-Type": f"application/x-{kind}"}
    said = b"\xff" if body is None else body.SerializeToString()
    async with faulty(lambda request, _: web.Response(status=500, body=said, headers=headers)) as server:
        outcome = await send(server.url, envelope([span()]))
    assert (outcome.retry, outcome.reason) == ((0,), "500")


async def test_a_server_of_tls_that_is_asked_without_refuses_no_row() -> None:
    """nginx says so, and Go in other words."""
    plain = status(400, "The plain HTTP request was sent to HTTPS port")
    async with faulty(*[plain] * 4, status(200)) as server, started(server.url) as destination:
        for _ in range(2):
            outcome = await deliver(destination, envelope([span(), span(), span()]))
            assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1, 2), "no_receiver")
            assert outcome.detail.startswith("400 The plain HTTP request was sent to HTTPS port")
        assert (await deliver(destination, envelope([span()]))).accepted == 1
    assert [bool(seen.body) for seen in server.seen] == [True, False, True, False, True]


async def test_a_receiver_that_refuses_the_first_rows_is_asked_once_whether_it_is_one() -> None:
    async with faulty(status(400, "bad"), status(200), status(400, "bad")) as server:
        outcome = await send(server.url, envelope([span(), span()]))
    assert [refusal.index for refusal in outcome.refused] == [0, 1]
    assert [bool(seen.body) for seen in server.seen] == [True, False, True, True]


@pytest.mark.parametrize("code", [400, 503])
async def test_the_words_of_a_status_are_told_without_its_bytes(code: int) -> None:
    said = Status(code=14, message="too busy").SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    async with faulty(lambda request, _: web.Response(status=code, body=said, headers=headers)) as server:
        outcome = await send(server.url, envelope([span()]))
    told = outcome.detail if code == 503 else outcome.refused[0].detail
    assert told == f"{code} too busy"


async def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    async with (
        faulty(status(429)) as busy,
        faulty(status(200)) as other,
        started(busy.url, other.url) as destination,
    ):
        for _ in range(2):
            assert (await deliver(destination, envelope([span()]))).reason == "429"
        assert other.seen == []


async def test_a_server_alone_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await send(nowhere(), envelope([span()]))
    outcome = await send(nowhere(), envelope([span()]), protocol="grpc")
    assert outcome.reason == "UNAVAILABLE"


def test_a_partial_success_that_was_cut_rejects_all() -> None:
    said = ExportLogsPartialSuccess(rejected_log_records=1, error_message="no" * ANSWER_BYTES)
    whole = ExportLogsServiceResponse(partial_success=said).SerializeToString()
    outcome = LOGS.accepted(whole[:ANSWER_BYTES], 4)
    assert (outcome.accepted, len(outcome.refused)) == (0, 4)
    assert LOGS.accepted(b"<html>".ljust(ANSWER_BYTES, b"."), 4).accepted == 4


IN_A_WORKER = """
import asyncio, sys
from sinks.otlp_grpc import OverGrpc
from sinks.otlp_service import TRACES
from sinks.settings import Sink
async def main():
    transport = OverGrpc(Sink(endpoint=sys.argv[1], protocol="grpc", timeout=5.0))
    await transport.open()
    print((await transport.export(TRACES, b"", 1)).detail)
    await transport.close()
asyncio.run(main())
"""


async def test_grpc_writes_nothing_among_the_lines_of_the_log() -> None:
    """Of a server without TLS its core tells on standard error, and not as JSON."""
    async with faulty(status(200)) as server:
        environment = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", IN_A_WORKER, server.url.replace("http:", "https:")),
            cwd=ROOT,
            env=environment | {"PYTHONPATH": python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        told, written = await process.communicate()
    assert told.startswith(b"UNAVAILABLE "), written
    assert written == b""
