"""Trace context as logs write it: every common form of a trace id to 16 bytes, of a span id to 8.

Forms, by origin: OpenTelemetry, ECS, Serilog, Java MDC (lower-case hex); Zipkin (16 or 32 hex digits); Jaeger (hex
without leading zeros); W3C `traceparent`; B3 in one header; AWS X-Ray `1-8hex-24hex`; Google `projects/p/traces/hex`;
Datadog (decimal, the low 64 bits); protobuf's JSON (base64); UUIDs; Spring's `[hex-hex]` in text. A 64-bit id fills the
low half: the pipeline joins on that half alone (schemas/ids.py).
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from schemas.ids import SPAN_ID_BYTES, TRACE_ID_BYTES

_MAX_LOST = 3  # leading zeros a printer may have lost in a field of free form: four or more are 1 id in 65,536
_U64 = 1 << 64
_SMALLEST_NUMBER = 1 << 32  # a JSON number below it in a field of free form is a counter, not a random 64-bit id
_HEX = re.compile(r"[0-9a-f]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACEPARENT = re.compile(r"(?<![0-9a-f])(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?![0-9a-f])")
_XRAY = re.compile(r"(?<![0-9a-f])1-([0-9a-f]{8})-([0-9a-f]{24})(?![0-9a-f])")
_XRAY_PARENT = re.compile(r"parent=([0-9a-f]{16})(?![0-9a-f])")
_B3 = re.compile(r"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d]))?(?:-[0-9a-f]{16})?")
_JAEGER = re.compile(r"([0-9a-f]{1,32}):([0-9a-f]{1,16}):[0-9a-f]{1,16}:([0-9a-f]{1,2})")
_GOOGLE = re.compile(r"projects/[^/]+/traces/([0-9a-f]{32})")
_CLOUD = re.compile(r"([0-9a-f]{32})(?:/(\d{1,20}))?(?:;o=(\d))?")
_OWN = r"(?<![a-z0-9])(?<!parent[_.-])(?<!root[_.-])(?<!link[_.-])(?<!linked[_.-])"  # not another's of the log
_IN_TEXT = re.compile(
    rf"{_OWN}(dd\.)?(?:otel)?trace[_.-]?id[\"']?\s*[=:]\s*[\"']?([0-9a-f][0-9a-f-]{{12,35}})(?![0-9a-z])"
)
_SPAN_IN_TEXT = re.compile(rf"{_OWN}(dd\.)?(?:otel)?span[_.-]?id[\"']?\s*[=:]\s*[\"']?([0-9a-f]{{13,20}})(?![0-9a-z])")
_FLAGS_IN_TEXT = re.compile(r"(?<![a-z0-9])trace[_.-]?flags[\"']?\s*[=:]\s*[\"']?([0-9a-f]{2})(?![0-9a-z])")
# Spring Boot's [trace-span], and [application,trace,span] of its older patterns: two ids of digits alone are none.
_SPRING = re.compile(
    r"\[(?:([0-9a-f]{32})-|[^\[\],\n]{0,64},(?!\d+,\d+[\],])([0-9a-f]{16}|[0-9a-f]{32}),)"
    r"([0-9a-f]{16})(?:,(?:true|false)?)?\]"
)
_SPRING_HEAD = 300  # characters that its brackets are within: time, level, process, application and thread come before


class TraceContext(NamedTuple):
    """`trace_id` has 16 bytes; `span_id` 8, or none when the form carries no span; `flags` is W3C's, None if absent."""

    trace_id: bytes
    span_id: bytes = b""
    flags: int | None = None


def trace_context(value: object, *, decimal: bool = False) -> TraceContext | None:
    """Read a trace field in whichever form it is; None when it names no trace (zero, "-", free text, …).

    `decimal` is for fields whose owner writes decimals (`dd.trace_id`): digits are then a number whatever their
    count. In any other field 16 or 32 digits are hex, 17 to 20 decimal digits a decimal number.
    """
    if isinstance(value, int) and (decimal or value >= _SMALLEST_NUMBER):
        return _context(_number(value, TRACE_ID_BYTES))
    if not isinstance(value, str):
        return None
    plain = identifier(value, TRACE_ID_BYTES, decimal=decimal)
    if plain:
        return TraceContext(plain)
    text = value.strip().lower()
    if match := _TRACEPARENT.fullmatch(text):
        return _context(bytes.fromhex(match[1]), bytes.fromhex(match[2]), int(match[3], 16))
    if match := _XRAY.search(text):
        parent = _XRAY_PARENT.search(text)
        return _context(bytes.fromhex(match[1] + match[2]), bytes.fromhex(parent[1]) if parent else b"")
    if match := _B3.fullmatch(text):
        flags = None if match[3] is None else int(match[3] != "0")
        return _context(bytes.fromhex(match[1].zfill(32)), bytes.fromhex(match[2]), flags)
    if match := _JAEGER.fullmatch(text.replace("%3a", ":")):  # its clients escape it for HTTP
        flags = int(match[3], 16) & 1
        return _context(bytes.fromhex(match[1].zfill(32)), bytes.fromhex(match[2].zfill(16)), flags)
    if match := _GOOGLE.fullmatch(text):
        return _context(bytes.fromhex(match[1]))
    if match := _CLOUD.fullmatch(text):
        flags = None if match[3] is None else int(match[3] != "0")
        return _context(bytes.fromhex(match[1]), _number(int(match[2] or 0), SPAN_ID_BYTES), flags)
    return None


def span_id(value: object, *, decimal: bool = False) -> bytes:
    """The 8 bytes of a span field, b"" when it names none."""
    if isinstance(value, int) and (decimal or value >= _SMALLEST_NUMBER):
        return _number(value, SPAN_ID_BYTES)
    return identifier(value, SPAN_ID_BYTES, decimal=decimal) if isinstance(value, str) else b""


def identifier(value: str, size: int, *, decimal: bool = False) -> bytes:
    """An id of `size` bytes alone in its field; b"" for zero and for anything that is not one."""
    if len(value) == 2 * size and not decimal:  # as nearly all are
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if len(raw) == size:  # it passes over spaces
            return _nonzero(raw)
    text = value.strip().lower().removeprefix("0x")
    if _UUID.fullmatch(text):
        text = text.replace("-", "")
    length = len(text)
    digits = text.isascii() and text.isdigit()
    if digits and length <= 20 and (decimal or length > 16):
        return _number(int(text), size)
    if _HEX.fullmatch(text):
        full = next((n for n in (16, 32) if n - _MAX_LOST <= length <= n), 0)
        return _nonzero(bytes.fromhex(text.zfill(size * 2))) if 0 < full <= size * 2 else b""
    if (length, size) in ((24, 16), (12, 8)) and text.endswith("="):  # protobuf's JSON mapping of bytes
        try:
            raw = binascii.a2b_base64(value.strip(), strict_mode=True)
        except ValueError:
            return b""
        return _nonzero(raw) if len(raw) == size else b""
    return b""


def context_in_text(text: str) -> TraceContext | None:
    """A trace context inside a message: a traceparent, an X-Ray id, or `trace_id=…` as loggers' patterns write it.

    Spring's, in a line's head, is the log's own: it goes before what the message names.
    """
    if match := _SPRING.search(text, 0, _SPRING_HEAD):
        context = _context(bytes.fromhex((match[1] or match[2]).zfill(32)), bytes.fromhex(match[3]))
        if context is not None:
            return context
    lower = text.lower()
    if "trace" not in lower and "00-" not in lower and "root=1-" not in lower:
        return None  # most messages: three searches in C instead of three patterns
    if match := _TRACEPARENT.search(lower):
        return _context(bytes.fromhex(match[1]), bytes.fromhex(match[2]), int(match[3], 16))
    if match := _IN_TEXT.search(lower):
        found = identifier(match[2], TRACE_ID_BYTES, decimal=match[1] is not None)
        if found:
            span, flags = _SPAN_IN_TEXT.search(lower), _FLAGS_IN_TEXT.search(lower)
            own = identifier(span[2], SPAN_ID_BYTES, decimal=span[1] is not None) if span else b""
            return TraceContext(found, own, int(flags[1], 16) if flags else None)
    if match := _XRAY.search(lower):
        parent = _XRAY_PARENT.search(lower)
        return _context(bytes.fromhex(match[1] + match[2]), bytes.fromhex(parent[1]) if parent else b"")
    return None


def _context(trace_id: bytes, span: bytes = b"", flags: int | None = None) -> TraceContext | None:
    return TraceContext(trace_id, _nonzero(span), flags) if _nonzero(trace_id) else None


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big") if 0 < value < _U64 else b""


def _nonzero(value: bytes) -> bytes:
    return value if any(value) else b""
