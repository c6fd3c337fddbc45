"""More than a hundred thousand hostile messages of every encoding that is not plain OTLP, as ingest meets them.

Each is read or is a dead letter, nothing is raised, and what is read is what a reference reads where there is one.
tests/schemas/test_mutations.py does the same to OTLP protobuf. MUTATIONS=20 in the environment makes it twenty times as
many. What is fed here is made of valid messages: bytes are damaged, values of JSON replaced, texts by HOSTILE ones.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.metric_points import TO_OTLP, MetricFlush, MetricPoints, Naming
from processors.regroup import AUTO, ENCODINGS, Regroup
from schemas.errors import Malformed
from schemas.formats import jaeger_json, jaeger_proto, otlp_json, text_logs
from schemas.formats.jaeger_model import TEXT
from schemas.point import PointBatch
from tests.processors.points import message, timed
from tests.repository import COMPILED
from tests.schemas.damage import damaged
from tests.schemas.formats import collector
from tests.schemas.formats.hexed import IDS, hexed
from tests.schemas.formats.spans import comparable, jsonpb, spans

SCALE = int(os.environ.get("MUTATIONS", 1)) if COMPILED else 0.02
TIMES = 8
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1e308, -1e-308, 1 << 63, (1 << 64) - 1, "", "\0", "9" * 5000, "-" + "9" * 5000, "1e999",
    "NaN", "Infinity", "ü☃", "\ud83d\ude00", "٣٤٥", "0" * 40, "=" * 9, "AAAA====", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60.999999999+23:59", "0000-00-00T00:00:00-99:99", "999999999999s", [], {}, [[]], {"": {}},
    "{", "[]", '{"log":"{"}', "trace_id=",
    "-1", "+1", " 1", "1_", "1-5759e988-bd862e3fe1be46a994272793", "projects//traces/", "<999>", "\x1b[31m",
)  # fmt: skip


def replaced(random: Random, value: Any) -> Any:
    """The same JSON with one value, somewhere, or one key, a hostile one."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        if random.random() < 0.1:
            return {**value, random.choice([h for h in HOSTILE if isinstance(h, str)]): value[key]}
        return {**value, key: replaced(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.9:
        place = random.randrange(len(value))
        return [*value[:place], replaced(random, value[place]), *value[place + 1 :]]
    return random.choice(HOSTILE)


def hostile_json(random: Random, base: Any) -> bytes:
    for _ in range(random.randint(1, 3)):
        base = replaced(random, base)
    data = json.dumps(base, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged(random, data) if random.random() < 0.3 else data


def hostile_span(random: Random, base: Any) -> bytes:
    """A Jaeger Span with a hostile tag that means something, or a Batch of it, or damaged."""
    span = TEXT["Span"].FromString(base)
    keys = ("http.status_code", "otel.status_code", "error", "span.kind", "otel.scope.name", "w3c.tracestate", "event")
    texts = [h for h in HOSTILE if isinstance(h, str) and h != "\ud83d\ude00"]
    for tags in (span.tags, span.process.tags):
        tag = {"key": random.choice(keys), "v_str": random.choice(texts), "v_type": random.randrange(6)}
        tags.insert(0, TEXT["KeyValue"](**tag))
    if random.random() < 0.3:
        span.start_time.seconds = random.choice([0, -1, 1 << 62, -(1 << 63)])
        span.duration.nanos = random.choice([0, -1, (1 << 31) - 1])
    data: bytes = span.SerializeToString()
    if random.random() < 0.2:
        data = TEXT["Batch"](spans=[span], process=span.process).SerializeToString()
    return damaged(random, data) if random.random() < 0.7 else data


def hostile_metrics(random: Random, base: bytes) -> bytes:
    return damaged(random, base) if random.random() < 0.9 else damaged(random, damaged(random, base))


def metrics() -> list[bytes]:
    """Every kind of metric, in one message each and in one together."""
    data, found = message()
    for number, kind in enumerate(("gauge", "sum", "histogram", "exponential_histogram", "summary")):
        metric = found.add(name=f"m{number}", unit="ms")
        holder = getattr(metric, kind)
        point = timed(holder.data_points.add(), route="/", n=number)
        if kind in ("gauge", "sum"):
            point.as_int = 5
        else:
            point.count, point.sum = 3, 1.5
        if kind not in ("gauge", "summary"):
            holder.aggregation_temporality = 1 + number % 2
        if kind == "histogram":
            point.explicit_bounds.extend([1.0, 5.0])
            point.bucket_counts.extend([1, 1, 1])
        elif kind == "exponential_histogram":
            point.positive.bucket_counts.extend([1, 2])
        elif kind == "summary":
            point.quantile_values.add(quantile=0.5, value=1.0)
    whole = []
    for metric in found:
        one, alone = message()
        alone.append(metric)
        whole.append(one.SerializeToString())
    return [*whole, data.SerializeToString()]


HEX = "0af7651916cd43dd8448eb211c80319c"
LOG_OBJECTS: list[Any] = [
    {"time": "2024-05-01T12:00:00Z", "level": "INFO", "message": "paid", "trace_id": HEX, "span_id": HEX[:16],
     "service": {"name": "cart", "version": "1"}, "mdc": {"traceId": "a" * 32}},
    {"instant": {"epochSecond": 1_700_000_000, "nanoOfSecond": 5}, "severityNumber": 17, "trace_flags": "01",
     "body": {"a": [1, {"b": None}]}, "traceparent": f"00-{HEX}-{HEX[:16]}-01", "flags": 1},
    {"log": '{"msg": "inner", "level": 30, "ts": 1700000000.5}\n', "stream": "out", "dd": {"trace_id": "123456789"}},
    {"@t": 1700000000, "@l": "Error", "@m": "x", "deployment": {"environment": {"name": "prod"}}, "logger": "a.b"},
]  # fmt: skip
TEXTS = [
    b'2024-05-01 12:00:00,123 - shop.cart - ERROR - out of stock\n  File "x.py", line 1\nmore',
    f'<34>1 2024-05-01T12:00:00.5Z host app - - [opentelemetry trace_id="{HEX}"] oops'.encode(),
    b"I0501 12:00:00.000000 1 main.go:5] ok\nE0501 12:00:01.000000 1 main.go:6] not ok",
    f'time=2024-05-01T12:00:00Z level=warn msg="slow" trace_id={HEX} span_id={HEX[:16]} trace_flags=01'.encode(),
    b"\x1b[31mERROR\x1b[0m Root=1-5759e988-bd862e3fe1be46a994272793 \xff\xfe",
]


def hostile_text(random: Random, base: bytes) -> bytes:
    words = base.split(b" ")
    word = str(random.choice(HOSTILE)).encode("utf-8", "replace")
    words[random.randrange(len(words))] = word * random.choice([1, 1, 3])
    return damaged(random, b" ".join(words))


def lines(random: Random, base: Any) -> bytes:
    """One object, several lines of them, or an array."""
    found = [hostile_json(random, random.choice([base, *LOG_OBJECTS])) for _ in range(random.choice([1, 1, 3]))]
    return b"[" + b",".join(found) + b"]" if random.random() < 0.2 else b"\n".join(found)


def as_json(message: Any) -> Any:
    return hexed(MessageToDict(message))


Reference = Callable[[bytes], None]


def like_protobuf(kind: Any, decode: Callable[[bytes], bytes]) -> Reference:
    """protobuf's own reader of JSON, where it takes what ours takes: ids are hex there, which it does not know."""

    def compare(data: bytes) -> None:
        with suppress(Malformed, ValueError, ParseError, RecursionError):
            ours, value = decode(data), orjson.loads(data)
            theirs = ParseDict(unhexed(value), kind(), ignore_unknown_fields=True)
            assert MessageToDict(kind.FromString(ours)) == MessageToDict(theirs), data

    return compare


def unhexed(value: Any, key: str = "") -> Any:
    """OTLP's JSON with protobuf's ids. Raises ValueError for an id that is not hex."""
    if isinstance(value, dict):
        return {name: unhexed(member, name) for name, member in value.items()}
    if isinstance(value, list):
        return [unhexed(entry) for entry in value]
    if key in IDS and isinstance(value, str):
        return base64.b64encode(bytes.fromhex(value)).decode()
    return value


def like_its_json(data: bytes) -> None:
    """A Jaeger Span says in protobuf what it says in JSON."""
    with suppress(DecodeError, Malformed, ValueError, OSError):
        span = TEXT["Span"].FromString(data)
        written = jsonpb(span)
        if span.SerializeToString() == data and 0 <= span.start_time.nanos < 10**9 and 0 <= span.duration.nanos < 10**9:
            assert comparable(jaeger_proto.traces(data)) == comparable(jaeger_json.traces(written)), data


def whole_text(data: bytes) -> None:
    """No character of a text is lost but white space at the ends of logs."""
    with suppress(Malformed):
        found = LogsData.FromString(text_logs.logs(data)).resource_logs[0].scope_logs[0].log_records
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        assert "".join("".join(log.body.string_value for log in found).split()) == "".join(text.split()), data


CORPORA: dict[str, tuple[str, str, int, Sequence[Any], Callable[[Random, Any], bytes], Reference | None]] = {
    "otlp_json traces": ("traces", "otlp_json", 8_000, [as_json(collector.traces())], hostile_json,
                         like_protobuf(TracesData, otlp_json.traces)),
    "otlp_json logs": ("logs", "otlp_json", 8_000, [as_json(collector.logs())], hostile_json,
                       like_protobuf(LogsData, otlp_json.logs)),
    "otlp_json metrics": ("metrics", "otlp_json", 8_000, [as_json(MetricsData.FromString(m)) for m in metrics()],
                          hostile_json, like_protobuf(MetricsData, otlp_json.metrics)),
    "otlp_proto metrics": ("metrics", "otlp_proto", 20_000, metrics(), hostile_metrics, None),
    "jaeger_proto": ("traces", "jaeger_proto", 18_000, [s.SerializeToString() for s in spans(50)], hostile_span,
                     like_its_json),
    "jaeger_json": ("traces", "jaeger_json", 12_000, [orjson.loads(jsonpb(s)) for s in spans(50)], hostile_json, None),
    "json": ("logs", "json", 10_000, LOG_OBJECTS, lines, None),
    "text": ("logs", "text", 12_000, TEXTS, hostile_text, whole_text),
    "auto": ("logs", "auto", 2_000, LOG_OBJECTS, lines, None),
    "auto traces": ("traces", "auto", 4_000, [s.SerializeToString() for s in spans(50)], hostile_span, None),
    "auto metrics": ("metrics", "auto", 2_000, metrics(), hostile_metrics, None),
}  # fmt: skip
COMPARED = 10  # one in so many is read by the reference as well: protobuf's JSON in Python is slow


def test_there_are_enough_and_of_every_encoding() -> None:
    assert sum(count for _, _, count, *_ in CORPORA.values()) >= 100_000
    plain = {("traces", "otlp_proto"), ("logs", "otlp_proto")}  # test_mutations.py
    every = {(signal, encoding) for signal, encodings in ENCODINGS.items() for encoding in encodings}
    every |= {("metrics", encoding) for encoding in (*TO_OTLP, AUTO)}
    assert {(signal, encoding) for signal, encoding, *_ in CORPORA.values()} | plain == every


def processor(signal: str, encoding: str) -> Regroup | MetricPoints:
    if signal == "metrics":
        return MetricPoints("raw", 0, encoding, Naming(), 1 << 24)
    return Regroup("raw", 0, signal, encoding, 4, 1 << 24, 900_000)


@pytest.mark.parametrize("name", CORPORA)
def test_hostile_messages(name: str) -> None:
    signal, encoding, count, bases, make, reference = CORPORA[name]
    random, own = Random(f"{name} 2026"), processor(signal, encoding)
    rows = letters = 0
    numbers = range(int(count * SCALE))
    for number in numbers:
        data = make(random, bases[number % len(bases)])
        own.add(number, 1_700_000_000_000, data)
        if number % COMPARED == 0 and reference is not None:
            reference(data)
        if number % 100 == 99 or number == numbers[-1]:
            flush = own.flush(None, {}) if isinstance(own, Regroup) else own.flush()
            rows, letters = rows + flush.rows, letters + len(flush.dead_letters)
            if isinstance(flush, MetricFlush):
                assert all(PointBatch.decode(batch.encode()).metric == batch.metric for batch in flush.batches)
    assert rows > count * SCALE / 50
    assert letters > count * SCALE / 50


LONG: dict[str, tuple[str, str, Callable[[int], bytes]]] = {
    "text: one line": ("logs", "text", lambda n: b"a=1 trace_id: " * n),
    "text: brackets": ("logs", "text", lambda n: b"[x" * n),
    "text: colours": ("logs", "text", lambda n: b"\x1b[3" * n),
    "text: digits": ("logs", "text", lambda n: b"00-" + b"0123456789abcdef" * n),
    "text: dashes": ("logs", "text", lambda n: b"trace_id=" + b"a-" * n),
    "text: lines": ("logs", "text", lambda n: b"INFO x\n" * n),
    "text: spaces": ("logs", "text", lambda n: b"trace id " + b" " * n + b"="),
    "json: names": ("logs", "json", lambda n: b"{" + b",".join(b'"k%d":1' % i for i in range(n)) + b"}"),
    "json: brackets": ("logs", "json", lambda n: b"[" * n),
    "json: inside": ("logs", "json", lambda n: orjson.dumps({"log": '{"log":"' + "{" * n})),
    "json: bad lines": ("logs", "json", lambda n: b"{\n" * n),
    "otlp_json: nested": ("traces", "otlp_json", lambda n: b'{"resourceSpans":' * n),
    "otlp_json: surrogates": ("logs", "otlp_json", lambda n: b'{"a":"' + b"\\ud800" * n + b'"}'),
    "otlp_json: attributes": ("logs", "otlp_json", lambda n: otlp_log(n)),
    "jaeger_json: digits": ("traces", "jaeger_json", lambda n: b'{"duration":"' + b"1" * n + b's"}'),
    "jaeger: tags": ("traces", "jaeger_proto", lambda n: jaeger(n // 20, "otel.scope.name")),
    "jaeger: one tag": ("traces", "jaeger_proto", lambda n: jaeger(n // 20, "event")),
    "jaeger: references": ("traces", "jaeger_proto", lambda n: jaeger(0, "", n // 20)),
    "metrics: names": ("metrics", "otlp_proto", lambda n: many_names(n // 20, "k{:032}".format, "v")),
}  # fmt: skip


def otlp_log(count: int) -> bytes:
    pairs = [{"key": f"k{i}", "value": {"intValue": i}} for i in range(count // 20)]
    record = {"traceId": "0af7651916cd43dd8448eb211c80319c", "attributes": pairs}
    return orjson.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})


def jaeger(count: int, key: str, references: int = 0) -> bytes:
    span = TEXT["Span"](trace_id=b"t" * 16, span_id=b"s" * 8)
    for number in range(count):
        span.tags.add(key=key, v_str=str(number))
    for _ in range(references):
        span.references.add(trace_id=b"t" * 16, span_id=b"r" * 8, ref_type=1)
    return bytes(span.SerializeToString())


def one_label(number: int) -> str:
    """Keys that become one label, the values of which are joined."""
    return f"a{number:032b}".translate({ord("0"): "!", ord("1"): "#"})


def many_names(count: int, key: Callable[[int], str], text: str) -> bytes:
    data, found = message()
    timed(found.add(name="g").gauge.data_points.add(as_int=1), **{key(number): text for number in range(count)})
    return bytes(data.SerializeToString())


@pytest.mark.parametrize("name", LONG)
def test_time_grows_with_size(name: str) -> None:
    """Eight times as much takes eight times as long, about, and never sixty-four times: nothing is quadratic."""
    signal, encoding, make = LONG[name]

    def seconds(size: int) -> float:
        data, best = make(size), float("inf")
        for _ in range(3):
            own = processor(signal, encoding)
            began = time.process_time()
            own.add(0, 0, data)
            best = min(best, time.process_time() - began)
        return best

    size = 500
    while (small := seconds(size)) < 0.002 and size < 64_000:
        size *= 2
    assert seconds(size * TIMES) < max(small, 0.001) * TIMES * 4


def test_attributes_that_become_one_label_cost_what_others_do() -> None:
    """Their values are joined: not one by one, each time with all before."""

    def seconds(key: Callable[[int], str]) -> float:
        data, best = many_names(8_000, key, "v" * 1000), float("inf")
        for _ in range(3):
            own = processor("metrics", "otlp_proto")
            began = time.process_time()
            own.add(0, 0, data)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(one_label) < 4 * seconds("k{:032}".format)
