"""Local destinations: Jaeger's, Elasticsearch's and Prometheus' doors, with a memory instead of a database.

They take what the sinks send over real HTTP on a free loopback port, keep it as `Holdings`, and answer as the real
servers do, as far as a correct client sees. For the demo and tests without servers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from pipeline.demo import remote_write
from pipeline.demo.documents import document, uid
from pipeline.demo.ledger import Holdings, Labels
from schemas.errors import Malformed

POLICY = "tailsampling.policy"
LARGEST_REQUEST_BYTES = 64 << 20
ELASTICSEARCH_VERSION = "8.19.0"


class LocalBackends:
    """Three destinations on one port, for as long as the `async with` block lasts.

    `requests` counts what came by destination, `refused` what did not decode.
    """

    def __init__(self) -> None:
        self.holdings = Holdings()
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.url = ""
        self._ids: dict[tuple[str, str], str] = {}
        self._times: dict[Labels, int] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> LocalBackends:
        application = web.Application(client_max_size=LARGEST_REQUEST_BYTES)
        application.add_routes(
            [
                web.post("/v1/traces", self._traces),
                web.post("/api/v1/write", self._write),
                web.route("*", "/_bulk", self._bulk),
                web.route("*", "/{index}/_bulk", self._bulk),
                web.get("/", self._cluster),
                web.get("/_cluster/health", self._health),
                web.route("*", "/{path:_.*}", self._acknowledge),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def remote_write_url(self) -> str:
        """Where remote write goes; the other two take the base `url`."""
        return f"{self.url}/api/v1/write"

    async def _traces(self, request: web.Request) -> web.Response:
        """OTLP/HTTP, binary protobuf."""
        self.requests["jaeger"] += 1
        export = ExportTraceServiceRequest()
        try:
            export.ParseFromString(await request.read())
        except DecodeError as error:
            self.refused["jaeger"] += 1
            return web.Response(status=400, text=str(error))
        for resource_spans in export.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    trace_id = bytes(span.trace_id)
                    self.holdings.spans.setdefault(trace_id, []).append(bytes(span.span_id))
                    if trace_id not in self.holdings.policies:
                        self.holdings.policies[trace_id] = next(
                            (a.value.string_value for a in span.attributes if a.key == POLICY), ""
                        )
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def _bulk(self, request: web.Request) -> web.Response:
        """Elasticsearch's `_bulk`, action `create` only: a repeated _id is a conflict."""
        self.requests["elasticsearch"] += 1
        lines = (await request.read()).split(b"\n")
        items: list[dict[str, Any]] = []
        for n in range(0, len(lines) - 1, 2):
            try:
                action, source = orjson.loads(lines[n]), orjson.loads(lines[n + 1])
                create = action["create"]
            except (orjson.JSONDecodeError, KeyError) as error:
                self.refused["elasticsearch"] += 1
                return _elastic({"error": {"type": "illegal_argument_exception", "reason": str(error)}}, 400)
            index = create.get("_index") or request.match_info.get("index", "")
            items.append({"create": self._create(index, create.get("_id", str(len(self._ids))), source)})
        failed = any(item["create"]["status"] >= 300 for item in items)
        return _elastic({"took": 1, "errors": failed, "items": items})

    def _create(self, index: str, id_: str, source: dict[str, Any]) -> dict[str, Any]:
        if (index, id_) in self._ids:
            reason = f"[{id_}]: version conflict, document already exists (current version [1])"
            error = {"type": "version_conflict_engine_exception", "reason": reason}
            return {"_index": index, "_id": id_, "status": 409, "error": error}
        log = uid(source)
        self._ids[index, id_] = log
        if log in self.holdings.logs:
            self.holdings.log_duplicates += 1
        self.holdings.logs[log] = document(source)
        return {"_index": index, "_id": id_, "_version": 1, "result": "created", "status": 201}

    async def _write(self, request: web.Request) -> web.Response:
        """Remote write: the newest sample of each series counts."""
        self.requests["prometheus"] += 1
        try:
            samples = remote_write.decode(await request.read())
        except Malformed as error:
            self.refused["prometheus"] += 1
            return web.Response(status=400, text=str(error))
        series = self.holdings.series
        for labels, time_ms, value in samples:
            if time_ms < self._times.get(labels, 0):
                return web.Response(status=400, text="out of order sample")
            self._times[labels] = time_ms
            if value is None:
                series.pop(labels, None)
            else:
                series[labels] = value
        return web.Response(status=204)

    async def _cluster(self, request: web.Request) -> web.Response:
        version = {"number": ELASTICSEARCH_VERSION, "build_flavor": "default", "build_type": "tar"}
        return _elastic({"name": "demo", "cluster_name": "demo", "version": version, "tagline": "You Know, for Search"})

    async def _health(self, request: web.Request) -> web.Response:
        return _elastic({"cluster_name": "demo", "status": "green", "timed_out": False})

    async def _acknowledge(self, request: web.Request) -> web.Response:
        """Templates and whatever else a client sets up."""
        await request.read()
        return _elastic({"acknowledged": True})


def _elastic(answer: dict[str, Any], status: int = 200) -> web.Response:
    """The official client refuses answers that do not say which product they come from."""
    return web.Response(
        body=orjson.dumps(answer), status=status, content_type="application/json",
        headers={"X-Elastic-Product": "Elasticsearch"},
    )  # fmt: skip
