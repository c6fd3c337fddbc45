"""The members of a W3C tracestate (Trace Context, section 3.3), and which of them policies ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping

MEMBERS = 32  # a tracestate with more is invalid
LONGEST_REMEMBERED = 512  # bytes; what a vendor must propagate, by the specification
STATES_REMEMBERED = 256  # the spans of one trace share theirs and come close together

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


class States:
    """The predicates about tracestates: key → value → bits."""

    __slots__ = ("_blanks", "_known", "_wanted")

    def __init__(self, wanted: Mapping[bytes, Mapping[bytes, int]], *, blanks: bool) -> None:
        self._wanted = wanted
        self._blanks = blanks
        self._known: dict[bytes, int] = {}

    def bits(self, trace_state: bytes) -> int:
        """The predicates that a span's tracestate meets."""
        known = self._known.get(trace_state)
        if known is not None:
            return known
        found = members(trace_state, blanks=self._blanks) or {}
        bits = 0
        for key, values in self._wanted.items():
            bits |= values.get(found.get(key, b""), 0)
        if len(trace_state) <= LONGEST_REMEMBERED:
            if len(self._known) >= STATES_REMEMBERED:
                self._known.clear()
            self._known[trace_state] = bits
        return bits
