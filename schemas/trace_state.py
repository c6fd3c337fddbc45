"""The W3C tracestate of a span: its members (Trace Context, section 3.3), and OpenTelemetry's `ot` among them.

`ot` holds `rv`, the trace's randomness R, and `th`, the threshold T at which it was sampled: 56 bits each
(OpenTelemetry specification, "TraceState: Probability Sampling"). A trace that was kept at T has R ≥ T and stands for
2^56 / (2^56 − T) traces.
"""

from __future__ import annotations

import re

RANDOM_BITS = 56
LONGEST_VALUE = 256  # characters of a member's value
MEMBERS = 32  # a tracestate with more is invalid

_PART = rb"[a-z][a-z0-9_*/-]"
_KEY = re.compile(rb"%s{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@%s{0,13}" % (_PART, _PART))
_VALUE = re.compile(rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


def is_key(key: str) -> bool:
    """Whether a tracestate can hold this key."""
    return _KEY.fullmatch(key.encode()) is not None


def is_value(value: str) -> bool:
    """Whether a tracestate can hold this value: up to 256 printable ASCII characters, no comma, no equals sign."""
    return _VALUE.fullmatch(value.encode()) is not None


def members(trace_state: bytes, *, blanks: bool = True) -> dict[bytes, bytes] | None:
    """Key → value; None when any part is invalid: who cannot parse a tracestate discards all of it.

    `blanks` allows members of blanks alone, as the specification does and the Collector does not.
    """
    found: dict[bytes, bytes] = {}
    for member in trace_state.split(b","):
        if not member or (blanks and not member.strip(b" \t")):
            continue
        key, equals, value = member.partition(b"=")
        key, value = key.lstrip(b" \t"), value.rstrip(b" \t")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or key in found:
            return None
        found[key] = value
        if len(found) > MEMBERS:
            return None
    return found


_RANDOM_BYTES = RANDOM_BITS // 8
_OT = rb"(?:^|,)[ \t]*ot=(?:[^,;]*;)*?"
_RV = re.compile(_OT + rb"rv:([0-9a-fA-F]{14})(?=[;, \t]|$)")
_TH = re.compile(_OT + rb"th:([0-9a-fA-F]{1,14})(?=[;, \t]|$)")


def randomness_of_state(trace_state: bytes) -> int | None:
    """The 56-bit `rv` of a tracestate's `ot` entry; None when it has none or an invalid one, or is itself invalid."""
    found = _said(_RV, trace_state)
    return int(found, 16) if found else None


def randomness_of_id(trace_id: bytes) -> int:
    """The last 56 bits of a 16-byte trace id."""
    return int.from_bytes(trace_id[-_RANDOM_BYTES:], "big")


def threshold_of_state(trace_state: bytes) -> int:
    """The 56-bit `th` of a tracestate's `ot` entry; 0 when it has none or an invalid one, or is itself invalid."""
    found = _said(_TH, trace_state)
    return int(found.ljust(2 * _RANDOM_BYTES, b"0"), 16) if found else 0


def _said(what: re.Pattern[bytes], trace_state: bytes) -> bytes:
    """What an expression finds in a valid tracestate, b"" for nothing. Few have an `ot`: only those are taken apart."""
    found = what.search(trace_state)
    return found[1] if found and members(trace_state) is not None else b""


def threshold_text(threshold: int) -> str:
    """As `th` is written: hexadecimal without trailing zeros.

    >>> threshold_text(1 << 55), threshold_text(0xA << 4)
    ('8', '000000000000a')
    """
    return f"{threshold:014x}".rstrip("0") or "0"


def with_threshold(trace_state: bytes, threshold: int) -> bytes | None:
    """The tracestate that says `threshold`, in front; None when this one is invalid, or has no room."""
    found = members(trace_state)
    if found is None:
        return None
    others = [part for part in found.pop(b"ot", b"").split(b";") if part and not part.startswith(b"th:")]
    value = b";".join([f"th:{threshold_text(threshold)}".encode(), *others])
    if len(value) > LONGEST_VALUE:
        return None
    kept = [b"%s=%s" % member for member in found.items()][: MEMBERS - 1]
    return b",".join([b"ot=" + value, *kept])


def adjusted_count(threshold: int) -> float:
    """How many traces one stands for that was kept at this threshold.

    >>> adjusted_count(0), adjusted_count(3 << 54)
    (1.0, 4.0)
    """
    return (1 << RANDOM_BITS) / ((1 << RANDOM_BITS) - threshold)
