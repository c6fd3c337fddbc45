"""The traffic generator for a Collector, over real HTTP."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from aiohttp import ClientResponseError, web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.demo import send
from pipeline.demo.traffic import Traffic

NOON = 1_800_000_000_000_000_000


class Collector:
    """Answers with the given statuses first, then with 200; counts the rows of what it accepted."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = deque(statuses)
        self.rows: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        body = await request.read()
        if self.statuses:
            return web.Response(status=self.statuses.popleft())
        if request.path == "/v1/traces":
            resources = TracesData.FromString(body).resource_spans
            self.rows["spans"] += sum(len(scope.spans) for one in resources for scope in one.scope_spans)
        else:
            logs = LogsData.FromString(body).resource_logs
            self.rows["logs"] += sum(len(scope.log_records) for one in logs for scope in one.scope_logs)
        return web.Response()


async def run(collector: Collector) -> tuple[Counter[str], list[float]]:
    """Send two seconds of traffic; what was sent, and how long the sender would have slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    messages = list(Traffic(1, 300, 2, NOON, 10).messages())
    app = web.Application()
    app.router.add_post("/v1/{signal}", collector.answer)
    async with TestServer(app) as server:
        await send.send(messages, str(server.make_url("")).rstrip("/"), sleep)
    return Counter(spans=sum(len(m.spans) for m in messages), logs=sum(len(m.logs) for m in messages)), slept


async def test_every_row_arrives_and_no_message_before_its_time() -> None:
    collector = Collector()
    sent, slept = await run(collector)
    assert collector.rows == sent
    assert sent["spans"] > 300
    assert 1 < max(slept) < 4


async def test_what_is_not_accepted_is_sent_again_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    collector = Collector(503, 503, 429)
    sent, slept = await run(collector)
    assert collector.rows == sent
    assert slept.count(send.RETRY_SECONDS) == 3
    told = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["HTTP 503; trying again every second", "HTTP 429; trying again every second", "accepts"]


async def test_what_never_will_be_accepted_ends_it() -> None:
    with pytest.raises(ClientResponseError):
        await run(Collector(400))
