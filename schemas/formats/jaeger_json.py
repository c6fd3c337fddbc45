"""Jaeger's spans as JSON (kafkaexporter's `jaeger_json`, `json` of Jaeger 1's collector) to OTLP protobuf.

One Kafka value is one model.Span, as gogo's jsonpb writes it: ids and binary tags in base64, times in RFC 3339,
durations as `0.1s`, 64-bit integers as text, enums by name. That is not the JSON of Jaeger's UI and query API
(`traceID` in hex, times in µs), which is refused, as is Zipkin's. From the model on, it is
schemas/formats/jaeger_proto.py.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from schemas.errors import Malformed
from schemas.formats import jaeger_proto
from schemas.formats.jaeger_model import TEXT
from schemas.formats.json_mapping import load, read, reader
from schemas.reasons import Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def traces(data: bytes) -> bytes:
    """A Span in JSON to TracesData. Raises Malformed."""
    value = load(data)
    if isinstance(value, dict) and ("traceID" in value or "spanID" in value):
        raise Malformed(Reason.MALFORMED, "the JSON of Jaeger's query API, not that of model.Span")
    if _is_zipkins(value):
        raise Malformed(Reason.MALFORMED, "Zipkin's JSON is not read: send it through a Collector's zipkin receiver")
    return jaeger_proto.traces(TEXT["Span"](**read(_SPAN, value, "a Jaeger Span")).SerializeToString())


def _is_zipkins(value: Any) -> bool:
    """Its spans come in arrays, and name their own id so."""
    span = value[0] if isinstance(value, list) and value else value
    return isinstance(span, dict) and "traceId" in span and "id" in span


def timestamp(value: Any) -> dict[str, int]:
    """A Timestamp of RFC 3339. Raises ValueError."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{str(value)[:40]!r} is not a time in RFC 3339")
    zone = "+00:00" if match[3] == "Z" else match[3]
    since = datetime.fromisoformat(match[1] + zone) - _EPOCH
    return {"seconds": since.days * 86400 + since.seconds, "nanos": _fraction(match[2])}


def duration(value: Any) -> dict[str, int]:
    """A Duration of decimal seconds with an `s`. Raises ValueError."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{str(value)[:40]!r} is not a duration in seconds")
    sign = -1 if match[1] else 1
    return {"seconds": sign * int(match[2]), "nanos": sign * _fraction(match[3])}


def _fraction(digits: str | None) -> int:
    return int(f"{digits:0<9}") if digits else 0


_SPAN = reader(TEXT["Span"].DESCRIPTOR, {"Timestamp": timestamp, "Duration": duration})
