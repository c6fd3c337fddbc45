from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from schemas.errors import Malformed
from schemas.formats import text_logs
from schemas.reasons import Reason
from tests.schemas.rows import split_logs

HEX, SPAN_HEX = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def records(data: bytes | str) -> list[LogRecord]:
    message = LogsData.FromString(text_logs.logs(data.encode() if isinstance(data, str) else data))
    return list(message.resource_logs[0].scope_logs[0].log_records)


def one(line: str) -> LogRecord:
    (log,) = records(line)
    assert log.body.string_value == line
    return log


@pytest.mark.parametrize(
    ("line", "number", "word"),
    [
        ("2024-05-01 12:00:00,123 - shop.cart - ERROR - out of stock", 17, "ERROR"),  # Python
        ("ERROR:root:out of stock", 17, "ERROR"),
        ("2024-05-01T12:00:00.123Z  INFO 1 --- [main] c.e.App : started", 9, "INFO"),  # Spring Boot
        ("2024-05-01 12:00:00.123 [http-nio-8080-exec-1] WARN  c.e.App - slow", 13, "WARN"),  # Logback
        ("12:00:00.123 [main] DEBUG c.e.App - x", 5, "DEBUG"),
        ("[2024-05-01T00:00:00Z INFO  crate] up", 9, "INFO"),  # Rust
        ("[Wed Oct 11 14:32:52 2000] [core:error] [client 1.2.3.4] denied", 17, "error"),  # Apache
        ("2024/05/01 12:00:00 [warn] 123#0: *1 open() failed", 13, "warn"),  # nginx
        ("2024-05-01 12:00:00 UTC [1] FATAL:  role does not exist", 21, "FATAL"),  # PostgreSQL
        ("E0102 15:04:05.123456 123 x.go:1] failed", 17, "E"),  # Kubernetes
        ("<34>1 2003-10-11T22:14:15.003Z host su - ID47 - failed", 18, ""),  # syslog: facility 4, severity 2
        ("<191>Oct 11 22:14:15 host x: y", 5, ""),
        ("level=warn msg=slow", 13, "warn"),
        ('ts=2024-05-01T00:00:00Z caller=x level=error msg="level=info"', 17, "error"),
        ("2024-05-01T00:00:00Z\tINFO\tcmd/main.go:5\tup", 9, "INFO"),  # zap
        ("\x1b[31mERROR\x1b[0m coloured", 17, "ERROR"),
        ("error: no such file", 17, "error"),
        ("panic: runtime error", 21, "panic"),
        ("[INFO] Building", 9, "INFO"),
        ("fail: Shop.Cart[0]\n      out of stock", 17, "fail"),  # .NET's console
        ("\x1b[40m\x1b[37mdbug\x1b[39m\x1b[22m\x1b[49m: Shop.Cart[0]", 5, "dbug"),
        ("trce: Shop.Cart[0]", 1, "trce"),
        ("E, [2026-01-01T10:00:00.123456 #1] ERROR -- : boom", 17, "ERROR"),  # Ruby
        ("01-May-2024 12:00:00.123 SEVERE [main] org.apache.catalina.X boom", 17, "SEVERE"),  # Tomcat
        ("May 01, 2024 12:00:00 PM com.x.A f\nSEVERE: boom", 17, "SEVERE"),  # java.util.logging
        ("[2024-05-01T12:00:00.123456+02:00] app.ERROR: boom [] []", 17, "ERROR"),  # Monolog, Symfony
        ("[2024-05-01 12:00:00] production.ERROR: boom", 17, "ERROR"),  # Laravel
        ("2024-05-01T12:00:00.1Z stderr F 2024-05-01 12:00:00 ERROR boom", 17, "ERROR"),  # containerd's files
        ("2024-05-01T12:00:00.1+02:00 stdout F E0102 15:04:05.123456 123 x.go:1] failed", 17, "E"),
        ("2024-05-01T12:00:00.123Z\t79b4f56e-95b1-4643-9700-2807f4e68189\tERROR\tboom", 17, "ERROR"),  # AWS Lambda
        ("2024-05-01 12:00:00.123 UTC [1] app@shop ERROR:  x", 17, "ERROR"),  # PostgreSQL on Debian
        ("2024-05-01 12:00:00.123 CEST [1] LOG:  x", 9, "LOG"),
        ("12:00PM ERR boom", 17, "ERR"),  # zerolog's console
        ("ERRO[0001] boom", 17, "ERRO"),  # logrus
        ("WARN[2024-05-01T12:00:00Z] boom", 13, "WARN"),
        ("EROR[05-01|12:00:00] boom", 17, "EROR"),  # log15
        ("May 01 12:00:00.123 ERRO boom", 17, "ERRO"),  # slog-term
        ("2024-05-01 12:00:00.123 [ERRO] {ab} boom", 17, "ERRO"),  # GoFrame
        ("I, [2026-01-01T10:00:00.123456 #4711]  INFO -- puma: up", 9, "INFO"),
    ],
)
def test_severity_of_a_head(line: str, number: int, word: str) -> None:
    log = one(line)
    assert (log.severity_number, log.severity_text) == (number, word)


@pytest.mark.parametrize(
    "line",
    [
        "no ERROR found",
        "GET /error HTTP/1.1",
        '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /ERROR HTTP/1.0" 200 2326',
        "ERROR_COUNT is 5",
        "Errors: 0",
        "user INFO desk called",
        "Oct 11 22:14:15 host su: ERROR in the message",
        "ok: [host]",
        "failed: [host]",
        "FAIL\tshop/cart",
        "A, [2026-01-01T10:00:00.123456 #1]   ANY -- : x",
        "E, [1] ERROR -- no time and process",
        "<999>1 not a priority",
        "loglevel=error is the default",
        "level=high water",
        "GET /logs?severity=error&page=1",
        "GET /search?q=x;level=critical HTTP/1.1",
        "2024-05-01 12:00:00 order 5 - ERROR",
        "2024-05-01 12:00:00 a@example.com ERROR seen",
        "2024-05-01 12:00:00 UTC [1] app@shop DETAIL:  ERROR:  x",
        "2024-05-01 12:00:00 no app.ERROR: in the message",
        "2024-05-01 12:00:00 stdout ERROR",
        "May 01, 2024 12:00:00 PM com.x.A f\n  SEVERITY: x",
    ],
)
def test_severity_is_not_guessed(line: str) -> None:
    assert (one(line).severity_number, one(line).severity_text) == (0, "")


@pytest.mark.parametrize(
    ("text", "span", "flags"),
    [
        (f"GET / traceparent: 00-{HEX}-{SPAN_HEX}-01", SPAN_HEX, 1),
        (f"INFO paid trace_id={HEX} span_id={SPAN_HEX}", SPAN_HEX, 0),
        (f"INFO paid traceID={HEX.upper()}", "", 0),
        (f"[trace.id={HEX} transaction.id={SPAN_HEX}] paid", "", 0),
        (f"paid parent_trace_id={'a' * 32} parent_span_id={'b' * 16} trace_id={HEX} span_id={SPAN_HEX}", SPAN_HEX, 0),
        (f"paid root.trace_id={'a' * 32} linked-trace-id={'a' * 32} trace-id={HEX} span-id={SPAN_HEX}", SPAN_HEX, 0),
        (f"paid Trace-Id: {HEX}", "", 0),
        (f"paid otelTraceID={HEX} otelSpanID={SPAN_HEX}", SPAN_HEX, 0),
        (f"paid X-B3-TraceId={HEX} X-B3-ParentSpanId={'b' * 16} X-B3-SpanId={SPAN_HEX}", SPAN_HEX, 0),
        (f'<165>1 2003-10-11T22:14:15.003Z h a - - [opentelemetry trace_id="{HEX}" span_id="{SPAN_HEX}" '
         f'trace_flags="01"] paid', SPAN_HEX, 1),
        (f'"Root=1-{HEX[:8]}-{HEX[8:]}" "a.example.com"', "", 0),
        (f"X-Amzn-Trace-Id: Root=1-{HEX[:8]}-{HEX[8:]};Parent={SPAN_HEX};Sampled=1", SPAN_HEX, 0),
        (f"Exception\n  at x\n  trace_id={HEX}", "", 0),
        (f"2026-01-01T10:00:00.123Z  WARN 1 --- [shop] [nio-1] [{HEX}-{SPAN_HEX}] c.e.Foo : boom", SPAN_HEX, 0),
        (f"2026-01-01 10:00:00.123  INFO [my shop,{HEX},{SPAN_HEX}] 1 --- x", SPAN_HEX, 0),
        (f"2026-01-01 10:00:00.123  INFO [,{HEX},{SPAN_HEX},true] 1 --- x", SPAN_HEX, 0),
        (f"INFO [shop,{HEX},{SPAN_HEX}] c.e.Foo : answered 00-{HEX[::-1]}-{SPAN_HEX[::-1]}-01", SPAN_HEX, 0),
    ],
)  # fmt: skip
def test_trace_context_in_text(text: str, span: str, flags: int) -> None:
    log = one(text)
    assert (log.trace_id.hex(), log.span_id.hex(), log.flags) == (HEX, span, flags)


def test_datadog_writes_decimals() -> None:
    low, span = int(HEX[16:], 16), int(SPAN_HEX, 16)
    log = one(f"[dd.service=cart dd.trace_id={low} dd.span_id={span}] paid")
    assert (log.trace_id.hex(), log.span_id.hex()) == ("0" * 16 + HEX[16:], SPAN_HEX)


def test_the_short_trace_ids_of_older_spring() -> None:
    log = one(f"2026-01-01 10:00:00.123  INFO [shop,{HEX[16:]},{SPAN_HEX},true] 1 --- x")
    assert (log.trace_id.hex(), log.span_id.hex()) == ("0" * 16 + HEX[16:], SPAN_HEX)


@pytest.mark.parametrize(
    "text",
    [f"parent_trace_id={HEX} parent-span-id={SPAN_HEX}", f"backtrace-id={HEX}",
     "trace_id=-", f"trace_id={'0' * 32}", "trace_id=none", "order 1-5759e988-12", "plain",
     f"[{' ' * 49}] Spring without a trace", "INFO [shop,,] 1 --- x", f"INFO [shop,{'0' * 32},{'0' * 16}] x",
     "[shop,1234567890123456,1234567890123456]", "[ffffffff81000000-ffffffff82000000]", f"[{HEX},{SPAN_HEX}]",
     f"[{HEX}-{SPAN_HEX}0]", f"[{HEX.upper()}-{SPAN_HEX}]", f"{HEX}-{SPAN_HEX}", f"[a\n,{HEX},{SPAN_HEX}]",
     "x" * 300 + f"[{HEX}-{SPAN_HEX}]"],
)  # fmt: skip
def test_no_trace_context(text: str) -> None:
    assert (one(text).trace_id, one(text).span_id) == (b"", b"")


def test_a_time_needs_its_zone() -> None:
    ns = 1_714_564_800_123_000_000
    assert one("2024-05-01T12:00:00.123Z up").time_unix_nano == ns
    assert one("[2024-05-01 14:00:00,123+02:00] up").time_unix_nano == ns
    assert one("<34>1 2024-05-01T12:00:00.123Z h a - - - up").time_unix_nano == ns
    assert one("2024-05-01T12:00:00.123Z stderr F 2024-05-01 14:00:00 ERROR up").time_unix_nano == ns
    assert one("time=2024-05-01T12:00:00.123Z level=info msg=up").time_unix_nano == ns
    assert one('ts="2024-05-01T12:00:00.123Z" level=info').time_unix_nano == ns
    assert one('1.2.3.4 - - [01/May/2024:14:00:00 +0200] "GET / HTTP/1.1" 500 12').time_unix_nano == ns - 123_000_000
    assert one("2024-05-01 12:00:00.123 up").time_unix_nano == 0
    assert one("at 2024-05-01T12:00:00.123Z").time_unix_nano == 0


def test_a_message_is_one_log_with_its_stack_trace() -> None:
    for text in (
        "Traceback:\n  File x\nValueError: y",
        "2024-05-01 12:00:00 ERROR boom\n\tat a.B\nCaused by: c",
        "a\nb",
    ):
        assert [log.body.string_value for log in records(f"{text}\n")] == [text]


def test_lines_that_begin_alike_are_logs_of_their_own() -> None:
    first, second = "2024-05-01 12:00:00 ERROR boom\n\tat a.B", "2024-05-01 12:00:01 INFO fine"
    found = records(f"{first}\r\n{second}\n\n")
    assert [log.body.string_value for log in found] == [first, second]
    assert [log.severity_text for log in found] == ["ERROR", "INFO"]
    assert len(records("<34>1 a\n<35>1 b\n<36>1 c")) == 3
    assert len(records("01-May-2024 12:00:00.123 INFO a\n\tat b\n01-May-2024 12:00:00.124 INFO c")) == 2
    two = records("May 01, 2024 12:00:00 PM a.B c\nSEVERE: a\n\tat b\nMay 01, 2024 1:00:00 PM a.B c\nINFO: d")
    assert [log.severity_number for log in two] == [17, 9]
    assert len(records("level=info msg=a\nlevel=warn msg=b")) == 2


def test_empty_lines_in_front_hide_nothing() -> None:
    first, second = "2024-05-01 12:00:00Z ERROR boom", "2024-05-01 12:00:01Z INFO fine"
    for front in ("\n", "\r\n", " \n\t\n", "\ufeff\n"):
        found = records(f"{front}{first}\n{second}")
        assert [log.body.string_value for log in found] == [first, second]
        assert [log.severity_number for log in found] == [17, 9]
    assert [log.body.string_value for log in records("\n  at line 1")] == ["  at line 1"]


def test_bytes_that_are_no_utf8_and_byte_order_marks() -> None:
    assert records(b"\xef\xbb\xbfcaf\xe9\n")[0].body.string_value == "caf\ufffd"


@pytest.mark.parametrize("data", [b" ", b"\n\r\n", b"\xef\xbb\xbf"])
def test_nothing_holds_no_log(data: bytes) -> None:
    with pytest.raises(Malformed) as raised:
        text_logs.logs(data)
    assert raised.value.reason == Reason.EMPTY_MESSAGE


def test_binary_is_no_text() -> None:
    with pytest.raises(Malformed):
        text_logs.logs(b"a\x00b")


LINES = st.lists(
    st.sampled_from(("ERROR x", "2024-05-01 12:00:00 INFO", "\tat a.B", "", "<34>1 x", "level=info")) | st.text(),
    min_size=1,
).map("\n".join)  # fmt: skip


@given(LINES)
def test_no_text_is_lost(text: str) -> None:
    try:
        found = [log.body.string_value for log in records(text)]
    except Malformed:
        assert not text.removeprefix("\ufeff").strip() or "\0" in text
        return
    assert len(split_logs(text_logs.logs(text.encode()))) == len(found)
    assert "".join("".join(found).split()) == "".join(text.removeprefix("\ufeff").split())


def test_a_text_of_very_many_lines_is_one_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take a kilobyte: a few KB of zstd are a million lines."""
    monkeypatch.setattr(text_logs, "MOST_LOGS", 3)
    for lines, count in ((3, 3), (4, 1)):
        found = LogsData.FromString(text_logs.logs(b"<1>x\n" * lines))
        assert len(found.resource_logs[0].scope_logs[0].log_records) == count
