"""Logs in a real Elasticsearch; faults from a local server."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import ssl
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import trustme
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from schemas.decision import Enrichment
from schemas.envelope import Envelope, RowVerdict
from schemas.errors import Unavailable
from sinks.contract import Coordinates, Outcome
from sinks.ecs_document import ATTRIBUTES, FIELDS
from sinks.elasticsearch import Elasticsearch, LogItem, document_id, template
from sinks.http import USER_AGENT
from tests.services import Elasticsearch as ElasticsearchServer
from tests.services import free_port
from tests.services.process import HOST
from tests.sinks.building import VALUES, bad, envelope, key_values, log, record, resource, sink
from tests.sinks.faulty import Reply, faulty, json, reset, status

NO_TEMPLATE = json({"error": "no template", "status": 404}, 404)
ACKNOWLEDGED = json({"acknowledged": True})
DEADLINE = 30.0  # seconds


@asynccontextmanager
async def connected(url: str | None, **fields: Any) -> AsyncIterator[Elasticsearch]:
    """A started sink into a data stream of its own."""
    destination = Elasticsearch(sink(url, **{"dataset": f"d{uuid.uuid4().hex[:8]}"} | fields), clock=lambda: 0.0)
    try:
        await destination.start()
        yield destination
    finally:
        await destination.close()


async def send(destination: Elasticsearch, rows: Envelope) -> Outcome:
    items = destination.encode(record(rows.encode()))
    assert not bad(items)
    return await destination.send(destination.request(items))


async def call(server: ElasticsearchServer, method: str, path: str, body: Any = None) -> Any:
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, f"{server.url}/{path}", json=body) as response,
    ):
        return await response.json()


async def search(server: ElasticsearchServer, destination: Elasticsearch, query: dict[str, Any]) -> list[Any]:
    await call(server, "POST", f"{destination.stream}/_refresh")
    found = await call(server, "GET", f"{destination.stream}/_search", {"query": query, "size": 1000})
    return [hit["_source"] for hit in found["hits"]["hits"]]


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_logs_are_found_by_every_field_that_people_use(
    elasticsearch: ElasticsearchServer, compression: str
) -> None:
    trace = os.urandom(16)
    verdict = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    rows = [log("the cart is empty", trace, **{"http.route": "/x", "n": 3}), log({"order": {"id": 7}})]
    async with connected(elasticsearch.url, compression=compression) as destination:
        outcome = await send(destination, envelope(rows, [verdict, None]))
        assert outcome == Outcome(accepted=2)
        queries: list[dict[str, Any]] = [
            {"term": {"trace_id": trace.hex()}},
            {"term": {"trace.id": trace.hex()}},
            {"match": {"message": "cart"}},
            {"match": {"body.text": "empty"}},
            {"term": {"attributes.http.route": "/x"}},
            {"term": {"attributes.n": "3"}},
            {"term": {"trace.sampled": True}},
            {"term": {"sampling.policy": "errors"}},
            {"term": {"span.name": "reserve"}},
            {"term": {"span.status": "error"}},
        ]
        for query in queries:
            (found,) = await search(elasticsearch, destination, query)
            assert found["trace_id"] == trace.hex(), query
        assert len(await search(elasticsearch, destination, {"term": {"service.name": "cart"}})) == 2
        assert len(await search(elasticsearch, destination, {"term": {"log.level": "INFO"}})) == 2
        assert (
            len(await search(elasticsearch, destination, {"term": {"resource.attributes.service.name": "cart"}})) == 2
        )
        assert len(await search(elasticsearch, destination, {"range": {"@timestamp": {"gte": "now-1h"}}})) == 2
        (found,) = await search(elasticsearch, destination, {"term": {"body.structured.order.id": "7"}})
        assert "trace" not in found


async def test_logs_in_ecs_are_found_by_the_fields_of_their_loggers(elasticsearch: ElasticsearchServer) -> None:
    row = log("a", b"", **{"error.type": "E", "error.stack_trace": ["at x", "at y"], "process.thread.name": 7})
    row.attributes.extend(
        key_values({"kubernetes": {"pod": {"name": "p"}, "ip": "10.0.0.1"}, "host": "h", "labels": {"n": 1}})
    )
    async with connected(elasticsearch.url, mapping="ecs") as destination:
        assert await send(destination, envelope([row])) == Outcome(accepted=1)
        for field, value in {
            "error.type": "E",
            "process.thread.name": "7",
            "kubernetes.pod.name": "p",
            "labels.kubernetes.ip": "10.0.0.1",
            "labels.host": "h",
            "labels.n": "1",
        }.items():
            assert len(await search(elasticsearch, destination, {"term": {field: value}})) == 1, field
        assert len(await search(elasticsearch, destination, {"match": {"error.stack_trace": "y"}})) == 1


async def test_the_same_log_twice_is_one_document(elasticsearch: ElasticsearchServer) -> None:
    rows = envelope([log("a"), log("b"), log("c")])
    async with connected(elasticsearch.url) as destination:
        assert await send(destination, rows) == Outcome(accepted=3)
        assert await send(destination, rows) == Outcome(already_delivered=3)
        assert len(await search(elasticsearch, destination, {"match_all": {}})) == 3


async def test_elasticsearch_refuses_one_document_and_gets_the_others(elasticsearch: ElasticsearchServer) -> None:
    rows = [log(str(n)) for n in range(5)]
    rows[3].attributes.extend(key_values({"k" * 40_000: "x"}))  # longer than a term of Lucene
    async with connected(elasticsearch.url) as destination:
        outcome = await send(destination, envelope(rows))
        assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (4, [3], ())
        assert outcome.refused[0].detail.startswith("400 document_parsing_exception")
        assert "immense" in outcome.refused[0].detail
        said = orjson.loads(outcome.refused[0].said)
        assert (said["status"], said["error"]["type"]) == (400, "document_parsing_exception"), "the server's own answer"


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=40) | st.sampled_from(sorted(ATTRIBUTES.keys() | FIELDS)), VALUES, max_size=4),
    VALUES,
    st.integers(0, 2**64 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.text(max_size=5),
)
async def test_whatever_a_log_holds_is_stored(
    elasticsearch: ElasticsearchServer,
    mapping: str,
    fields: dict[str, Any],
    body: Any,
    time: int,
    severity: int,
    text: str,
) -> None:
    row = log(body)
    row.attributes.extend(key_values(fields))
    row.time_unix_nano, row.severity_number, row.severity_text = time, severity, text  # type: ignore[assignment]
    row.event_name = text
    rows = envelope([row], header=resource(**fields), offset=uuid.uuid4().int >> 65)
    async with connected(elasticsearch.url, dataset=f"anything.{mapping}", mapping=mapping) as destination:
        assert await send(destination, rows) == Outcome(accepted=1)


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
async def test_ids_of_any_length_are_stored(elasticsearch: ElasticsearchServer, mapping: str) -> None:
    """In hex they may be longer than a term of Lucene."""
    row = log("x")
    row.trace_id, row.span_id = b"t" * 20_000, b"s" * 20_000
    async with connected(elasticsearch.url, dataset=f"ids.{mapping}", mapping=mapping) as destination:
        rows = envelope([row.SerializeToString()], offset=uuid.uuid4().int >> 65)
        assert await send(destination, rows) == Outcome(accepted=1)


async def test_the_template_is_installed_and_a_later_one_stays(elasticsearch: ElasticsearchServer) -> None:
    async with connected(elasticsearch.url) as destination:
        dataset = destination.stream.split("-")[1]
        path = f"_index_template/tailrace-logs-{dataset}"
        (found,) = (await call(elasticsearch, "GET", path))["index_templates"]
        assert found["index_template"]["index_patterns"] == [f"logs-{dataset}-*"]
        assert found["index_template"]["version"] == template(sink(elasticsearch.url, dataset=dataset))["version"]
        assert "data_stream" in found["index_template"]
        later = template(sink(elasticsearch.url, dataset=dataset)) | {"version": 1_000, "priority": 333}
        assert await call(elasticsearch, "PUT", path, later) == {"acknowledged": True}
        await destination.start()
        (found,) = (await call(elasticsearch, "GET", path))["index_templates"]
        assert found["index_template"]["version"] == 1_000
        assert await call(elasticsearch, "PUT", path, later | {"version": 0}) == {"acknowledged": True}
        await destination.start()
        (found,) = (await call(elasticsearch, "GET", path))["index_templates"]
        assert found["index_template"]["version"] == template(sink(elasticsearch.url, dataset=dataset))["version"]


@pytest.mark.parametrize(
    ("lifecycle", "part"),
    [
        ({"data_retention": "30d"}, {"lifecycle": {"enabled": True, "data_retention": "2592000s"}}),
        ({}, {}),
    ],
)
async def test_the_template_carries_the_lifecycle(
    elasticsearch: ElasticsearchServer, lifecycle: dict[str, str], part: dict[str, Any]
) -> None:
    """An ILM policy cannot be tried here, this server lacks ILM: tests/deploy/test_elasticsearch.py checks its form."""
    async with connected(elasticsearch.url, lifecycle=lifecycle) as destination:
        path = f"_index_template/tailrace-logs-{destination.stream.split('-')[1]}"
        (found,) = (await call(elasticsearch, "GET", path))["index_templates"]
        made = found["index_template"]["template"]
        assert {key: made[key] for key in made if key != "mappings"} == part
        assert await send(destination, envelope([log("a")])) == Outcome(accepted=1)


async def test_a_changed_lifecycle_is_installed(elasticsearch: ElasticsearchServer) -> None:
    dataset = f"d{uuid.uuid4().hex[:8]}"
    for days in ("7d", "9d"):
        async with connected(elasticsearch.url, dataset=dataset, lifecycle={"data_retention": days}):
            (found,) = (await call(elasticsearch, "GET", f"_index_template/tailrace-logs-{dataset}"))["index_templates"]
            seconds = int(days[0]) * 86_400
            assert found["index_template"]["template"]["lifecycle"]["data_retention"] == f"{seconds}s"


@pytest.mark.parametrize(
    ("retention", "text"), [("30d", "2.592e+06s"), ("90s", "90s"), ("1234567s", "1234567s"), ("500ms", "500ms")]
)
def test_a_template_says_its_retention_as_the_installed_ones_do(retention: str, text: str) -> None:
    """Else an upgrade would install it again, which the worker's user may no longer have the right to."""
    made = template(sink("http://a:9200", dataset="a", lifecycle={"data_retention": retention}))
    assert made["_meta"]["lifecycle"] == {"data_retention": text}


async def test_a_template_that_is_installed_by_hand_is_left_alone(elasticsearch: ElasticsearchServer) -> None:
    async with connected(elasticsearch.url, manage_template=False) as destination:
        name = f"tailrace-logs-{destination.stream.split('-')[1]}"
        answer = await call(elasticsearch, "GET", f"_index_template/{name}")
        assert answer["status"] == 404


async def test_logs_in_the_shape_of_ecs(elasticsearch: ElasticsearchServer) -> None:
    trace = os.urandom(16)
    verdict = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    fields = {"http.route": "/x", "exception.type": "OutOfStock", "exception.stacktrace": "at a\n" * 20_000}
    header = resource("cart", **{"k8s.pod.name": "cart-7", "host.name": "h1", "deployment.environment.name": "prod"})
    rows = [log("the cart is empty", trace, **fields), log({"order": {"id": 7}})]
    async with connected(elasticsearch.url, mapping="ecs") as destination:
        assert await send(destination, envelope(rows, [verdict, None], header=header)) == Outcome(accepted=2)
        queries: list[dict[str, Any]] = [
            {"term": {"trace.id": trace.hex()}},
            {"match": {"message": "cart"}},
            {"term": {"labels.http.route": "/x"}},
            {"term": {"error.type": "OutOfStock"}},
            {"match": {"error.stack_trace": "at"}},
            {"term": {"trace.sampled": True}},
            {"term": {"sampling.policy": "errors"}},
            {"term": {"span.name": "reserve"}},
        ]
        for query in queries:
            (found,) = await search(elasticsearch, destination, query)
            assert found["trace"]["id"] == trace.hex(), query
        for name, value in (
            ("service.name", "cart"),
            ("service.environment", "prod"),
            ("host.hostname", "h1"),
            ("kubernetes.pod.name", "cart-7"),
            ("log.level", "INFO"),
            ("log.logger", "tests"),
            ("event.severity", 9),
            ("data_stream.dataset", destination.stream.split("-")[1]),
        ):
            assert len(await search(elasticsearch, destination, {"term": {name: value}})) == 2, name
        assert len(await search(elasticsearch, destination, {"match": {"message": "order"}})) == 1


async def test_a_node_that_is_not_there_is_left_for_another(elasticsearch: ElasticsearchServer) -> None:
    nowhere = f"http://{HOST}:{free_port()}"
    async with connected(None, endpoints=[nowhere, elasticsearch.url]) as destination:
        for offset in range(10):
            assert await send(destination, envelope([log("a")], offset=offset)) == Outcome(accepted=1)


async def test_without_the_template_nothing_is_stored_in_the_wrong_place(elasticsearch: ElasticsearchServer) -> None:
    async with connected(elasticsearch.url) as destination:
        await call(elasticsearch, "DELETE", f"_index_template/tailrace-logs-{destination.stream.split('-')[1]}")
        outcome = await send(destination, envelope([log("a"), log("b")]))
        assert (outcome.accepted, outcome.refused, outcome.retry, outcome.reason) == (0, (), (0, 1), "item_404")
        await destination.start()
        assert await send(destination, envelope([log("a"), log("b")])) == Outcome(accepted=2)


async def test_what_an_operator_did_to_the_index_refuses_no_log(elasticsearch: ElasticsearchServer) -> None:
    """A pipeline that is not there, an index that is closed: its 400 is that of no document."""
    async with connected(elasticsearch.url) as destination:
        offsets = itertools.count()

        async def sent() -> Outcome:
            return await send(destination, envelope([log("a"), log("b")], offset=next(offsets)))

        async def asked(method: str, path: str, body: Any = None) -> None:
            answer = await call(elasticsearch, method, f"{index}/{path}", body)
            assert answer.get("acknowledged"), answer

        assert (await sent()).accepted == 2
        (index,) = await call(elasticsearch, "GET", destination.stream)
        await asked("PUT", "_settings", {"index.final_pipeline": "geoip"})
        outcome = await sent()
        assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1), "item_400")
        assert "pipeline with id [geoip] does not exist" in outcome.detail
        await asked("PUT", "_settings", {"index.final_pipeline": "_none"})
        assert (await sent()).accepted == 2
        await asked("POST", "_close")
        outcome = await sent()
        assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1), "item_400")
        await asked("POST", "_open")
        assert (await sent()).accepted == 2


def encode(rows: Sequence[LogRecord | bytes], **fields: Any) -> list[LogItem]:
    return Elasticsearch(sink("http://unused:1")).encode(record(envelope(rows, **fields).encode()))


def test_what_is_no_otlp_is_a_defect_and_the_rest_goes_on() -> None:
    items = encode([log("a"), b"\xff", log("b")])
    assert [bool(item.defect) for item in items] == [False, True, False]
    assert items[1].dead_letter().count(b"\xff") == 1
    items = encode([log("a"), log("b")], header=b"\xff")
    assert [bool(item.defect) for item in items] == [True, True]


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
async def test_a_name_that_is_not_utf8_costs_no_log(elasticsearch: ElasticsearchServer, mapping: str) -> None:
    header = resource("sh\0p").replace(b"sh\0p", b"sh\xf8p")
    wrong = log("n\0t").SerializeToString().replace(b"n\0t", b"n\xf6t")
    async with connected(elasticsearch.url, mapping=mapping) as destination:
        assert await send(destination, envelope([log("a"), wrong], header=header)) == Outcome(accepted=2)
        assert len(await search(elasticsearch, destination, {"term": {"service.name": "sh\ufffdp"}})) == 2
        assert len(await search(elasticsearch, destination, {"match": {"message": "n\ufffdt"}})) == 1


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
def test_a_large_resource_of_many_logs_takes_little_memory(mapping: str) -> None:
    """Each document has it whole: a message below 1 MB could become gigabytes."""
    destination = Elasticsearch(sink("http://unused:1", mapping=mapping))
    header = resource("cart", **{f"key.{n}": "v" * 100 for n in range(2_000)})
    told = record(envelope([log(str(n)) for n in range(1_000)], header=header).encode())
    tracemalloc.start()
    try:
        items = destination.encode(told)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(header)
    body = destination.request(items[:3]).body
    lines = [orjson.loads(line) for line in body.splitlines()]
    assert len(lines) == 6
    assert [sorted(line) for line in lines[::2]] == [["create"]] * 3
    for item, document in zip(items, lines[1::2], strict=False):
        assert 0.9 < item.size / len(orjson.dumps(document)) < 1.1


def test_a_dead_letter_is_the_log_as_it_came() -> None:
    original = log("a", k="v")
    (item,) = encode([original])
    (part,) = LogsData.FromString(item.dead_letter()).resource_logs
    assert list(part.scope_logs[0].log_records) == [original]
    assert part.resource.attributes[0].value.string_value == "cart"


def test_a_letter_of_many_logs_has_their_resource_once() -> None:
    items = encode([log(str(number)) for number in range(100)], header=resource("v" * 10_000))
    letter = items[0].dead_letter(*items[1:])
    assert len(letter) < 10_000 + 100 * len(items[0].row) + 2_000
    (part,) = LogsData.FromString(letter).resource_logs
    assert len(part.scope_logs[0].log_records) == 100


def test_an_id_is_a_place() -> None:
    place = Coordinates("t", 1, 2, 3, 4)
    others = [
        Coordinates("t1", 1, 2, 3, 4), Coordinates("t", 12, 2, 3, 4), Coordinates("t", 1, 23, 3, 4),
        Coordinates("t", 1, 2, 4, 4), Coordinates("t", 1, 2, 3, 5),
    ]  # fmt: skip
    assert document_id(place) == "hIUZBvKzIGvevg8Kps2TIw", "ids of released versions must not change"
    assert len({document_id(other) for other in [place, *others]}) == 6


# ---- faults --------------------------------------------------------------------------------------------------


def created(code: int, kind: str = "") -> dict[str, Any]:
    """The answer to one document."""
    error = {"error": {"type": kind, "reason": "why"}} if kind else {}
    return {"create": {"_index": "i", "_id": "x", "status": code, **error}}


async def faults(*replies: Reply, logs: int = 3, **fields: Any) -> Outcome:
    async with (
        faulty(NO_TEMPLATE, ACKNOWLEDGED, *replies) as server,
        connected(server.url, **fields) as destination,
    ):
        return await send(destination, envelope([log(str(n)) for n in range(logs)]))


async def test_every_document_has_its_own_answer() -> None:
    answers = [
        created(201),
        created(409, "version_conflict_engine_exception"),
        created(400, "document_parsing_exception"),
        created(429, "es_rejected_execution_exception"),
        created(503, "unavailable_shards_exception"),
        created(403, "cluster_block_exception"),
    ]
    outcome = await faults(json({"took": 1, "errors": True, "items": answers}), logs=6)
    assert (outcome.accepted, outcome.already_delivered) == (1, 1)
    assert [(refusal.index, refusal.detail) for refusal in outcome.refused] == [
        (2, "400 document_parsing_exception: why")
    ]
    assert outcome.retry == (3, 4, 5)
    assert (outcome.reason, outcome.detail) == ("item_429", "429 es_rejected_execution_exception: why")


async def test_a_document_that_a_pipeline_is_told_to_fail_holds_up_no_other() -> None:
    """As 8.19 answers, which has no processors here; what else a pipeline throws may be mended in it."""
    failed = {"type": "fail_processor_exception", "reason": "no user"}
    errors: list[Any] = [
        failed,
        {"type": "runtime_exception", "reason": "outer", "caused_by": failed},
        {"type": "illegal_state_exception", "reason": "Pipeline processor configured for non-existent pipeline [a]"},
        {"type": "null_pointer_exception", "reason": None},
        "not an object",
    ]
    answers = [created(201), *({"create": {"status": 500, "error": error}} for error in errors)]
    outcome = await faults(json({"errors": True, "items": answers}), logs=len(answers))
    assert (outcome.accepted, outcome.retry, outcome.reason) == (1, (3, 4, 5), "item_500")
    assert [(refusal.index, refusal.detail) for refusal in outcome.refused] == [
        (1, "500 fail_processor_exception: no user"),
        (2, "500 runtime_exception: outer; fail_processor_exception: no user"),
    ]


async def test_an_error_in_another_form_ends_nothing() -> None:
    answer = {"create": {"status": 400, "error": "not an object"}}
    outcome = await faults(json({"errors": True, "items": [answer]}), logs=1)
    assert [refusal.detail for refusal in outcome.refused] == ["400"]


async def test_what_is_in_the_failure_store_is_refused() -> None:
    """Nobody looks there: it is answered with 201 all the same."""
    stored = {"create": {"status": 201, "_index": ".fs-logs-x", "failure_store": "used"}}
    outcome = await faults(json({"errors": False, "items": [created(201), stored]}), logs=2)
    assert (outcome.accepted, [refusal.detail for refusal in outcome.refused]) == (
        1,
        ["in the failure store of .fs-logs-x"],
    )


async def test_the_flag_errors_is_not_believed() -> None:
    answers = [created(201), created(400, "a"), created(201)]
    outcome = await faults(json({"errors": False, "items": answers}))
    assert len(outcome.refused) == 1


async def test_too_few_answers_settle_nothing() -> None:
    outcome = await faults(json({"errors": False, "items": [created(201)]}))
    assert (outcome.retry, outcome.reason) == ((0, 1, 2), "incomplete")


async def test_a_busy_node_says_when() -> None:
    async def busy(request: Any, body: bytes) -> Any:
        answer: Any = json({"error": {"type": "es_rejected_execution_exception"}, "status": 429}, 429)(request, body)
        answer.headers["Retry-After"] = "4"
        return answer

    outcome = await faults(busy)
    assert (outcome.retry, outcome.retry_after, outcome.reason) == ((0, 1, 2), 4.0, "429")


async def test_a_proxy_that_answers_for_elasticsearch_settles_nothing() -> None:
    outcome = await faults(status(502, "<html>bad gateway</html>"))
    assert outcome.retry == (0, 1, 2)
    outcome = await faults(json("not an object"))
    assert (outcome.retry, outcome.reason) == ((0, 1, 2), "incomplete")
    with pytest.raises(Unavailable):
        await faults(reset)


async def test_a_cluster_without_room_for_another_shard_refuses_no_document() -> None:
    full = created(400, "validation_exception")
    outcome = await faults(json({"errors": True, "items": [full, full, created(400, "document_parsing_exception")]}))
    assert (outcome.retry, [refusal.index for refusal in outcome.refused], outcome.reason) == ((0, 1), [2], "item_400")


@pytest.mark.parametrize("itself", [False, True])
async def test_a_400_of_something_else_refuses_no_document(itself: bool) -> None:
    """A server of TLS that is asked without, say; what has answered as Elasticsearch is one."""
    headers = {"X_Elastic_Product": "Elasticsearch"} if itself else {}
    async with (
        faulty(status(400, "bad", **headers)) as server,
        connected(server.url, manage_template=False) as destination,
    ):
        outcome = await send(destination, envelope([log("a"), log("b")]))
    expected = (0, 2, "no_receiver") if not itself else (2, 0, "")
    assert (len(outcome.refused), len(outcome.retry), outcome.reason) == expected


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("application/json", b'{"errors":', '{"errors":'),
        ("application/json", b"", "Request Entity Too Large"),
        ("application/octet-stream", b"\xff\xfe", "\ufffd\ufffd"),
        ("application/problem+json", b'{"a":1}', "{'a': 1}"),
        ("text/plain", "zu groß".encode("latin-1"), "zu gro\ufffd"),
    ],
)
async def test_a_proxy_whose_words_cannot_be_read_is_believed_by_its_status(kind: str, said: bytes, told: str) -> None:
    """What is too large for it is halved, and it is waited for as it asks."""

    def reply(code: int) -> Reply:
        headers = {"Content-Type": kind, "Retry-After": "4"}
        return lambda request, body: web.Response(status=code, body=said, headers=headers)

    items = json({"items": [created(201)]})
    outcome = await faults(reply(413), items, reply(413), logs=2)
    assert (outcome.accepted, [refusal.detail for refusal in outcome.refused]) == (1, [f"413 {told}"])
    outcome = await faults(reply(503), logs=2)
    assert (outcome.retry, outcome.retry_after, outcome.reason) == ((0, 1), 4.0, "503")


async def test_a_server_that_is_too_old_refuses_no_document() -> None:
    """An operator mends it; until then everything waits."""
    reason = "request [/_bulk] contains unrecognized parameter: [require_data_stream]"
    error = {"error": {"type": "illegal_argument_exception", "reason": reason}, "status": 400}
    outcome = await faults(json(error, 400))
    assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1, 2), "400")
    assert "require_data_stream" in outcome.detail


async def test_a_server_that_does_not_say_it_is_elasticsearch_is_told_in_our_words() -> None:
    """OpenSearch, or a proxy that takes the header away: an operator mends it; until then everything waits."""

    def unnamed(request: Any, body: bytes) -> Any:
        answer: Any = ACKNOWLEDGED(request, body)
        del answer.headers["X-Elastic-Product"]
        return answer

    async with faulty(NO_TEMPLATE, unnamed) as server:
        with pytest.raises(
            Unavailable, match="a proxy before Elasticsearch must leave that header in; OpenSearch is not"
        ):
            async with connected(server.url):
                pass
    async with faulty(unnamed) as server, connected(server.url, manage_template=False) as destination:
        outcome = await send(destination, envelope([log("a")]))
        assert (outcome.refused, outcome.retry) == ((), (0,))
        assert "X-Elastic-Product" in outcome.detail


@pytest.mark.parametrize("code", [413, 503])
async def test_an_answer_without_a_word_is_told_by_its_status(code: int) -> None:
    """Elasticsearch says nothing of what is beyond http.max_content_length."""
    outcome = await faults(lambda request, body: web.Response(status=code), logs=1)
    details = [outcome.detail, *(refusal.detail for refusal in outcome.refused)]
    assert [detail for detail in details if detail] == [f"{code} {HTTPStatus(code).phrase}"]
    assert [refusal.said for refusal in outcome.refused] == [""] * (code == 413)


async def test_a_request_that_is_too_large_is_halved() -> None:
    one = json({"items": [created(201)]})
    outcome = await faults(json({"status": 413}, 413), one, one, logs=2)
    assert outcome == Outcome(accepted=2)
    outcome = await faults(json({"status": 413}, 413), logs=1)
    assert (outcome.accepted, len(outcome.refused)) == (0, 1)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(code: int) -> None:
    """Documents, and headers that are secret, would go to whatever host it names."""
    async with faulty(json({"items": [created(201)]})) as elsewhere:
        moved = status(code, "moved", Location=f"{elsewhere.url}/_bulk?token=s3cret")
        async with faulty(moved) as server:
            secret = {"headers": {"X-Api-Key": "a2V5"}}
            async with connected(server.url, manage_template=False, **secret) as destination:
                outcome = await send(destination, envelope([log("a")]))
            with pytest.raises(Unavailable, match=f"{code} no redirect is followed"):
                async with connected(server.url, **secret):
                    pass
        assert elsewhere.seen == []
    assert (outcome.accepted, outcome.refused, outcome.retry, outcome.reason) == (0, (), (0,), str(code))
    assert outcome.detail.endswith(f"set the endpoint to what it is ({elsewhere.url}/_bulk)")


async def test_a_request_that_is_refused_as_a_whole_is_told_at_once() -> None:
    told: list[tuple[str, int]] = []
    unknown = json({"error": "unknown"}, 400)
    async with faulty(NO_TEMPLATE, ACKNOWLEDGED, unknown) as server, connected(server.url) as destination:
        request = destination.request(destination.encode(record(envelope([log("a"), log("b")]).encode())))
        request.rejected = lambda said, refused: told.append((said, refused))
        await destination.send(request)
    assert [refused for _, refused in told] == [0, 1, 2]
    assert all("unknown" in said for said, _ in told)


async def test_a_request_as_bulk_has_it() -> None:
    async with (
        faulty(NO_TEMPLATE, ACKNOWLEDGED, json({"items": [created(201), created(201)]})) as server,
        connected(server.url, auth={"api_key": "a2V5"}, headers={"X-Team": "shop"}) as destination,
    ):
        assert await send(destination, envelope([log("a" * 2000), log("b")])) == Outcome(accepted=2)
        bulk = server.seen[-1]
        assert bulk.headers["Authorization"] == "ApiKey a2V5"
        assert bulk.headers["x-team"] == "shop"
        assert bulk.headers["User-Agent"] == USER_AGENT
        lines = [orjson.loads(line) for line in bulk.body.splitlines()]
        assert [line["create"]["_index"] for line in lines[::2]] == [destination.stream] * 2
        assert lines[1]["data_stream"]["dataset"] == destination.stream.split("-")[1]


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    """The test server has no TLS: what is shown is that both certificates are presented and verified."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("tailrace@example.org").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.verify_mode = ssl.CERT_REQUIRED
    ca.issue_cert(HOST).configure_cert(tls)
    ca.configure_trust(tls)
    async with faulty(NO_TEMPLATE, ACKNOWLEDGED, json({"items": [created(201)]}), tls=tls) as server:
        files = {"ca_file": str(tmp_path / "ca.pem"), "cert_file": str(tmp_path / "client.pem")}
        async with connected(server.url, **files) as destination:
            assert await send(destination, envelope([log("a")])) == Outcome(accepted=1)
        for key in files:
            with pytest.raises(Unavailable, match=r"ConnectionError|TlsError"):
                async with connected(server.url, **{key: files[key]}):
                    pass


async def test_a_request_that_outlasts_two_renewals_of_a_certificate_gets_its_answer(tmp_path: Path) -> None:
    ca, authorities = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(authorities)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(tls)
    asked, answer = asyncio.Event(), asyncio.Event()
    taken = json({"items": [created(201)]})

    async def later(request: web.Request, body: bytes) -> web.StreamResponse:
        asked.set()
        await answer.wait()
        reply = taken(request, body)
        assert isinstance(reply, web.StreamResponse)
        return reply

    async with (
        faulty(later, taken, tls=tls) as server,
        connected(server.url, ca_file=str(authorities), manage_template=False) as destination,
    ):
        batch = envelope([log("a")])
        first = asyncio.create_task(send(destination, batch))
        await asyncio.wait_for(asked.wait(), DEADLINE)
        for _ in range(2):
            shutil.copy(authorities, tmp_path / "renewed.pem")
            (tmp_path / "renewed.pem").replace(authorities)
            assert await send(destination, batch) == Outcome(accepted=1)
        answer.set()
        assert await first == Outcome(accepted=1)


async def test_the_name_of_an_address_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own context does not: any certificate of a public authority would get the credentials."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("elsewhere.example.org").configure_cert(tls)
    async with faulty(NO_TEMPLATE, ACKNOWLEDGED, tls=tls) as server:
        destination = Elasticsearch(sink(server.url))
        with pytest.raises(Unavailable, match=r"TlsError: .*certificate is not valid for"):
            await destination.start()
        await destination.close()
        assert server.seen == []


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    destination = Elasticsearch(sink(f"http://{HOST}:{free_port()}"))
    with pytest.raises(Unavailable, match="index template tailrace-logs-tailrace"):
        await destination.start()
    await destination.close()
    async with faulty(json({"status": 401}, 401)) as server:
        destination = Elasticsearch(sink(server.url))
        with pytest.raises(Unavailable, match="401"):
            await destination.start()
        await destination.close()
