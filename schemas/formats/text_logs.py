"""Raw text to OTLP log records: the text is the body, and what can be told from it without guessing is lifted.

One Kafka value is one log, with the lines of its stack trace, as shippers send it. It is several logs only when its
first line begins in a way that marks the start of a log (STARTS), and later lines begin in that same way.

- Severity: a syslog priority `<34>`, what one logger alone writes (LOGGERS, .NET's `fail:`), `level=warn`, or a level
  in the line's head: after times, brackets, a UUID and at most one logger's name, in capitals (`INFO`), in brackets of
  its own (`[error]`, `[core:error]`), behind a channel's name (`app.ERROR:`), or as the first word with a colon
  (`error:`). A level in the message itself says nothing: "no ERROR found" has no severity. What a container runtime
  writes in front (`TIME stderr F `) does not count; the head of java.util.logging is its second line.
- Time: a date and time with a zone at the start, logfmt's `time=…` too, or a web server's in brackets; without a zone
  it is nobody's time, and the raw record has its own, which becomes the observed one.
- Trace context: traceparent, `trace_id=…`, `[trace.id=…]`, `dd.trace_id=…`, X-Ray's Root=, RFC 5424's
  `[opentelemetry trace_id="…"]`, Spring's `[trace-span]` and `[application,trace,span]` in the head; see
  schemas/formats/trace_fields.py.

Text is UTF-8; bytes that are not become U+FFFD. A NUL byte says that it is no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.errors import Malformed
from schemas.formats.times import nanoseconds
from schemas.formats.trace_fields import context_in_text
from schemas.otlp_build import log_observed, logs_data
from schemas.reasons import Reason
from schemas.severity import DEBUG, ERROR, TRACE, UNSPECIFIED, severity_number, severity_of_level, uncoloured

_DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_ISO = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d"
_JUL = rf"(?:{_MONTH}) \d{{1,2}}, \d{{4}} \d{{1,2}}:\d\d:\d\d [AP]M "
#: How the first line of a log may begin, so that later lines which begin alike are logs of their own.
STARTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\[?{_ISO}",
        r"<\d{1,3}>",
        r"[IWEF]\d{4} \d\d:\d\d:\d\d",
        rf"\[?(?:(?:{_DAY}) )?(?:{_MONTH}) [ \d]\d \d\d:\d\d",
        rf"\[?\d\d-(?:{_MONTH})-\d{{4}} \d\d:\d\d",
        _JUL,
        r"\d\d:\d\d:\d\d[.,]\d",
        r"(?:\w+=\S+ )?(?:time|ts|level|lvl)=",
        r"\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)(?:\]|:| )",
    )
)
LEVELS = frozenset(
    {"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERR", "ERROR", "SEVERE", "CRIT", "CRITICAL", "ALERT",
     "EMERG", "EMERGENCY", "FATAL", "PANIC", "TRC", "DBG", "INF", "WRN", "FTL", "TRCE", "DEBG", "DEBU", "DBUG",
     "NOTI", "ERRO", "EROR", "FATA"}
)  # fmt: skip
_PRIORITY = re.compile(r"<(\d{1,3})>")
_HIGHEST_PRIORITY = 191  # facility 23, severity 7 (RFC 5424)
#: Heads that say whose they are; the group is the level.
LOGGERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"([IWEF])\d{4} \d\d:\d\d:\d\d",  # klog
        r"[DIWEF], \[\S+ #\d+\] +(DEBUG|INFO|WARN|ERROR|FATAL) -- ",  # Ruby
        r"(TRAC|DEBU|DBUG|INFO|WARN|ERRO|EROR|ERROR|CRIT|FATA|PANI) ?\[[^]\s]*\d[^]\s]*\] ",  # logrus, log15, geth
        # PostgreSQL, with a user and a database as Debian has it, or without
        rf"{_ISO}\S* \S+ \[\d+\] (?:\S+ )?(DEBUG[1-5]|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC):  ",
    )
)
_DOTNET = {"trce:": TRACE, "dbug:": DEBUG, "fail:": ERROR}  # the words of its console that are its alone
_LEVEL = re.compile(r"(?<![\w.?&;/])[\"']?(?:log\.)?(?:level|lvl|severity)[\"']?=[\"']?([a-zA-Z]+)(?![\w.])")
_TIME = re.compile(
    r"(?:<\d{1,3}>\d{0,2} ?)?\[?(?:(?:time|ts|timestamp)=\"?)?"
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\s?(?:Z|UTC|[+-]\d\d(?::?\d\d)?))(?!\d)"
)
_COMMON = re.compile(r"\S+ \S+ \S+ (\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\])")
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # AWS Lambda's request
_TIME_WORD = re.compile(
    rf"[-+:.,/TZ]*\d[-+\d:.,/TZ]*(?:[AP]M)?|\d\d-(?:{_MONTH})-\d{{4}}|UTC|GMT|AM|PM|[A-Z]{{2,3}}T|{_DAY}|{_MONTH}|{_UUID}"
)
_RUNTIME = re.compile(rf"{_ISO}\S* std(?:out|err) [FP] ")  # containerd's and CRI-O's
_FIRST_OF_TWO = re.compile(rf"{_JUL}.*\n")
_LOGFMT = re.compile(rf"(?>\[?(?:{_TIME_WORD.pattern})[]:,]*\s+)*+(?:\[[^]]*\]:?\s+)?[\w.]+=")
MOST_LOGS = 1 << 16  # of one text; one with more lines that begin as a log does is none of several
_HEAD_BYTES = 300  # of a line are looked at for its level
_HEAD_WORDS = 12


def logs(data: bytes, received_ms: int = 0) -> bytes:
    """A text to LogsData; `received_ms` is the raw record's timestamp. Raises Malformed."""
    if b"\0" in data:
        raise Malformed(Reason.MALFORMED, "a NUL byte: not text")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip()
    if not text:
        raise Malformed(Reason.EMPTY_MESSAGE)
    start = len(text) - len(text.lstrip())
    text = text[text.rfind("\n", 0, start) + 1 :]  # without the empty lines in front
    found = list(islice(entries(text), MOST_LOGS + 1))
    if len(found) > MOST_LOGS:
        found = [text]
    return logs_data([(b"", b"", [log_observed(record(entry).SerializeToString(), received_ms) for entry in found])])


def entries(text: str) -> Iterator[str]:
    """The logs of a text: itself, unless its lines begin as those of several do."""
    start = next((pattern for pattern in STARTS if pattern.match(text)), None)
    lines: list[str] = []
    for line in text.split("\n"):
        if lines and start is not None and start.match(line):
            yield "\n".join(lines).rstrip()
            lines = []
        lines.append(line)
    yield "\n".join(lines).rstrip()


def record(text: str) -> LogRecord:
    """One log."""
    log = LogRecord(body={"string_value": text})
    head = head_of(text)
    number, log.severity_text = severity(head)
    log.severity_number = number  # type: ignore[assignment]
    time = _TIME.match(head) or _TIME.match(text) or _COMMON.match(head)  # the second: the runtime's
    if time is not None:
        log.time_unix_nano = nanoseconds(time[1]) or 0
    context = context_in_text(text)
    if context is not None:
        log.trace_id, log.span_id, log.flags = context.trace_id, context.span_id, context.flags or 0
    return log


def head_of(text: str) -> str:
    """What of a text is looked at for its level: the start of its first line, without colours."""
    head = text[:_HEAD_BYTES]
    first = _RUNTIME.match(head) or _FIRST_OF_TWO.match(head)
    return uncoloured(head[first.end() if first else 0 :].split("\n", 1)[0])


def severity(head: str, within: bool = False) -> tuple[int, str]:
    """Number and word of the level that a line's head states; UNSPECIFIED and "" when it states none.

    `within`: it is the message of a log that had fields of its own. There `level=` counts if it begins as logfmt does,
    behind a time and one pair of brackets.

    >>> severity("2024-05-01 12:00:00,123 - shop.cart - ERROR - out of stock"), severity("no ERROR found")
    ((17, 'ERROR'), (0, ''))
    """
    if (match := _PRIORITY.match(head)) and int(match[1]) <= _HIGHEST_PRIORITY:
        return severity_of_level(int(match[1]) % 8), ""
    if match := next(filter(None, (logger.match(head) for logger in LOGGERS)), None):
        return severity_number(match[1]), match[1]
    if number := _DOTNET.get(head[:5]):
        return number, head[:4]
    word = _level_in_head(head)
    if (
        not word
        and "=" in head
        and (not within or _LOGFMT.match(head))
        and (match := _LEVEL.search(head))
        and match[1].upper() in LEVELS
    ):
        word = match[1]
    return (severity_number(word), word) if word else (UNSPECIFIED, "")


def _level_in_head(head: str) -> str:
    words = head.split(maxsplit=_HEAD_WORDS)[:_HEAD_WORDS]
    inside = named = False  # in brackets; past a logger's name
    for place, word in enumerate(words):
        bare = word.strip("[]()|:,-")
        own = word.startswith("[") and word.rstrip(":,").endswith("]")
        if bare in LEVELS:
            return bare
        if own and (last := bare.rsplit(":", 1)[-1]).upper() in LEVELS:
            return last
        if place == 0 and word.endswith(":") and bare.upper() in LEVELS:
            return bare
        if own or inside or word.startswith("["):
            inside = "]" not in word and (inside or word.startswith("["))
        elif bare and not _TIME_WORD.fullmatch(bare):
            if named or words[place + 1 : place + 2] != ["-"]:
                return _prefixed(word) if place == 0 else _of_channel(word)
            named = True
    return ""


def _prefixed(word: str) -> str:
    """Python's default format is `ERROR:logger:message`."""
    level, colon, _ = word.partition(":")
    return level if colon and level in LEVELS else ""


def _of_channel(word: str) -> str:
    """Monolog's (Symfony, Laravel) is `channel.ERROR:`."""
    channel, _, level = word.removesuffix(":").rpartition(".")
    return level if channel and word.endswith(":") and level in LEVELS else ""
