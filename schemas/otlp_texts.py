"""The texts of OTLP messages exchanged where they stand: attributes, names, bodies, at any depth.

Whoever exchanges them (`Rules`) says where to look: `regions` of the message in which a text may have to change. What
no region touches is skipped by its length, and only the messages around a text that did change are encoded anew, so a
message without a region costs nothing and all other bytes survive: unknown fields, order, odd encodings. An unknown
field that a region touches is left out, since nobody can say what is in it; the rows of OTLP before 1.0 leave their
empty field behind, which says that there were some.

What is walked and what not follows from the descriptors of OTLP. The file is Cython's pure-Python mode; the bench
that guards it is `python -m bench.micro.redaction`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Any, Protocol

import cython
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from schemas.errors import Malformed
from schemas.otlp_build import varint
from schemas.otlp_check import LIBRARY_FIELD
from schemas.reasons import Reason

IGNORE, KEEP, MASK, REMOVE, REMOVE_OR_MASK = range(5)
"""What a key does to its attribute: nothing inside it changes, its texts may, its value does, it goes.

Inside a value nothing goes; there the last one masks.
"""

_IGNORE = cython.declare(cython.int, IGNORE)
_MASK = cython.declare(cython.int, MASK)
_REMOVE = cython.declare(cython.int, REMOVE)
_REMOVE_OR_MASK = cython.declare(cython.int, REMOVE_OR_MASK)

_FIELDS = cython.declare(cython.int, 32)  # above the highest field number
_UNKNOWN = cython.declare(cython.int, 0)  # of the field's actions; above 0: the kind of message that it is
_TEXT = cython.declare(cython.int, -1)
_OTHER = cython.declare(cython.int, -2)  # ids and packed numbers
# Where an attribute stands: its key is one of a row or header, of a map in one, of a map in a log's body.
_TOP = cython.declare(cython.int, 0)
_NESTED = cython.declare(cython.int, 1)
_BODY = cython.declare(cython.int, 2)
MAX_DEPTH = 100  # of messages in one another: upb's recursion limit
_MAX_DEPTH = cython.declare(cython.int, MAX_DEPTH)
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)  # a literal of this size is Python's
_INT_VALUE = cython.declare(cython.ulonglong, 0x18)
_DOUBLE_VALUE = cython.declare(cython.ulonglong, 0x21)
_LIBRARY_TAG = cython.declare(cython.ulonglong, LIBRARY_FIELD << 3 | 2)

_double = Struct("<d").unpack_from


class Rules(Protocol):
    """Who decides what becomes of keys and texts."""

    def key(self, key: bytes) -> int:
        """IGNORE, KEEP, MASK, REMOVE or REMOVE_OR_MASK."""

    def text(self, text: bytes) -> bytes:
        """A text with what must not be in it masked; the same object if nothing was."""

    def masked(self, text: bytes) -> bytes:
        """What stands for a whole value whose key is to be masked; the same object if it may stay."""

    def removed(self, key: bytes) -> None:
        """An attribute is gone."""

    def summary(
        self, masked: Sequence[bytes], removed: Sequence[bytes], body_masked: Sequence[bytes]
    ) -> Sequence[bytes]:
        """KeyValue messages that tell of what changed in a row or header: the names of what was masked, removed."""


def _tables() -> tuple[dict[str, int], array[int], list[bytes], array[int]]:
    """Numbers of message kinds by name, from 1; action and name of field f of kind k at k * 32 + f; the number of
    each kind's attributes, 0 if it has none."""
    kinds: dict[str, int] = {}
    found = [module.DESCRIPTOR for module in (trace_pb2.TracesData, logs_pb2.LogsData, metrics_pb2.MetricsData)]
    for kind in found:  # grows while it is read
        kinds[kind.full_name.removeprefix("opentelemetry.proto.")] = len(kinds) + 1
        inner = [one.message_type for one in kind.fields if one.message_type is not None]
        found += [one for one in dict.fromkeys(inner) if one not in found]
    actions = array("i", bytes(4 * 32 * (len(kinds) + 1)))
    names = [b""] * len(actions)
    attributes = array("i", bytes(4 * (len(kinds) + 1)))
    for number, kind in enumerate(found, start=1):
        for one in kind.fields:
            at = number * 32 + one.number
            names[at] = one.name.encode()
            if one.message_type is not None:
                actions[at] = kinds[one.message_type.full_name.removeprefix("opentelemetry.proto.")]
            elif one.type == one.TYPE_STRING or (kind.name, one.name) == ("AnyValue", "bytes_value"):
                actions[at] = -1
            elif one.type == one.TYPE_BYTES or one.is_repeated:
                actions[at] = -2
            if one.name == "attributes":
                attributes[number] = one.number
    return kinds, actions, names, attributes


KINDS, _ACTIONS, _NAMES, _ATTRIBUTES = _tables()
"""Numbers of the messages that can be walked, such as `trace.v1.TracesData`."""
_WITH_SCOPES = frozenset(
    KINDS[n] for n in ("trace.v1.ResourceSpans", "logs.v1.ResourceLogs", "metrics.v1.ResourceMetrics")
)


@cython.cclass
class Texts:
    """Walks messages. `keyed`: keys decide too, so every attribute is looked at; `numbers`: numbers are texts."""

    _rules: object
    _keyed: cython.bint
    _all: cython.bint  # no region keeps anything from being looked at
    _numbers: cython.bint
    _table: cython.int[::1]
    _holders: cython.int[::1]
    _pair_kind: cython.int
    _any_kind: cython.int
    _log_kind: cython.int
    _list_kind: cython.int
    _starts: cython.longlong[::1]
    _ends: cython.longlong[::1]
    _regions: cython.Py_ssize_t
    _next: cython.Py_ssize_t
    _value: cython.ulonglong
    _masked: list
    _removed: list
    _body_masked: list
    _summary: cython.bint
    _gone: cython.bint  # the last pair is to be left out

    def __init__(self, rules: Rules, keyed: bool, numbers: bool, summary: bool) -> None:
        self._rules, self._keyed, self._numbers, self._summary = rules, keyed, numbers, summary
        self._all = keyed or numbers
        self._table, self._holders = _ACTIONS, _ATTRIBUTES
        self._pair_kind, self._any_kind = KINDS["common.v1.KeyValue"], KINDS["common.v1.AnyValue"]
        self._list_kind, self._log_kind = KINDS["common.v1.KeyValueList"], KINDS["logs.v1.LogRecord"]
        self._masked, self._removed, self._body_masked = [], [], []
        self._regions = self._next = 0
        self._gone = False

    def rewritten(self, data: bytes, kind: cython.int, regions: Sequence[tuple[int, int]]) -> bytes:
        """The message with its texts exchanged; the same object if none was.

        `kind` is one of KINDS, `regions` do not overlap and are in order. Raises Malformed.
        """
        if not regions and not self._all:
            return data
        self._starts = array("q", [start for start, _ in regions] or [0])
        self._ends = array("q", [end for _, end in regions] or [0])
        self._regions, self._next = len(regions), 0
        self._masked, self._removed, self._body_masked = [], [], []
        new = self._message(data, 0, len(data), kind, _TOP, 0)
        return data if new is None else new

    # ---- the wire ----------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(-1)
    def _varint(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        value: cython.ulonglong = 0
        byte: cython.ulonglong
        shift: cython.int = 0
        while shift < 70:
            if pos >= end:
                raise _malformed("a field ends after its message")
            byte = p[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._value = value & _LOW_64
                return pos
            shift += 7
        raise _malformed("varint longer than 10 bytes")

    @cython.cfunc
    @cython.exceptval(-1)
    def _stop(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, tag: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """The end of the value at `pos`, of a field that is not length-delimited."""
        wire: cython.int = tag & 7
        open_groups: cython.int = 0
        length: cython.Py_ssize_t
        while True:
            if wire == 0:
                pos = self._varint(p, pos, end)
            elif wire == 1:
                pos += 8
            elif wire == 5:
                pos += 4
            elif wire == 3:
                open_groups += 1
            elif wire == 4 and open_groups:
                open_groups -= 1
            elif wire == 2:
                pos = self._varint(p, pos, end)
                length = self._length(pos, end)
                pos += length
            else:
                raise _malformed(f"field {tag >> 3} has wire type {wire}")
            if pos > end:
                raise _malformed("a field ends after its message")
            if not open_groups:
                return pos
            pos = self._varint(p, pos, end)
            wire = self._value & 7

    @cython.cfunc
    @cython.exceptval(-1)
    def _length(self, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The length that was read last, of a value that begins at `pos`."""
        if self._value > 0x7FFFFFFF or cython.cast(cython.Py_ssize_t, self._value) > end - pos:
            raise _malformed("a field ends after its message")
        return cython.cast(cython.Py_ssize_t, self._value)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _touched(self, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
        """Whether a region overlaps data[start:end]; asked with starts that never go back."""
        while self._next < self._regions and self._ends[self._next] <= start:
            self._next += 1
        return self._next < self._regions and self._starts[self._next] < end

    # ---- messages ----------------------------------------------------------------------------------------

    @cython.cfunc
    def _message(
        self,
        data: bytes,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        kind: cython.int,
        mode: cython.int,
        depth: cython.int,
    ) -> Any:
        """A message of this kind anew, None if nothing in it changed. `mode` is where it stands."""
        p: cython.p_const_uchar = data
        kept: cython.Py_ssize_t = pos  # from here on nothing has been written yet
        at: cython.Py_ssize_t
        value: cython.Py_ssize_t
        stop: cython.Py_ssize_t
        tag: cython.ulonglong
        action: cython.int
        inside: cython.int
        drop: cython.bint
        parts: list = []
        outer: Any = None
        holder: cython.bint = self._summary and self._holders[kind] != 0
        if depth > _MAX_DEPTH:
            raise _malformed("messages nest too deeply")
        if holder:
            outer = self._masked, self._removed, self._body_masked
            self._masked, self._removed, self._body_masked = [], [], []
        while pos < end:
            at = pos
            value = self._varint(p, pos, end)
            tag = self._value
            new = None
            drop = False
            if tag & 7 == 2:
                pos = self._varint(p, value, end)
                stop = pos + self._length(pos, end)
                action = self._table[kind * _FIELDS + (tag >> 3)] if tag >> 3 < _FIELDS else _UNKNOWN
                if action == _OTHER:
                    pass
                elif action == _UNKNOWN:
                    drop = self._touched(at, stop)
                    if drop and tag == _LIBRARY_TAG and kind in _WITH_SCOPES:
                        drop = False
                        new = b""
                elif action == _TEXT:
                    if self._touched(pos, stop):
                        new = self._text(data[pos:stop])
                        if new is not None and kind != self._any_kind and kind != self._pair_kind:
                            self._note(_NAMES[kind * 32 + cython.cast(cython.int, tag >> 3)], mode)
                elif self._all or self._touched(pos, stop):
                    if action == self._pair_kind:
                        new = self._pair(data, pos, stop, mode if kind == self._list_kind else _TOP, depth + 1)
                        drop = self._gone
                        self._gone = False
                    else:
                        inside = mode
                        if action == self._any_kind and kind == self._log_kind:
                            inside = _BODY
                        new = self._message(data, pos, stop, action, inside, depth + 1)
                        if new is not None and inside == _BODY and mode != _BODY and not self._body_masked:
                            self._note(b"body", _BODY)
            else:
                stop = self._stop(p, value, end, tag)
                pos = value
                if tag & 7 == 3:
                    drop = self._touched(at, stop)
                elif kind == self._any_kind and self._numbers and tag in (_INT_VALUE, _DOUBLE_VALUE):
                    new = self._number(data, p, value, stop, tag)
                    if new is not None:
                        parts += (data[kept:at], b"\x0a", varint(len(new)), new)
                        kept = stop
                        new = None
            if drop:
                parts.append(data[kept:at])
                kept = stop
            elif new is not None:
                parts += (data[kept:value], varint(len(new)), new)
                kept = stop
            pos = stop
        if holder:
            told: Any = ()
            if self._masked or self._removed or self._body_masked:
                told = self._rules.summary(self._masked, self._removed, self._body_masked)
            self._masked, self._removed, self._body_masked = outer
            if told:
                parts.append(data[kept:end])
                kept = end
                for pair in told:
                    parts += (bytes((self._holders[kind] << 3 | 2,)), varint(len(pair)), pair)
        if not parts:
            return None
        parts.append(data[kept:end])
        return b"".join(parts)

    @cython.cfunc
    def _pair(
        self,
        data: bytes,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        mode: cython.int,
        depth: cython.int,
    ) -> Any:
        """An attribute anew, None if nothing in it changed; `_gone` if it is to be left out."""
        p: cython.p_const_uchar = data
        at: cython.Py_ssize_t = pos
        stop: cython.Py_ssize_t
        tag: cython.ulonglong
        decided: cython.int
        key: bytes = b""
        content: bytes = b""
        while at < end:
            at = self._varint(p, at, end)
            tag = self._value
            if tag & 7 == 2:
                at = self._varint(p, at, end)
                stop = at + self._length(at, end)
                if tag == 0x0A:
                    key = data[at:stop]
                elif tag == 0x12:
                    content = data[at:stop]
            else:
                stop = self._stop(p, at, end, tag)
            at = stop
        decided = self._rules.key(key)
        if decided == _IGNORE:
            return None
        if decided == _REMOVE_OR_MASK:
            decided = _MASK if mode == _NESTED else _REMOVE
        if decided == _REMOVE and mode != _NESTED:
            self._gone = True
            self._removed.append(key)
            self._rules.removed(key)
            return None
        if decided == _MASK:
            whole = self._plain(content)
            new = self._rules.masked(whole)
            if new is whole:
                return None
            self._note(key, mode)
            shown = self._rules.text(key)
            told = b"\x0a" + varint(len(new)) + new
            return b"\x0a" + varint(len(shown)) + shown + b"\x12" + varint(len(told)) + told
        new = self._message(data, pos, end, self._pair_kind, _BODY if mode == _BODY else _NESTED, depth)
        if new is not None:
            self._note(key, mode)
        return new

    @cython.cfunc
    def _text(self, text: bytes) -> Any:
        new = self._rules.text(text)
        return None if new is text else new

    @cython.cfunc
    def _number(
        self,
        data: bytes,
        p: cython.p_const_uchar,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        tag: cython.ulonglong,
    ) -> Any:
        """The masked text of a number, None if it may stay one."""
        if tag == _DOUBLE_VALUE:
            return self._text(repr(_double(data, pos)[0]).encode())
        self._varint(p, pos, end)
        number = self._value
        return self._text(str(number - (1 << 64) if number >> 63 else number).encode())

    @cython.cfunc
    def _plain(self, content: bytes) -> bytes:
        """A value as text; of lists and maps, their bytes."""
        p: cython.p_const_uchar = content
        end: cython.Py_ssize_t = len(content)
        pos: cython.Py_ssize_t = 0
        stop: cython.Py_ssize_t
        tag: cython.ulonglong
        found: bytes = content
        while pos < end:
            pos = self._varint(p, pos, end)
            tag = self._value
            if tag & 7 == 2:
                pos = self._varint(p, pos, end)
                stop = pos + self._length(pos, end)
                found = content[pos:stop]
            else:
                stop = self._stop(p, pos, end, tag)
                if tag == _INT_VALUE:
                    self._varint(p, pos, end)
                    number = self._value
                    found = str(number - (1 << 64) if number >> 63 else number).encode()
                elif tag == _DOUBLE_VALUE:
                    found = repr(_double(content, pos)[0]).encode()
            pos = stop
        return found

    @cython.cfunc
    def _note(self, name: bytes, mode: cython.int) -> None:
        """Something called `name` was masked."""
        if mode == _BODY:
            self._body_masked.append(name)
        elif mode == _TOP:
            self._masked.append(name)


def _malformed(detail: str) -> Malformed:
    return Malformed(Reason.MALFORMED, detail)
