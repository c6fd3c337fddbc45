"""Which members of a span's W3C tracestate policies ask for."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.trace_state import members

LONGEST_REMEMBERED = 512  # bytes; what a vendor must propagate, by the specification
STATES_REMEMBERED = 256  # the spans of one trace share theirs and come close together


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
