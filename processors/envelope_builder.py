"""Envelopes in the making: the rows of many raw messages, sorted by output partition.

Memory layout: for each envelope one byte string of rows end to end, six columns and the distinct headers, all growing
by doubling. A row costs a copy of its bytes and six numbers, never an object; a message a pair of them in each envelope
that has rows of it. `python -m bench.micro.regroup` measures it.
"""

from __future__ import annotations

from array import array

import cython

from schemas.columns import grown
from schemas.envelope import Envelope
from schemas.otlp_scan import RawRows, Rows

if cython.compiled:
    from cython.cimports.libc.string import memcpy

ROW_OVERHEAD = 40  # bytes of a row's columns and of its message's coordinates
UNTRACED = -1
"""The target of rows without a trace id."""

_OVERHEAD = cython.declare(cython.Py_ssize_t, ROW_OVERHEAD)
_ROWS = 64  # for which a new envelope has room
_BYTES = 16 << 10


@cython.cclass
class EnvelopeBuilder:
    """One envelope."""

    size = cython.declare(cython.Py_ssize_t, visibility="readonly")  # about what it will be on the wire, uncompressed
    rows = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _end: cython.Py_ssize_t
    _allowed: cython.Py_ssize_t  # bytes beyond those of others: headers that would leave no room for rows
    _serial: cython.Py_ssize_t  # of the messages whose numbers are known below
    _message: cython.Py_ssize_t  # of the newest row: its number among those that came together, and here
    _resource: cython.Py_ssize_t
    _scope: cython.Py_ssize_t
    _resource_here: cython.uint
    _scope_here: cython.uint
    _message_here: cython.uint
    _resources: dict
    _scopes: dict
    _messages: list
    _body: bytearray
    _bytes: cython.uchar[::1]
    _ends: cython.uint[::1]
    _resource_of: cython.uint[::1]
    _scope_of: cython.uint[::1]
    _message_of: cython.uint[::1]
    _item_of: cython.uint[::1]
    _keys: cython.ulonglong[::1]

    def __init__(self) -> None:
        self.size = self.rows = self._end = self._allowed = 0
        self._serial = self._message = self._resource = self._scope = -1
        self._resource_here = self._scope_here = self._message_here = 0
        self._resources, self._scopes, self._messages = {}, {}, []
        self._body = self._bytes = bytearray(_BYTES)
        columns = [array("I", bytes(4 * _ROWS)) for _ in range(5)]
        self._ends, self._resource_of, self._scope_of, self._message_of, self._item_of = columns
        self._keys = array("Q", bytes(8 * _ROWS))

    def more_rows(self) -> None:
        """Make room for as many again."""
        rows = 2 * self.rows
        self._ends = grown(self._ends, rows)
        self._resource_of = grown(self._resource_of, rows)
        self._scope_of = grown(self._scope_of, rows)
        self._message_of = grown(self._message_of, rows)
        self._item_of = grown(self._item_of, rows)
        self._keys = grown(self._keys, rows)

    def more_bytes(self, size: int) -> None:
        """Make room for `size` bytes, and more."""
        larger = bytearray(max(size, 2 * len(self._body)))
        larger[: len(self._body)] = self._body
        self._body = self._bytes = larger

    @cython.cfunc
    @cython.exceptval(-1)
    def begin(self, serial: cython.Py_ssize_t) -> cython.int:
        """Rows from now on are of other messages; `serial` tells one call of `add` from the others."""
        self._serial = serial
        self._message = self._resource = self._scope = -1
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def header_bytes(
        self, resource: cython.Py_ssize_t, resources: list[bytes], scope: cython.Py_ssize_t, scopes: list[bytes]
    ) -> cython.Py_ssize_t:
        """Of headers that are not in the envelope yet."""
        size: cython.Py_ssize_t = 0
        if resource != self._resource and resources[resource] not in self._resources:
            size += len(resources[resource])
        if scope != self._scope and scopes[scope] not in self._scopes:
            size += len(scopes[scope])
        return size

    @cython.cfunc
    @cython.exceptval(-1)
    def message(self, message: cython.Py_ssize_t, messages: list[tuple[int, int]]) -> cython.int:
        """The next row is of this message."""
        if message != self._message:
            self._message = message
            self._message_here = len(self._messages)
            self._messages.append(messages[message])
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def head(
        self, resource: cython.Py_ssize_t, resources: list[bytes], scope: cython.Py_ssize_t, scopes: list[bytes]
    ) -> cython.int:
        """The next row has these headers."""
        if resource != self._resource:
            self._resource = resource
            self._resource_here = self._resources.setdefault(resources[resource], len(self._resources))
        if scope != self._scope:
            self._scope = scope
            self._scope_here = self._scopes.setdefault(scopes[scope], len(self._scopes))
        return 0

    def encode(self, envelope: Envelope) -> bytes:
        """The record value of an empty envelope with these rows."""
        rows: cython.Py_ssize_t = self.rows
        envelope.resources, envelope.scopes = list(self._resources), list(self._scopes)
        envelope.messages = self._messages
        envelope.ends = array("I", bytes(memoryview(self._ends)[:rows]))
        envelope.resource = array("I", bytes(memoryview(self._resource_of)[:rows]))
        envelope.scope = array("I", bytes(memoryview(self._scope_of)[:rows]))
        envelope.message = array("I", bytes(memoryview(self._message_of)[:rows]))
        envelope.item = array("I", bytes(memoryview(self._item_of)[:rows]))
        envelope.keys = array("Q", bytes(memoryview(self._keys)[:rows]))
        return envelope.encode(memoryview(self._body)[: self._end])


@cython.cclass
class EnvelopeBuilders:
    """The envelopes of all output partitions, and one of rows without a trace id.

    An envelope is full at `envelope_bytes`; one whose first row has headers of more than half of that may have as many
    bytes more, or each of their rows would be in an envelope of its own, with all of them. A row that takes more than
    `max_row_bytes` with its headers goes nowhere: an envelope that no topic takes would come back for ever.
    """

    size = cython.declare(cython.Py_ssize_t, visibility="readonly")  # of all of them since `take`
    rows = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _partitions: cython.Py_ssize_t
    _envelope_bytes: cython.Py_ssize_t
    _max_row_bytes: cython.Py_ssize_t
    _serial: cython.Py_ssize_t
    _building: list  # by target; the last one is that of UNTRACED
    _full: list

    def __init__(self, partitions: int, envelope_bytes: int, max_row_bytes: int) -> None:
        self._partitions = partitions
        self._envelope_bytes = envelope_bytes
        self._max_row_bytes = max_row_bytes
        self._serial = 0
        self.take()

    def take(self) -> list[tuple[int, EnvelopeBuilder]]:
        """All that have rows, by target, in the order of their rows; what follows goes into new ones."""
        taken: list[tuple[int, EnvelopeBuilder]] = []
        if self._serial:
            last = [(UNTRACED if t == self._partitions else t, one) for t, one in enumerate(self._building) if one]
            taken = self._full + last
        self._building = [None] * (self._partitions + 1)
        self._full = []
        self.size = self.rows = 0
        return taken

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self, data: bytes, rows: Rows | RawRows, messages: list[tuple[int, int]], traced: bool) -> list[int]:
        """The rows of raw messages, of which `messages` has the coordinates: offset and timestamp (ms).

        `traced`: they have keys. Returns the rows that are too large.
        """
        p: cython.p_const_uchar = data
        starts: cython.const[cython.uint][::1] = rows.starts
        ends: cython.const[cython.uint][::1] = rows.ends
        resource_of: cython.const[cython.uint][::1] = rows.resource
        scope_of: cython.const[cython.uint][::1] = rows.scope
        keys: cython.const[cython.ulonglong][::1] = rows.keys
        message_of: cython.const[cython.uint][::1] = rows.message
        item_of: cython.const[cython.uint][::1] = rows.item
        resources: list[bytes] = rows.resources
        scopes: list[bytes] = rows.scopes
        row: cython.Py_ssize_t
        target: cython.Py_ssize_t
        length: cython.Py_ssize_t
        more: cython.Py_ssize_t
        headers: cython.Py_ssize_t
        end: cython.Py_ssize_t
        resource: cython.Py_ssize_t
        scope: cython.Py_ssize_t
        one: EnvelopeBuilder
        large: list[int] = []
        keyed: cython.bint = traced
        self._serial += 1
        for row in range(len(starts)):
            resource, scope = resource_of[row], scope_of[row]
            length = ends[row] - starts[row]
            if length + len(resources[resource]) + len(scopes[scope]) > self._max_row_bytes:
                large.append(row)
                continue
            target = keys[row] % self._partitions if keyed else self._partitions
            one = self._building[target] or self._begin(target)
            if one._serial != self._serial:
                one.begin(self._serial)
            headers = one.header_bytes(resource, resources, scope, scopes)
            more = _OVERHEAD + length + headers
            if one.rows and one.size + more > self._envelope_bytes + one._allowed:
                self._full.append((UNTRACED if target == self._partitions else target, one))
                one = self._begin(target)
                one.begin(self._serial)
                headers = one.header_bytes(resource, resources, scope, scopes)
                more = _OVERHEAD + length + headers
            if not one.rows and 2 * headers > self._envelope_bytes:
                one._allowed = headers
            one.head(resource, resources, scope, scopes)
            one.message(message_of[row], messages)
            if one.rows == len(one._ends):
                one.more_rows()
            end = one._end + length
            if end > len(one._bytes):
                one.more_bytes(end)
            if cython.compiled:
                memcpy(cython.address(one._bytes[one._end]), p + starts[row], length)
            else:
                one._body[one._end : end] = data[starts[row] : ends[row]]
            one._end = end
            one._ends[one.rows] = end
            one._resource_of[one.rows] = one._resource_here
            one._scope_of[one.rows] = one._scope_here
            one._message_of[one.rows] = one._message_here
            one._item_of[one.rows] = item_of[row]
            one._keys[one.rows] = keys[row]
            one.rows += 1
            one.size += more
            self.size += more
            self.rows += 1
        return large

    def _begin(self, target: int) -> EnvelopeBuilder:
        one = self._building[target] = EnvelopeBuilder()
        return one
