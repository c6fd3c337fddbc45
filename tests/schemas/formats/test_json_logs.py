from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from schemas.formats import json_logs
from schemas.formats.json_logs import TOO_MANY, BadLine, LogRow, parse
from schemas.formats.times import nanoseconds
from schemas.formats.trace_fields import context_in_text, identifier, span_id, trace_context
from schemas.ids import trace_key
from schemas.otlp_build import logs_data
from schemas.reasons import Reason
from tests.schemas.formats.logs import HEX, SPAN, SPAN_HEX, TRACE, attributes, one, plain, record, resource
from tests.schemas.rows import scan_log, split_logs

LOW = int.from_bytes(TRACE[8:])
LOW_ONLY = bytes(8) + TRACE[8:]


def test_a_log_becomes_a_record_and_what_is_left_its_attributes() -> None:
    row = one(
        {
            "timestamp": "2024-01-01T12:00:00.123456789Z",
            "level": "warn",
            "message": "slow",
            "trace_id": HEX,
            "span_id": SPAN_HEX,
            "trace_flags": "01",
            "service": "cart",
            "version": "1.2",
            "environment": "prod",
            "logger": "db",
            "duration": 1.5,
            "http": {"method": "GET", "codes": [1, None]},
            "nothing": None,
        }
    )
    log = LogRecord.FromString(row.record)
    assert (log.time_unix_nano, log.observed_time_unix_nano) == (1_704_110_400_123_456_789, 0)
    assert (log.severity_number, log.severity_text, log.body.string_value) == (13, "warn", "slow")
    assert (log.trace_id, log.span_id, log.flags, row.trace_id) == (TRACE, SPAN, 1, TRACE)
    assert {pair.key: plain(pair.value) for pair in log.attributes} == {
        "duration": 1.5,
        "http": {"method": "GET", "codes": [1, None]},
    }
    assert resource(row) == {
        "service.name": "cart", "service.version": "1.2", "deployment.environment.name": "prod",
    }  # fmt: skip
    data = logs_data([(row.resource, row.scope, [row.record])])
    assert LogsData.FromString(data).resource_logs[0].scope_logs[0].scope.name == "db"


# --- messages --------------------------------------------------------------------------------------------------


def test_lines_arrays_and_single_objects() -> None:
    logs = [{"message": "one"}, {"message": "two"}]
    lines = b"\n".join(map(orjson.dumps, logs))
    expected = [one(log) for log in logs]
    assert (
        parse(lines)
        == parse(orjson.dumps(logs))
        == parse(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\n"))
        == expected
    )
    assert parse(json.dumps(logs[0], indent=2).encode()) == expected[:1]


@pytest.mark.parametrize("data", [b"", b" \n\r\n\t", b"[]"])
def test_nothing_holds_no_logs(data: bytes) -> None:
    assert parse(data) == []


def test_a_bad_line_is_alone_in_being_bad() -> None:
    good = b'{"message":"x"}'
    rows = parse(b"\n".join((good, b"oops {", b"42", b'{"a":nan}', b'{"a":"\xff}', good)))
    assert [type(row) for row in rows] == [LogRow, BadLine, BadLine, BadLine, BadLine, LogRow]
    assert rows[1][:2] == (b"oops {", Reason.MALFORMED)
    assert rows[2] == BadLine(b"42", Reason.MALFORMED, "a JSON int, not an object")


def test_an_entry_of_an_array_that_is_no_object() -> None:
    assert [type(row) for row in parse(b'[{}, "text", 1]')] == [LogRow, BadLine, BadLine]


@pytest.mark.parametrize("cut", [rb'"cut \ud83d"', b'"cut \xe9"', rb'"cut \ude00"'])
def test_a_text_that_was_cut_badly_costs_a_character(cut: bytes) -> None:
    """What JSON.stringify makes of half an emoji, and latin-1: as in OTLP/JSON."""
    good, bad = b'{"message":"x"}', b'{"message":%s,"level":"warn"}' % cut
    inside = orjson.dumps({"log": bad.decode("latin-1").replace("\xe9", "\\udc00")})
    expected = one({"message": "cut \ufffd", "level": "warn"})
    for value in (bad, bad.replace(b",", b",\n"), b"[%s]" % bad, b"[\n%s\n]" % bad, inside):
        assert parse(value) == [expected]
    for value in (b"[%s,%s,%s]", b"[%s,\n%s,\n%s]", b"%s\n%s\n%s"):
        assert parse(value % (good, bad, good)) == [one({"message": "x"}), expected, one({"message": "x"})]
        assert parse(value % (bad, good, bad)) == [expected, one({"message": "x"}), expected]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_python_writes_for_no_number_is_a_text(number: str) -> None:
    line = f'{{"level":"error","msg":"boom","loss":{number},"n":{2**70},"trace_id":"{HEX}"}}'
    inside, good = json.dumps({"log": line}), '{"msg":"x"}'
    for value in (line, inside, f"[{line}]", f"{line}\n{good}", f"{good}\n{line}"):
        row = next(row for row in parse(value.encode()) if row != one({"msg": "x"}))
        assert isinstance(row, LogRow)
        log = LogRecord.FromString(row.record)
        assert (log.severity_number, row.trace_id) == (17, TRACE)
        assert {pair.key: plain(pair.value) for pair in log.attributes} == {"loss": number, "n": str(2**70)}


def test_an_entry_that_is_nested_too_deeply_is_alone_in_being_bad() -> None:
    deep = b'{"a":' * 600 + b'"\xc3\xa9"' + b"}" * 600
    rows = parse(b'[{"msg":"a"},' + deep + b',{"msg":"b"}]')
    assert rows == [one({"msg": "a"}), BadLine(deep, Reason.MALFORMED, "nested too deeply"), one({"msg": "b"})]


@pytest.mark.parametrize("form", ["array", "lines"])
def test_logs_beyond_the_most_that_a_message_has_are_one_bad_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 100
    monkeypatch.setattr(json_logs, "MOST_LOGS", most)
    logs, rest = [b'{"msg":"x"}'] * most, [b'{"msg":"y"}'] * 3
    if form == "array":
        value, left = b"[%s]" % b",".join(logs + rest), b"[%s]" % b",".join(rest)
        assert len(parse(b"[%s]" % b",".join(logs))) == most
    else:
        value, left = b"\n \n".join(logs + rest), b"\n \n".join(rest)
    rows = parse(value)
    assert rows == [one({"msg": "x"})] * most + [BadLine(left, Reason.MESSAGE_TOO_LARGE, TOO_MANY)]
    assert parse(left) == [one({"msg": "y"})] * 3


def test_entries_cost_no_thousand_times_their_bytes() -> None:
    """A serializer may keep a page for two bytes."""
    peak = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"
    code = f"""
from schemas.formats.json_logs import parse
value = b"[" + b",".join([b"{{}}"] * 200_000) + b"]"
before = {peak}
rows = parse(value)
print(({peak} - before) / len(value))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 200


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=9), st.sampled_from(
        (0.5, -1.0, 1.7e9, 1e300, HEX, SPAN_HEX, f"00-{HEX}-{SPAN_HEX}-01", "1-5759e988-bd862e3fe1be46a994272793",
         "error", "2024-01-01T00:00:00Z", '{"message": "inner", "level": "info"}'))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ("trace_id", "traceId", "dd.trace_id", "dd", "trace", "span", "span_id", "mdc", "log", "log.level", "level",
         "severity_number", "status", "message", "body", "time", "@timestamp", "ts", "service", "service.name",
         "deployment", "trace_flags", "traceparent", "b3", "X-Amzn-Trace-Id", "instant", "logger", "environment", "id")
    ),
)  # fmt: skip
OBJECTS = st.recursive(
    st.dictionaries(KEYS, JSON, max_size=6),
    lambda inner: st.dictionaries(KEYS, st.one_of(inner, JSON), max_size=4),
    max_leaves=3,
)


@given(OBJECTS)
def test_any_object_is_a_log_that_otlp_reads(fields: dict[str, Any]) -> None:
    row = one(fields)
    rebuilt = logs_data([(row.resource, row.scope, [row.record])])
    rows = split_logs(rebuilt)
    assert len(rows) == 1
    LogsData.FromString(rebuilt)
    assert rows.keys.tolist() == [trace_key(row.trace_id) if any(row.trace_id) else 0]
    scan = scan_log(row.record, 0, len(row.record))
    assert len(scan.trace_id) in (0, 16)
    assert len(scan.span_id) in (0, 8)
    assert 0 <= scan.severity_number <= 24


@given(st.dictionaries(st.from_regex(r"x\.[a-z]{1,4}", fullmatch=True), JSON.filter(lambda v: v not in (None, {}))))
@example({"x.n": (1 << 64) - 1})
def test_fields_without_a_meaning_arrive_as_they_are(fields: dict[str, Any]) -> None:
    assert attributes(fields) == expected_of(fields)


def expected_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: expected_of(member) for key, member in value.items()}
    if isinstance(value, list):
        return [expected_of(entry) for entry in value]
    return str(value) if type(value) is int and value >= 1 << 63 else value


@given(st.one_of(st.binary(max_size=40), st.lists(OBJECTS.map(orjson.dumps), max_size=3).map(b"\n".join)), st.data())
def test_no_bytes_raise(data: bytes, more: st.DataObject) -> None:
    at = more.draw(st.integers(0, len(data)))
    for row in parse(data[:at] + more.draw(st.binary(max_size=2)) + data[at:]):
        assert isinstance(row, LogRow | BadLine)


BIG = b"123456789012345678901234567890"
DEEP = b'{"a":' * 25 + b"0.5" + b"}" * 25
DEEPER = b"[" * 2000 + b"]" * 2000
SCALARS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e30", b"-1E+400", b"0.5", b"-0", b"null", b"true", b'"x"', rb'"\ud83d"',
    b'"\xff"', BIG, b"-" + BIG, BIG + b".5", b"18446744073709551616", b"-9223372036854775809", DEEP, DEEPER,
)  # fmt: skip
TEXTS = st.recursive(  # of JSON, and of what some parsers take for it
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        inner.map(lambda text: json.dumps(text.decode("latin-1")).encode()),
        st.lists(inner, max_size=3).map(lambda entries: b"[%s]" % b", ".join(entries)),
        st.lists(st.tuples(KEYS.map(orjson.dumps), inner).map(b":".join), max_size=3).map(
            lambda members: b"{%s}" % b",".join(members)
        ),
    ),
    max_leaves=8,
)


@given(st.lists(TEXTS, min_size=1, max_size=3).map(b"\n".join))
@example(rb'{"big": %s, "log": "{\"x\": NaN}"}' % BIG)
@example(rb'{"big": %s, "log": "{\"x\": -Infinity}"}' % BIG)
@example(rb'[{"big": %s, "log": "{\"x\": NaN}"}]' % BIG)
def test_no_json_raises(data: bytes) -> None:
    for row in parse(data):
        assert isinstance(row, LogRow | BadLine)


@pytest.mark.parametrize("number", [BIG, b"1e30"])
def test_a_large_number_changes_nothing_beside_it(number: bytes) -> None:
    """A value with a fraction far inside, an inner text of more levels than are read."""
    for data in (b'{"n":%s,"m":%s}' % (number, DEEP), b'[{"n":%s},{"m":%s}]' % (number, DEEP)):
        row = parse(data)[-1]
        assert isinstance(row, LogRow)
        assert b"0.5" in row.record
        assert row.too_deep
    text = b'{"a":%s}' % DEEPER
    (row,) = parse(b'{"n":%s,"message":%s}' % (number, orjson.dumps(text.decode())))
    assert isinstance(row, LogRow)
    assert LogRecord.FromString(row.record).body.string_value == text.decode()


@pytest.mark.parametrize("levels", [900, 1_000])
def test_a_large_integer_in_what_is_nested_too_deeply(levels: int) -> None:
    deep = b"[" * levels + BIG + b"]" * levels
    for data in (b'{"x":%s}', b'{"x":%s}\n{"a":1}', b'[{"x":%s}]'):
        row = parse(data % deep)[0]
        assert isinstance(row, BadLine)
        assert row[1:] == (Reason.MALFORMED, json_logs.TOO_DEEP)


def test_what_is_nested_too_deeply_becomes_text() -> None:
    deep: Any = "core"
    for _ in range(200):
        deep = {"a": deep}
    row = one({"x": deep})
    assert b"core" in row.record
    assert len(split_logs(logs_data([(row.resource, row.scope, [row.record])]))) == 1


@pytest.mark.parametrize("levels", [250, 300, 1_000])
def test_more_levels_are_read_than_can_be_written(levels: int) -> None:
    """A line of its own, an object, an entry of an array: buried whole, or a row where it can be written."""
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    for data in (
        deep,
        b'{"x":' + deep + b"}",
        deep + b'\n{"msg":"b"}',
        b"[" + deep + b',{"msg":"b"}]',
        b"[" * 300 + b"]" * 300,
    ):
        for row in parse(data):
            assert isinstance(row, LogRow) or (row.detail and row.data)


@pytest.mark.parametrize("flags", ["-1", "+1", " 1", "1_", "٣٤", "zz"])
def test_flags_that_are_no_byte_are_none(flags: str) -> None:
    row = one({"trace_id": "0af7651916cd43dd8448eb211c80319c", "trace_flags": flags, "msg": "x"})
    assert LogRecord.FromString(row.record).flags == 0


# --- time ------------------------------------------------------------------------------------------------------

NOON = 1_704_110_400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-01-01T12:00:00Z", NOON * 10**9),
        ("2024-01-01t12:00:00z", NOON * 10**9),
        ("2024-01-01 12:00:00,123", NOON * 10**9 + 123_000_000),
        ("2024-01-01T13:30:00.000000001+01:30", NOON * 10**9 + 1),
        ("2024-01-01T13:00:00.5+0100", NOON * 10**9 + 500_000_000),
        ("2024-01-01T05:00:00-07", NOON * 10**9),
        ("2024-01-01 12:00:00.1234567891 UTC", NOON * 10**9 + 123_456_789),
        ("2024-01-01T11:59:60Z", NOON * 10**9),
        (NOON, NOON * 10**9),
        (NOON + 0.25, NOON * 10**9 + 250_000_000),
        (str(NOON), NOON * 10**9),
        (f"{NOON}.25", NOON * 10**9 + 250_000_000),
        (NOON * 1000 + 1, NOON * 10**9 + 1_000_000),
        (NOON * 10**6 + 1, NOON * 10**9 + 1000),
        (NOON * 10**9 + 1, NOON * 10**9 + 1),
        ({"epochSecond": NOON, "nanoOfSecond": 7}, NOON * 10**9 + 7),
        ("2024-01-01 12:00:00.5 GMT", NOON * 10**9 + 500_000_000),
        ("2024-01-01T12:00Z", NOON * 10**9),
        ("2024-01-01T13:00:00.5+01:00[Europe/Berlin]", NOON * 10**9 + 500_000_000),
        ("01/Jan/2024:13:00:00 +0100", NOON * 10**9),
        ("01/Foo/2024:13:00:00 +0100", None),
        ("32/Jan/2024:13:00:00 +0100", None),
        ("2024-01-01 13:00:00 CET", None),
        (0.123, None),
        (-NOON, None),
        (True, None),
        (None, None),
        ("yesterday", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-01-01T00:00:00+99:99", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-01-01T00:00:00Z", None),
        ({"epochSecond": "x"}, None),
        (1 << 80, None),
        (1e300, None),
        ("9" * 20, None),
    ],
)
def test_times(value: Any, expected: int | None) -> None:
    assert nanoseconds(value) == expected


@given(st.integers(10**8, 10**11 - 1), st.integers(0, 10**9 - 1))
def test_a_number_and_its_iso_form_are_the_same_time(seconds: int, nanos: int) -> None:
    from datetime import UTC, datetime, timedelta

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=min(seconds, 1 << 34))
    total = int(moment.timestamp()) * 10**9 + nanos
    assert nanoseconds(f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z") == total


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("__REALTIME_TIMESTAMP", str(NOON * 10**6)),  # journalctl -o json
        ("timereported", "2024-01-01T13:00:00+01:00"),  # rsyslog
        ("ISODATE", "2024-01-01T13:00:00+01:00"),  # syslog-ng
        ("time_iso8601", "2024-01-01T13:00:00+01:00"),  # nginx
        ("time_local", "01/Jan/2024:13:00:00 +0100"),
        ("msec", f"{NOON}.000"),
    ],
)
def test_names_of_times(name: str, value: str) -> None:
    assert record({name: value, "msg": "x"}).time_unix_nano == NOON * 10**9
    assert record({name: value, "@timestamp": NOON + 1}).time_unix_nano == (NOON + 1) * 10**9


def test_an_applications_time_goes_before_the_shippers() -> None:
    log = {"@timestamp": "2024-01-01T12:00:09Z", "time": NOON}
    assert record(log).time_unix_nano == NOON * 10**9
    assert attributes(log) == {"@timestamp": "2024-01-01T12:00:09Z"}


@pytest.mark.parametrize(
    ("wall", "sure"),
    [
        ({"asctime": "2024-01-01 14:00:00,123"}, {"@timestamp": "2024-01-01T12:00:00Z"}),  # Python, Fluent Bit
        ({"Time": "2024-01-01 20:00:00.757"}, {"time": "2024-01-01T12:00:00Z"}),  # GoFrame, Docker
        ({"time": "2024-01-01 14:00:00.1234"}, {"date": NOON}),  # NLog's longdate, Fluent Bit
    ],
)
def test_a_time_without_a_zone_counts_only_if_it_is_alone(wall: dict[str, Any], sure: dict[str, Any]) -> None:
    packed = {"log": json.dumps(wall | {"msg": "x"})} | sure
    for fields in (packed, {"msg": "x"} | wall | sure):
        assert record(fields).time_unix_nano == NOON * 10**9
    assert attributes({"msg": "x"} | wall | sure) == wall
    (text,) = wall.values()
    assert record(wall | {"ts": "no time"}).time_unix_nano == nanoseconds(text)


@pytest.mark.parametrize(
    "outer",
    [
        {"time": "2024-01-01T12:00:00Z"},  # Docker, log4j2's JSON of old
        {"time": "2024-01-01T13:00:00.000+01:00", "outer": 1},
        {"time": NOON},
    ],
)
def test_a_time_without_a_zone_gives_way_to_one_of_the_same_name_around_it(outer: dict[str, Any]) -> None:
    wall = {"time": "2024-01-01 20:00:00"}
    fields = {"log": json.dumps(wall | {"msg": "x"})} | outer
    assert record(fields).time_unix_nano == NOON * 10**9
    assert attributes(fields) == wall | {key: value for key, value in outer.items() if key != "time"}


def test_around_a_time_without_a_zone_the_nearest_that_can_be_read_counts() -> None:
    """Each runtime and shipper has its own of the name."""
    wall = {"time": "2024-01-01 20:00:00"}

    def around(*times: str) -> dict[str, Any]:
        fields: dict[str, Any] = wall | {"msg": "x"}
        for time in times:
            fields = {"log": json.dumps(fields), "time": time}
        return fields

    later = "2024-01-01T12:00:05Z"
    assert record(around("2024-01-01T12:00:00Z", later)).time_unix_nano == NOON * 10**9
    assert record(around("2024-01-01 20:00:01", "2024-01-01T12:00:00Z")).time_unix_nano == NOON * 10**9
    for none in ("2024-01-01 20:00:01", "none"):
        assert record(around(none)).time_unix_nano == nanoseconds(wall["time"])
        assert attributes(around(none)) == {"outer": {"time": none}}


def test_a_time_that_is_none_stays_an_attribute() -> None:
    log = {"time": 0.12, "@timestamp": NOON}
    assert record(log).time_unix_nano == NOON * 10**9
    assert attributes(log) == {"time": 0.12}


# --- severity and body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "number", "text", "left"),
    [
        ({"level": "ERROR"}, 17, "ERROR", {}),
        ({"levelname": "CRITICAL", "levelno": 50}, 18, "CRITICAL", {"levelno": 50}),
        ({"log.level": "info"}, 9, "info", {}),
        ({"log": {"level": "info", "logger": "a"}}, 9, "info", {}),
        ({"level": 50}, 17, "ERROR", {}),
        ({"level": 3}, 17, "ERROR", {}),
        ({"severity_number": 18, "severity_text": "SEVERE"}, 18, "SEVERE", {}),
        ({"severityNumber": 18}, 18, "ERROR2", {}),
        ({"severity_number": 99, "level": "warn"}, 13, "warn", {"severity_number": 99}),
        ({"level": "shiny"}, 0, "shiny", {}),
        ({"level": "shiny", "severity": "DEBUG"}, 5, "DEBUG", {"level": "shiny"}),
        ({"status": "error"}, 17, "error", {}),
        ({"status": 500}, 0, "", {"status": 500}),
        ({"status": "500 Oops", "level": "info"}, 9, "info", {"status": "500 Oops"}),
        ({"level": True}, 0, "", {"level": True}),
        ({"@l": "Warning"}, 13, "Warning", {}),
        ({"level": "ERROR+2"}, 19, "ERROR+2", {}),
        ({"level": "DEBUG-4"}, 1, "DEBUG-4", {}),
        ({"level": "INFO+1"}, 10, "INFO+1", {}),
        ({"level": "WARN-99"}, 1, "WARN-99", {}),
        ({"level": "ERROR+99"}, 24, "ERROR+99", {}),
        ({"level": "ERROR+"}, 0, "ERROR+", {}),
        ({"PRIORITY": "3"}, 17, "ERROR", {}),
        ({"PRIORITY": 6}, 9, "INFO", {}),
        ({"PRIORITY": "3", "level": "warn"}, 13, "warn", {"PRIORITY": "3"}),
        ({"PRIORITY": "8"}, 0, "", {"PRIORITY": "8"}),
        ({"PRIORITY": "high"}, 0, "", {"PRIORITY": "high"}),
        ({"priority": 1}, 0, "", {"priority": 1}),
        ({"PRIORITY": "err"}, 17, "err", {}),  # syslog-ng
        ({"priority": "critical"}, 0, "", {"priority": "critical"}),
        ({"level": "ERRO"}, 17, "ERRO", {}),  # slog-json, GoFrame
        ({"lvl": "eror"}, 17, "eror", {}),  # log15, geth
        ({"level": "dbug"}, 5, "dbug", {}),
        ({"error_severity": "ERROR"}, 17, "ERROR", {}),  # Postgres' jsonlog
        ({"error_severity": "LOG"}, 9, "LOG", {}),
        ({"SeverityLevel": 3}, 17, "ERROR", {}),  # Azure
        ({"severityLevel": "Error"}, 17, "Error", {}),
        ({"severityLevel": 5}, 0, "", {"severityLevel": 5}),
        ({"syslogseverity": "3"}, 17, "ERROR", {}),  # rsyslog's jsonmesg
        ({"syslogseverity": 30}, 0, "", {"syslogseverity": 30}),
        ({"log.syslog.severity.code": 3}, 17, "ERROR", {}),
        ({"log": {"syslog": {"severity": {"code": 3}}}}, 17, "ERROR", {"log": {"syslog": {"severity": {}}}}),
        ({"log": {"syslog": {"severity": {"name": "Error"}}}}, 17, "Error", {"log": {"syslog": {"severity": {}}}}),
        ({"severity_number": "17", "severity_text": "oops"}, 17, "oops", {}),
        ({"severity_number": "99"}, 0, "", {"severity_number": "99"}),
        ({"severity_number": "SEVERITY_NUMBER_ERROR3"}, 19, "ERROR3", {}),
        ({"severity_number": "SEVERITY_NUMBER_ERROR", "severity_text": "oops"}, 17, "oops", {}),
        ({"severity_number": "ERROR"}, 0, "", {"severity_number": "ERROR"}),
        ({"level": "log", "context": "Nest"}, 9, "log", {"context": "Nest"}),  # NestJS
        ({"level": "CONFIG"}, 7, "CONFIG", {}),  # java.util.logging
        ({"level": "\x1b[32minfo\x1b[39m"}, 9, "info", {}),  # winston's colorize()
        ({"level": "\x1b[31merror\x1b[39m", "status": 500}, 17, "error", {"status": 500}),
        ({"level": "\x1b[" * 2000 + "m" * 2000}, 0, "\x1b[" * 1999 + "m" * 1999, {}),
        ({"level": "40"}, 13, "WARN", {}),
        ({"level": "3", "status": "200"}, 17, "ERROR", {"status": "200"}),
        ({"level": "8"}, 0, "", {"level": "8"}),
        ({"level": "1", "severity": "info"}, 9, "info", {"level": "1"}),
        ({"level": "3", "levelname": "INFO"}, 9, "INFO", {"level": "3"}),
        ({"level": "9" * 5000}, 0, "9" * 5000, {}),
        ({"status": "40"}, 0, "", {"status": "40"}),
        ({"@t": "2024-01-01T12:00:00Z", "@mt": "ERROR {n}"}, 9, "Information", {}),
        ({"@t": "2024-01-01T12:00:00Z", "@mt": "x", "Status": 500}, 9, "Information", {"Status": 500}),
        ({"@t": "2024-01-01T12:00:00Z", "@mt": "x", "@l": "Error"}, 17, "Error", {}),
        ({"@t": "2024-01-01T12:00:00Z", "@mt": "x", "@l": "shiny"}, 0, "shiny", {}),
        ({}, 0, "", {}),
    ],
)
def test_severities(fields: dict[str, Any], number: int, text: str, left: dict[str, Any]) -> None:
    log = record(fields)
    assert (log.severity_number, log.severity_text, attributes(fields)) == (number, text, left)


@pytest.mark.parametrize(
    ("line", "number", "text"),
    [
        (f"2026-01-01 10:00:00.123 ERROR [pay,trace_id={HEX}] c.e.Pay : declined", 17, "ERROR"),
        (f"level=warn msg=slow trace_id={HEX}", 13, "warn"),
        (f"\x1b[31mERROR\x1b[0m trace_id={HEX}\nINFO second line", 17, "ERROR"),
        (f"<34>1 2026-01-01T22:14:15.003Z host su - ID47 - trace_id={HEX}", 18, ""),
        (f"no ERROR found trace_id={HEX}", 0, ""),
        (f"GET /logs?severity=error&page=1 trace_id={HEX}", 0, ""),
        (f"updated rule severity=critical name=x trace_id={HEX}", 0, ""),
        (f"ts=2026-01-01T10:00:00Z level=error msg=x trace_id={HEX}", 17, "error"),
        (f"2026-01-01T10:00:00Z level=error msg=x trace_id={HEX}\n", 17, "error"),
        (f"2026-01-01 10:00:00,123 level=error component=x trace_id={HEX}", 17, "error"),
        (f"[main] level=error msg=x trace_id={HEX}", 17, "error"),
        (f"[Thu Jan  1 10:00:00 2026] [main] user=7 level=error msg=x trace_id={HEX}", 17, "error"),
        (f"2026-01-01 10:00:00 [main] updated rule severity=critical name=x trace_id={HEX}", 0, ""),
        (f"2026-01-01T10:00:00Z GET /logs?severity=error&page=1 trace_id={HEX}", 0, ""),
        (f"first line trace_id={HEX}\nERROR second line", 0, ""),
    ],
)
@pytest.mark.parametrize("key", ["log", "message"])
def test_a_line_of_text_that_a_shipper_sends_has_the_severity_it_states(
    key: str, line: str, number: int, text: str
) -> None:
    fields = {"@timestamp": "2026-01-01T10:00:00Z", "stream": "stderr", key: line}
    log = record(fields)
    assert (log.trace_id, log.severity_number, log.severity_text) == (TRACE, number, text)
    assert attributes(fields | {"status": 500}) == {"stream": "stderr", "status": 500}
    for own, expected in (("info", 9), ("shiny", 0)):
        log = record(fields | {"level": own})
        assert (log.severity_number, log.severity_text) == (expected, own), "a field goes before the text"


@pytest.mark.parametrize(
    "key",
    [
        "message",
        "msg",
        "body",
        "log",
        "Message",
        "@m",
        "event",
        "short_message",
        "RenderedMessage",
        "MessageTemplate",
        "Content",
    ],
)
def test_bodies(key: str) -> None:
    assert record({key: "text"}).body.string_value == "text"
    assert attributes({key: "text"}) == {}


def test_of_two_bodies_the_one_that_is_filled_in() -> None:
    log = {"message": "saw {}", "formattedMessage": "saw 5"}  # Logback 1.5
    assert (record(log).body.string_value, attributes(log)) == ("saw 5", {"message": "saw {}"})
    log = {"MessageTemplate": "saw {N}", "RenderedMessage": "saw 5"}  # Serilog
    assert (record(log).body.string_value, attributes(log)) == ("saw 5", {"MessageTemplate": "saw {N}"})


def test_a_body_may_have_structure_and_a_message_may_not() -> None:
    assert plain(record({"body": {"a": [1]}}).body) == {"a": [1]}
    assert attributes({"event": {"a": 1}}) == {"event": {"a": 1}}


def test_a_body_beside_a_message_is_a_requests() -> None:
    fields = {"level": "info", "msg": "POST /orders failed", "body": {"user": 1}}
    assert record(fields).body.string_value == "POST /orders failed"
    assert attributes(fields) == {"body": {"user": 1}}
    assert record({"message": "upstream failed", "body": "<html>"}).body.string_value == "upstream failed"
    for own in ({"severity_number": 9}, {"SeverityText": "info"}, {"level": "info", "msg": ""}):
        assert plain(record(fields | own).body) == {"user": 1}
    assert plain(record({"body": [1], "message": {"a": 1}}).body) == [1]


def test_bodies_of_rusts_tracing() -> None:
    fields = {"level": "ERROR", "fields": {"message": "boom", "k": 1, "trace_id": HEX}, "target": "a::b"}
    log = record(fields)
    assert (log.body.string_value, log.trace_id) == ("boom", TRACE)
    assert attributes(fields) == {"fields": {"k": 1}, "target": "a::b"}
    assert record(fields | {"event": "first"}).body.string_value == "first"


@pytest.mark.parametrize("own", [{"mdc": {"trace_id": HEX}}, {"message": f"x trace_id={HEX}"}])
@pytest.mark.parametrize("name", ["metadata", "headers", "attributes", "labels"])
def test_a_loggers_own_context_goes_before_what_may_be_of_a_request(own: dict[str, Any], name: str) -> None:
    assert one({name: {"traceId": "e" * 32}} | own).trace_id == TRACE


def test_spans_that_a_log_is_about_are_left_alone() -> None:
    """An exporter's, for instance: only Rust's tracing tells with them where the log is."""
    fields = {"msg": "exported", "spans": [{"trace_id": HEX}, {"trace_id": "e" * 32}]}
    assert one(fields).trace_id == b""
    assert attributes(fields) == {"spans": fields["spans"]}


def test_bodies_of_googles_log_entries() -> None:
    assert record({"textPayload": "text", "severity": "ERROR"}).body.string_value == "text"
    fields = {"jsonPayload": {"message": "text", "k": 1}, "logName": "projects/p/logs/x"}
    assert record(fields).body.string_value == "text"
    assert attributes(fields) == {"jsonPayload": {"k": 1}, "logName": "projects/p/logs/x"}


def test_json_inside_log_is_unpacked_and_wins() -> None:
    inner = {"level": "error", "msg": "boom", "trace_id": HEX, "time": NOON}
    outer = {"log": orjson.dumps(inner).decode() + "\n", "stream": "stderr", "time": "2024-01-01T12:00:05Z"}
    log = record(outer)
    assert (log.body.string_value, log.severity_number, log.trace_id) == ("boom", 17, TRACE)
    assert log.time_unix_nano == NOON * 10**9
    assert attributes(outer) == {"stream": "stderr", "outer": {"time": "2024-01-01T12:00:05Z"}}


def test_what_a_shipper_merged_already_is_there_once() -> None:
    """Fluent Bit with Merge_Log and Keep_Log, Logstash's json filter, Vector's merge."""
    inner = {"level": "error", "msg": "boom", "password": "hunter2", "trace_id": HEX, "order": {"id": 5, "lines": [1]}}
    fields = {"stream": "stderr", "log": orjson.dumps(inner).decode() + "\n"} | inner
    assert one(fields) == one(inner | {"stream": "stderr"})


@pytest.mark.parametrize("taken", [{}, {"outer": 1}, {"outer": 1, "outer_": 2}])
def test_a_name_of_both_keeps_its_name_in_a_map(taken: dict[str, Any]) -> None:
    """So that rules for keys find it; a rule for `^password$` does not know `outer.password`."""
    inner = {"msg": "boom", "password": "one"} | taken
    fields = {"password": "two", "stream": "stderr", "log": orjson.dumps(inner).decode()}
    name = "outer" + "_" * len(taken)
    assert attributes(fields) == {"password": "one", "stream": "stderr", name: {"password": "two"}} | taken


@pytest.mark.parametrize("levels", [30, 300, 1_000])
def test_names_of_both_with_values_of_very_many_levels(levels: int) -> None:
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    line = b'{"x":%s,"message":%s}' % (deep, orjson.dumps((b'{"x":%s}' % deep).decode()))
    good = b'{"msg":"b"}'
    assert [type(row) for row in parse(line)] == [LogRow if levels < 100 else BadLine]
    assert isinstance(parse(b"%s\n%s" % (line, good))[-1], LogRow)
    assert parse(b"[%s,%s]" % (line, good))


@pytest.mark.parametrize(
    "outer",
    [
        {"timestamp": "2024-01-01T12:00:05Z", "severity": "info"},  # Vector, Google Cloud
        {"@timestamp": "2024-01-01T12:00:05Z", "log.level": "info"},  # Filebeat
        {"date": NOON + 5, "level": "info"},  # Fluent Bit
        {"time": "2024-01-01T12:00:05Z", "log": {"level": "info", "offset": 7}},
    ],
)
@pytest.mark.parametrize(
    "inner", [{"ts": NOON, "lvl": "error"}, {"datetime": "2024-01-01T12:00:00Z", "levelname": "ERROR"}]
)
def test_the_application_inside_wins_whatever_the_shipper_calls_its_own(
    outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    fields = {"message": orjson.dumps(inner | {"msg": "boom"}).decode(), "host": "a"} | outer
    log = record(fields)
    assert (log.time_unix_nano, log.severity_number, log.body.string_value) == (NOON * 10**9, 17, "boom")
    assert attributes(fields) == {"host": "a"} | outer
    silent = {key: value for key, value in inner.items() if key not in ("lvl", "levelname")}
    assert record({"message": orjson.dumps(silent).decode()} | outer).severity_number == 9, "it says none of its own"


@pytest.mark.parametrize("digits", [str(1 << 64), str(-(1 << 63) - 1), "1" + "0" * 30, "9" * 300])
def test_an_integer_beyond_64_bits_keeps_its_digits(digits: str) -> None:
    line = b'{"x.a": 1e30, "x.n": [%s], "x.b": 18446744073709551615}' % digits.encode()
    expected = {"x.a": 1e30, "x.n": [digits], "x.b": "18446744073709551615"}
    inner = b'{"log": %s}' % orjson.dumps(line.decode())
    for data in (line, b"[" + line + b"]", b'{"x":1}\n' + line, inner):
        row = parse(data)[-1]
        assert isinstance(row, LogRow)
        assert {pair.key: plain(pair.value) for pair in LogRecord.FromString(row.record).attributes} == expected


def test_scopes_of_dotnet() -> None:
    """ActivityTrackingOptions puts the trace context into the outermost one."""
    fields = {
        "LogLevel": "Error",
        "Category": "Shop.Cart",
        "Message": "out of stock",
        "Scopes": [
            {"Message": f"SpanId:{SPAN_HEX}, TraceId:{HEX}", "SpanId": SPAN_HEX, "TraceId": HEX, "ParentId": "0" * 16},
            "plain",
            {"Message": "System.Collections.Generic.Dictionary`2", "Category": "toys", "Date": "2024-01-01", "Id": 1},
            {"Id": 2, "{OriginalFormat}": "{Id}"},
        ],
    }
    log = record(fields)
    assert (log.trace_id, log.span_id, log.severity_number, log.time_unix_nano) == (TRACE, SPAN, 17, 0)
    assert attributes(fields) == {
        "Category": "Shop.Cart",
        "ParentId": "0" * 16,
        "Date": "2024-01-01",
        "Id": 2,
        "Scopes": [
            f"SpanId:{SPAN_HEX}, TraceId:{HEX}",
            "plain",
            {"Message": "System.Collections.Generic.Dictionary`2", "Category": "toys", "Id": 1},
        ],
    }
    own = {"UserId": "a", "Scopes": [{"Message": "o", "OrderId": 1}, {"OrderId": 2, "UserId": "b"}]}
    assert attributes(own) == {
        "UserId": "a", "OrderId": 2, "Scopes": [{"Message": "o", "OrderId": 1}, {"UserId": "b"}],
    }  # fmt: skip
    assert attributes({"Scopes": [{"a": 1}]}) == {"a": 1}
    assert attributes({"Scopes": "none"}) == {"Scopes": "none"}
    others = {"scopes": [{"name": "a", "traceId": HEX}, {"name": "b"}]}
    assert (attributes(others), record(others).trace_id) == (others, b"")


def test_an_array_of_very_many_objects_is_not_read() -> None:
    """16 MiB of `{},` took 0.4 GB."""
    data = b"[" + b"{}," * json_logs.MOST_OBJECTS + b"{}]"
    assert parse(data) == [BadLine(data, Reason.MESSAGE_TOO_LARGE, json_logs.TOO_MANY_OBJECTS)]
    assert len(parse(b'[{"a":"' + b"{" * (json_logs.MOST_OBJECTS - 3) + b'"}]')) == 1


def test_what_only_looks_like_json_inside_log_is_text() -> None:
    assert record({"log": "{not json}\n"}).body.string_value == "{not json}"


# --- trace context ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": HEX, "span_id": SPAN_HEX},
        {"traceId": HEX.upper(), "spanId": SPAN_HEX},
        {"traceID": f"0x{HEX}", "spanID": SPAN_HEX},
        {"TraceId": "0af76519-16cd-43dd-8448-eb211c80319c", "SpanId": SPAN_HEX},
        {"trace.id": HEX, "span.id": SPAN_HEX},
        {"trace": {"id": HEX}, "span": {"id": SPAN_HEX}},
        {"trace.id": HEX, "transaction": {"id": SPAN_HEX}},
        {"span": {"trace_id": HEX, "span_id": SPAN_HEX, "parent_span_id": None}},  # structlog's recipe
        {"trace": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"trace": {"traceId": HEX}, "span": {"spanId": SPAN_HEX}},
        {"trace": f"projects/p-1/traces/{HEX}", "spanId": SPAN_HEX, "textPayload": "x"},  # Google's LogEntry
        {"trace": HEX, "span_id": SPAN_HEX},
        {"@tr": HEX, "@sp": SPAN_HEX},
        {"otelTraceID": HEX, "otelSpanID": SPAN_HEX},
        {"mdc": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"contextMap": {"traceId": HEX, "spanId": SPAN_HEX}},
        {"X-B3-TraceId": HEX, "X-B3-SpanId": SPAN_HEX},
        {"traceparent": f"00-{HEX}-{SPAN_HEX}-01"},
        {"b3": f"{HEX}-{SPAN_HEX}-1"},
        {"b3": f"{HEX}-{SPAN_HEX}-d-{SPAN_HEX}"},
        {"uber-trace-id": f"{HEX.lstrip('0')}:{SPAN_HEX}:0:1"},
        {"X-Amzn-Trace-Id": f"Root=1-{HEX[:8]}-{HEX[8:]};Parent={SPAN_HEX};Sampled=1"},
        {"logging.googleapis.com/trace": f"projects/p-1/traces/{HEX}", "logging.googleapis.com/spanId": SPAN_HEX},
        {"X-Cloud-Trace-Context": f"{HEX}/{int(SPAN_HEX, 16)};o=1"},
        {"operation_Id": HEX, "span_id": SPAN_HEX},
        {"spans": [{"trace_id": HEX, "span_id": SPAN_HEX}, {"name": "inner"}], "span": {"name": "inner"}},  # Rust
        {
            "spans": [{"span_id": SPAN_HEX[::-1], "trace_id": HEX}, {"trace_id": HEX, "span_id": SPAN_HEX}],
            "target": "shop",
        },
        {"openTelemetry": {"traceId": HEX, "spanId": SPAN_HEX}},
        {"otel.trace_id": HEX, "otel.span_id": SPAN_HEX},
        {"otel": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"metadata": {"otel_trace_id": HEX, "otel_span_id": SPAN_HEX}},  # Elixir
        {"named_tags": {"trace_id": HEX, "span_id": SPAN_HEX}},  # Ruby's semantic_logger
        {"contextMap": [{"key": "traceId", "value": HEX}, {"key": "spanId", "value": SPAN_HEX}]},  # Log4j2
        {"span_context": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"headers": {"traceparent": f"00-{HEX}-{SPAN_HEX}-01"}},
        {"attributes": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"labels": {"trace_id": HEX, "span_id": SPAN_HEX}},
        {"context": {"trace_id": "f" * 32}, "trace_id": HEX, "span_id": SPAN_HEX},
        {"uber-trace-id": f"{HEX}%3A{SPAN_HEX}%3A0%3A1"},
        {"trace_id": "CvdlGRbNQ92ESOshHIAxnA==", "span_id": "t61rcWkgMzE="},
        {"trace_id": HEX, "dd.trace_id": "7", "span_id": SPAN_HEX},
        {"trace_id": "0", "traceparent": f"00-{HEX}-{SPAN_HEX}-00"},
        {"message": f"GET / trace_id={HEX} span_id={SPAN_HEX}"},
        {"message": f"[trace.id={HEX} span.id={SPAN_HEX}] done"},
        {"message": f"with header 00-{HEX}-{SPAN_HEX}-01"},
        {"log": f"2026-01-01T10:00:00.123Z  WARN 1 --- [shop] [nio-8080-exec-1] [{HEX}-{SPAN_HEX}] c.e.Foo : boom"},
    ],
)
def test_forms_of_trace_ids(fields: dict[str, Any]) -> None:
    row = one(fields)
    log = LogRecord.FromString(row.record)
    assert (row.trace_id, log.trace_id, log.span_id) == (TRACE, TRACE, SPAN)


@pytest.mark.parametrize(
    "fields",
    [
        {"dd.trace_id": str(LOW), "dd.span_id": str(int(SPAN_HEX, 16))},
        {"dd": {"trace_id": LOW, "span_id": int(SPAN_HEX, 16)}},
        {"trace_id": str(LOW), "span_id": str(int(SPAN_HEX, 16))},
        {"trace_id": LOW, "span_id": SPAN_HEX},
        {"x-datadog-trace-id": str(LOW), "span_id": SPAN_HEX},
        {"traceId": HEX[16:], "spanId": SPAN_HEX},
        {"message": f"[dd.trace_id={LOW} dd.span_id={int(SPAN_HEX, 16)}]"},
    ],
)
def test_forms_that_carry_the_low_half(fields: dict[str, Any]) -> None:
    row = one(fields)
    assert (row.trace_id, LogRecord.FromString(row.record).span_id) == (LOW_ONLY, SPAN)


@pytest.mark.parametrize(
    "value",
    ["", "0", "-", "null", "0" * 32, "0" * 16, "abc", "request-7", "12345", 0, -1, True, 7, None, [HEX], HEX + "0",
     "g" * 32, f"ff-{HEX}-{SPAN_HEX}-01", f"00-{'0' * 32}-{SPAN_HEX}-01", "ａ" * 32, "=" * 24, "projects/p/traces/1"],
)  # fmt: skip
def test_what_is_no_trace_id_stays_an_attribute(value: Any) -> None:
    row = one({"trace_id": value})
    assert row.trace_id == LogRecord.FromString(row.record).trace_id == b""
    assert attributes({"trace_id": value}) == ({} if value is None else {"trace_id": value})


@pytest.mark.parametrize("name", ["operationId", "trace"])
@pytest.mark.parametrize(
    "value",
    ["0af76519-16cd-43dd-8448-eb211c80319c", SPAN_HEX, 12345678901234567890, True, "at x 1-5759e988-" + "a" * 24, {}],
)
def test_a_name_of_many_meanings_is_a_trace_id_in_its_owners_form_alone(name: str, value: Any) -> None:
    assert one({name: value}).trace_id == b""


def test_an_id_in_another_form_can_still_be_searched_for() -> None:
    xray = f"1-{HEX[:8]}-{HEX[8:]}"
    assert attributes({"trace_id": xray}) == {"trace_id": xray}
    assert attributes({"trace_id": HEX.upper()}) == {}
    assert attributes({"dd.trace_id": "5"}) == {"dd.trace_id": "5"}


def test_a_span_without_a_trace_is_an_attribute() -> None:
    assert record({"span_id": SPAN_HEX}).span_id == b""
    assert attributes({"span_id": SPAN_HEX}) == {"span_id": SPAN_HEX}


def test_numbers_as_ids() -> None:
    """Digits are ambiguous: an id's own field says decimal, else 16 or 32 digits are hex and 17 to 20 decimal."""
    assert identifier("1234567890123456", 16) == bytes(8) + bytes.fromhex("1234567890123456")
    assert identifier("1234567890123456", 16, decimal=True) == (1234567890123456).to_bytes(16)
    assert identifier("12345678901234567", 16) == (12345678901234567).to_bytes(16)
    assert identifier(str((1 << 64) - 1), 8) == b"\xff" * 8
    assert identifier(str(1 << 64), 16) == b""
    assert span_id(12, decimal=True) == (12).to_bytes(8)
    assert span_id(12) == b""


@given(st.binary(min_size=16, max_size=16).filter(any), st.sampled_from(("{}", "{:>40}", "0x{}")))
def test_hex_ids_are_read_back(trace: bytes, shape: str) -> None:
    found = trace_context(shape.format(trace.hex()))
    assert found is not None
    assert found.trace_id == trace


@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    for value in (text, f"trace_id={text}", f"00-{text}", f"1-{text}"):
        for found in (trace_context(value), context_in_text(value)):
            assert found is None or (len(found.trace_id) == 16 and len(found.span_id) in (0, 8))


def test_words_around_an_id_are_no_id() -> None:
    assert context_in_text("backtrace_id=" + HEX) is None
    assert context_in_text(f"trace_id={HEX}xyz") is None
    assert context_in_text("trace ids are useful") is None


# --- service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"service": "cart"}, {"service.name": "cart"}, {"service": {"name": "cart"}}, {"otelServiceName": "cart"},
     {"dd.service": "cart"}, {"dd": {"service": "cart"}}, {"service_name": "cart"},
     {"service": "", "serviceName": "cart"}],
)  # fmt: skip
def test_services(fields: dict[str, Any]) -> None:
    assert resource(one(fields)) == {"service.name": "cart"}


def test_vectors_opentelemetry_source() -> None:
    resources = {"service.name": "cart", "k8s.pod.name": "p", "replicas": 2}
    fields = {
        "attributes": {"http.route": "/", "host": "inner"},
        "dropped_attributes_count": 0,
        "flags": 1,
        "host": "h",
        "message": "boom",
        "resources": resources,
        "scope": {"name": "lg", "version": "2"},
        "severity_number": 17,
        "severity_text": "ERROR",
        "source_type": "opentelemetry",
        "span_id": SPAN_HEX,
        "timestamp": "2024-05-01T12:00:00.123456789Z",
        "trace_id": HEX,
    }
    row, log = one(fields), record(fields)
    assert (resource(row), log.flags, log.body.string_value) == (resources, 1, "boom")
    assert b"lg" in row.scope
    assert attributes(fields) == {
        "http.route": "/", "host": "h", "attributes": {"host": "inner"}, "scope": {"version": "2"},
        "dropped_attributes_count": 0, "source_type": "opentelemetry",
    }  # fmt: skip
    like = {"severity_number": 17, "body": "boom", "resource": {"attributes": resources, "schema": "x"}, "service": "a"}
    assert resource(one(like)) == resources | {"service.name": "a"}
    assert attributes(like) == {"resource": {"schema": "x"}}
    named = {"attributes": {"resource": "a", "attributes": "b"}, "severity_number": 17}
    assert attributes(named) == {"resource": "a", "attributes": {"attributes": "b"}}
    assert attributes(named | {"resource": "c"}) == {"resource": "c", "attributes": named["attributes"]}
    others = {"resources": {"cpu": 1}, "attributes": {"a": 1}, "flags": 1}
    assert attributes(others | {"severity": "info"}) == others


def test_gelfs_version_is_the_formats() -> None:
    log = {"version": "1.1", "host": "h", "short_message": "x", "_service": "cart"}
    assert resource(one(log)) == {"service.name": "cart"}
    assert attributes(log) == {"version": "1.1", "host": "h"}


def test_a_log_without_a_service_has_no_resource() -> None:
    log = {"version": "1", "environment": "prod"}
    assert one(log).resource == b""
    assert attributes(log) == log


def test_of_two_services_the_better_name_counts() -> None:
    log = {"service": "b", "service.name": "a"}
    assert resource(one(log)) == {"service.name": "a"}
    assert attributes(log) == {"service": "b"}
