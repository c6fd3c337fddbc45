"""Points in time as logs write them, to nanoseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

NS = 1_000_000_000
_MAX = (1 << 64) - 1  # OTLP's fixed64: until the year 2554
_EARLIEST = 1e8  # a smaller number of seconds (before March 1973) is a duration or a counter, not a time
_NUMBER = re.compile(r"\d{9,20}(?:\.\d+)?")
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,18}))?)?\s?"
    r"(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?(?:\[[\w/+-]+\])?",  # Java's ZonedDateTime has the zone's name behind it
    re.IGNORECASE,
)
_COMMON = re.compile(r"\[?(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})\]?")  # of web servers
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TO_MINUTES = len("2026-11-26T08:00")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(value: Any) -> int | None:
    """A time field's value in ns: RFC 3339 and its relatives (without a zone: UTC), the common log format's, or a
    number since the epoch.

    A number's unit follows from its size: s below 1e11, ms below 1e14, µs below 1e17, else ns. Log4j2's `instant`
    object works too. None for anything else.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _from_number(value)
    if isinstance(value, str):
        text = value.strip()
        if match := _ISO.fullmatch(text):
            return _from_iso(match)
        if match := _COMMON.fullmatch(text):
            return _from_common(match)
        if _NUMBER.fullmatch(text):
            return _from_number(float(text) if "." in text else int(text))
    elif isinstance(value, dict):
        second, nano = value.get("epochSecond"), value.get("nanoOfSecond", 0)
        if isinstance(second, int) and isinstance(nano, int):
            return _in_range(second * NS + nano)
    return None


def without_zone(value: Any) -> bool:
    """Whether it is a time, but whose is not said: the clock on somebody's wall."""
    match = _ISO.fullmatch(value.strip()) if isinstance(value, str) else None
    return match is not None and match[8] is None


def _from_number(value: float) -> int | None:
    if not _EARLIEST <= value <= _MAX:
        return None
    per_unit = NS if value < 1e11 else 1_000_000 if value < 1e14 else 1000 if value < 1e17 else 1
    if isinstance(value, int):
        return _in_range(value * per_unit)
    # A double of seconds is good to about 0.2 µs; what follows is noise.
    return _in_range(round(value * per_unit / 1000) * 1000)


def _from_iso(match: re.Match[str]) -> int | None:
    second, fraction, zone = match.group(6, 7, 8)
    minute = _minute(match[0][:_TO_MINUTES], zone)
    # 60 is a leap second: OTLP's time, like POSIX's, has none, so it is the next second.
    if minute is None or int(second or 0) > 60:
        return None
    return _in_range((minute + int(second or 0)) * NS + (int(f"{fraction:0<9.9}") if fraction else 0))


def _from_common(match: re.Match[str]) -> int | None:
    day, month, year, clock, zone = match.groups()
    return nanoseconds(f"{year}-{_MONTHS.index(month) + 1:02}-{day}T{clock}{zone}") if month in _MONTHS else None


@lru_cache(1024)  # that of most logs is that of the log before
def _minute(text: str, zone: str | None) -> int | None:
    """Seconds since the epoch of a minute, as in `2026-11-26T08:00`; None for one that there is not."""
    year, month, day, hour, minute = text[:4], text[5:7], text[8:10], text[11:13], text[14:]
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), tzinfo=_zone(zone))
    except ValueError:
        return None
    since = moment - _EPOCH
    return since.days * 86400 + since.seconds


def _zone(text: str | None) -> timezone:
    if text is None or text[0] not in "+-":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:] if len(text) > 3 else 0)
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _in_range(value: int) -> int | None:
    return value if 0 < value <= _MAX else None
