"""An application's log, in what shippers have around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.formats.json_logs import LogRow, parse
from schemas.formats.packed_logs import DEPTH
from tests.schemas.formats.logs import HEX, TRACE, attributes, record

NOON = 1_704_110_400
APP = {"level": "error", "msg": "boom", "trace_id": HEX, "ts": NOON}
TEXT = json.dumps(APP)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        # Fluent Bit's systemd input, `journalctl -o json`
        ({"PRIORITY": "6", "MESSAGE": TEXT, "_COMM": "shop"}, {"PRIORITY": "6", "_COMM": "shop"}),
        ({"severity": "info", "msg": f" {TEXT}"}, {"severity": "info"}),  # rsyslog
        ({"message": f"@cee: {TEXT}", "host": "a"}, {"host": "a"}),  # syslog's cookie
        ({"host": "a", "level": 6, "short_message": TEXT}, {"host": "a", "outer": {"level": 6}}),  # Format gelf
        # Filebeat reads Docker's files: a line of Docker's, in it the application's
        (
            {
                "@timestamp": "2024-01-01T12:00:05Z",
                "message": json.dumps({"log": f"{TEXT}\n", "stream": "stdout", "time": "2024-01-01T12:00:01Z"}),
            },
            {"@timestamp": "2024-01-01T12:00:05Z", "stream": "stdout", "time": "2024-01-01T12:00:01Z"},
        ),
        # a file of containerd's, without a parser
        (
            {"log": f"2024-01-01T12:00:01.5Z stdout F {TEXT}\n"},
            {"time": "2024-01-01T12:00:01.5Z", "stream": "stdout", "logtag": "F"},
        ),
        ({"json": APP, "input": {"type": "log"}}, {"input": {"type": "log"}}),  # Filebeat
        ({"log_processed": APP, "log": f"{TEXT}\n"}, {"log_processed": APP}),  # Merge_Log_Key, with Keep_Log
        ({"log_processed": APP, "stream": "stderr"}, {"stream": "stderr"}),  # without
        ({"structured": APP, "level": "info"}, {"outer": {"level": "info"}}),  # OpenShift
        ({"log": APP}, {}),  # Vector's native_json
        ({"schema": {"type": "string"}, "payload": TEXT}, {"schema": {"type": "string"}}),  # Kafka Connect
        ({"schema": None, "payload": APP}, {}),
    ],
)
def test_it_is_found_and_wins(fields: dict[str, Any], left: dict[str, Any]) -> None:
    log = record(fields)
    assert (log.severity_number, log.body.string_value, log.trace_id) == (17, "boom", TRACE)
    assert log.time_unix_nano == NOON * 10**9
    assert attributes(fields) == left


OTHER = "f" * 31 + "e"
PAYLOADS = [
    {"code": 13, "status": "OK", "details": []},
    {"severity": "low", "level": "debug", "cve": "2024-1"},
    {"trace_id": OTHER, "event": "charge.failed"},
    {"date": "2019-01-01T00:00:00Z", "service": "pay", "status": "ok"},
    {},
]


@pytest.mark.parametrize("name", ["msg", "short_message", "message", "log"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_a_log_is_about_is_no_log(name: str, payload: dict[str, Any]) -> None:
    """Loggers write the payload of a call as their message; it says nothing of the log."""
    text = json.dumps(payload)
    log = record({"level": "error", "time": NOON, "trace_id": HEX, name: text})
    assert (log.severity_number, log.body.string_value, log.trace_id) == (17, text, TRACE)
    assert log.time_unix_nano == NOON * 10**9


@pytest.mark.parametrize("beside", [{"status": "info"}, {"PRIORITY": "6"}, {"level": ""}, {}])
@pytest.mark.parametrize("name", ["message", "MESSAGE", "log"])
def test_what_shippers_say_beside_a_log_makes_it_no_payload(name: str, beside: dict[str, Any]) -> None:
    log = record({name: json.dumps({"severity": "ERROR", "trace_id": HEX, "error": "refused"}), **beside})
    assert (log.severity_number, log.trace_id) == (17, TRACE)


@pytest.mark.parametrize(
    "about",
    [
        {"record": {"id": 5, "level": "info", "message": "inserted", "trace_id": OTHER}},
        {"structured": {"trace_id": OTHER}},
        {"jsonPayload": {"trace_id": OTHER}},
    ],
)
def test_an_object_that_a_log_is_about_is_no_log(about: dict[str, Any]) -> None:
    log = record({"level": "error", "op": "insert", "trace_id": HEX} | about)
    assert (log.severity_number, log.trace_id) == (17, TRACE)


def test_the_log_within_googles_entry() -> None:
    """What the application says goes before what the agent took it for."""
    log = record({"jsonPayload": APP, "severity": "DEFAULT", "timestamp": "2024-01-01T13:00:00Z"})
    assert (log.severity_number, log.body.string_value, log.trace_id) == (17, "boom", TRACE)


@pytest.mark.parametrize("empty", ["", None])
def test_what_the_inside_leaves_empty_the_outside_says(empty: Any) -> None:
    inside = {"msg": "boom", "level": empty, "trace_id": empty}
    fields = {"log": json.dumps(inside), "level": "error", "trace_id": HEX}
    log = record(fields)
    assert (log.severity_number, log.trace_id) == (17, TRACE)
    assert attributes(fields) == {}


def test_loguru() -> None:
    inner = {
        "level": {"icon": "x", "name": "ERROR", "no": 40},
        "message": "boom",
        "extra": {"trace_id": HEX},
        "time": {"repr": "2024-01-01 13:00:00+01:00", "timestamp": NOON},
    }
    log = record({"text": "13:00 | ERROR | boom\n", "record": inner})
    assert (log.severity_text, log.body.string_value, log.trace_id) == ("ERROR", "boom", TRACE)
    assert log.time_unix_nano == NOON * 10**9


def test_azures_records_are_logs_of_their_own() -> None:
    records = [{"Message": "a", "Level": "Error", "operationId": HEX}, {"Message": "b", "Level": "Informational"}]
    rows = [row for row in parse(json.dumps({"records": records}).encode()) if isinstance(row, LogRow)]
    logs = [LogRecord.FromString(row.record) for row in rows]
    assert [(log.body.string_value, log.severity_number) for log in logs] == [("a", 17), ("b", 9)]
    assert rows[0].trace_id == TRACE
    applications: list[dict[str, Any]] = [{"records": records, "level": "info"}, {"records": []}, {"records": ["a"]}]
    for own in applications:
        assert len(parse(json.dumps(own).encode())) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"level": "info", "message": "saved", "record": {"status": "error", "message": "none"}},
        {"level": "info", "msg": "parsed", "json": APP},
        {"level": "info", "message": "sent", "payload": TEXT},
        {"level": "info", "message": "sent", "log": {"level": "error", "message": "x"}},
        {"level": "info", "json": {"a": 1}},
        {"level": "info", "record": {"status": "error"}},
        {"level": "info", "message": "boom {"},
    ],
)
def test_what_an_application_has_under_these_names_stays_its_own(fields: dict[str, Any]) -> None:
    log = record(fields)
    assert (log.severity_number, log.trace_id) == (9, b"")
    assert attributes(fields) == {name: member for name, member in fields.items() if isinstance(member, dict) or (
        name == "payload")}  # fmt: skip


def test_so_many_levels_are_unpacked_and_no_more() -> None:
    packed = text = json.dumps({"msg": "boom"})
    for _ in range(DEPTH + 1):
        packed = json.dumps({"log": packed})
    (row,) = parse(packed.encode())
    assert isinstance(row, LogRow)
    assert LogRecord.FromString(row.record).body.string_value == text


def test_the_nearer_to_the_log_the_better() -> None:
    """A name of the middle wins over a better one outside."""
    middle = json.dumps({"log": '{"msg": "boom"}', "lvl": "error", "datetime": NOON})
    log = record({"message": middle, "level": "info", "timestamp": NOON + 5})
    assert (log.severity_number, log.time_unix_nano) == (17, NOON * 10**9)
