"""Hypothesis strategies for OTLP on the wire, as odd as protobuf allows.

A message is drawn from a small schema and written with fields in any order, repeated, with varints longer than need
be, and with unknown fields of every wire type in between.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

VARINT, FIXED64, LEN, GROUP, END, FIXED32 = range(6)
ODD_NUMBERS = (19, 2000, 4000, (1 << 29) - 1)  # field numbers that OTLP does not use


def varint(value: int, padding: int = 0) -> bytes:
    """A varint with `padding` bytes more than it needs."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


PADDING = st.sampled_from((0, 0, 0, 0, 1, 2))
NUMBERS = st.one_of(
    st.integers(0, 200), st.sampled_from((1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)), st.integers(0, 3)
)
TEXTS = st.one_of(
    st.sampled_from((b"http.route", b"error", b"k", b"")), st.text(max_size=8).map(str.encode), st.just(b"x" * 200)
)
IDS = st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.binary(max_size=17))


def tag(number: int, kind: int) -> st.SearchStrategy[bytes]:
    """A tag of at most 5 bytes: what protobuf's parsers accept."""
    plain = number << 3 | kind
    return PADDING.map(lambda padding: varint(plain, min(padding, 5 - len(varint(plain)))))


def number_field(number: int, values: st.SearchStrategy[int] = NUMBERS) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda head, value, padding: head + varint(value, min(padding, 10 - len(varint(value)))),
        tag(number, VARINT), values, PADDING,
    )  # fmt: skip


def fixed64_field(number: int) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda head, value: head + struct.pack("<Q", value), tag(number, FIXED64), st.integers(0, (1 << 64) - 1)
    )


def fixed32_field(number: int) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda head, value: head + struct.pack("<I", value), tag(number, FIXED32), st.integers(0, (1 << 32) - 1)
    )


def bytes_field(number: int, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda head, value, padding: head + varint(len(value), padding) + value, tag(number, LEN), values, PADDING
    )


def group_field(number: int) -> st.SearchStrategy[bytes]:
    inner = st.lists(
        st.one_of(number_field(1), bytes_field(2, IDS), st.just(varint(3 << 3 | GROUP) + varint(3 << 3 | END))),
        max_size=2,
    ).map(b"".join)
    return st.builds(lambda start, body, end: start + body + end, tag(number, GROUP), inner, tag(number, END))


def unknown_fields() -> st.SearchStrategy[bytes]:
    return st.sampled_from(ODD_NUMBERS).flatmap(
        lambda number: st.one_of(
            number_field(number),
            fixed64_field(number),
            fixed32_field(number),
            bytes_field(number, IDS),
            group_field(number),
        )
    )


def message(*fields: st.SearchStrategy[bytes], size: int = 5) -> st.SearchStrategy[bytes]:
    """Any of the fields in any order, any number of times."""
    parts = st.lists(st.one_of(*fields, *fields, unknown_fields()), max_size=size)

    @st.composite  # for its short name: the nested strategy would print as megabytes
    def fields_in_any_order(draw: st.DrawFn) -> bytes:
        return b"".join(draw(parts))

    return fields_in_any_order()


def any_values() -> st.SearchStrategy[bytes]:
    scalars = (
        bytes_field(1, TEXTS), number_field(2), number_field(3), fixed64_field(4), bytes_field(7, IDS), number_field(8),
    )  # fmt: skip
    return st.recursive(
        message(*scalars, size=2),
        lambda inner: message(
            *scalars,
            bytes_field(5, message(bytes_field(1, inner))),
            bytes_field(6, bytes_field(1, pairs(inner))),
            size=2,
        ),
        max_leaves=4,
    )


def pairs(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    key, value = bytes_field(1, TEXTS), bytes_field(2, values)
    plain = st.builds(bytes.__add__, key, value)
    return st.one_of(plain, plain, plain, message(key, value, number_field(3)))


ATTRIBUTES = pairs(any_values())
SPANS = message(
    bytes_field(1, IDS), bytes_field(2, IDS), bytes_field(3, TEXTS), bytes_field(4, IDS), bytes_field(5, TEXTS),
    number_field(6), fixed64_field(7), fixed64_field(8), bytes_field(9, ATTRIBUTES), bytes_field(9, ATTRIBUTES),
    number_field(10), bytes_field(11, message(fixed64_field(1), bytes_field(2, TEXTS), bytes_field(3, ATTRIBUTES))),
    bytes_field(13, message(bytes_field(1, IDS), bytes_field(2, IDS), fixed32_field(6))),
    bytes_field(15, message(bytes_field(2, TEXTS), number_field(3), number_field(3, st.integers(0, 2)), size=2)),
    fixed32_field(16),
    fixed32_field(16), size=12,
)  # fmt: skip
LOG_RECORDS = message(
    fixed64_field(1), number_field(2), bytes_field(3, TEXTS), bytes_field(5, any_values()), bytes_field(6, ATTRIBUTES),
    fixed32_field(8), bytes_field(9, IDS), bytes_field(10, IDS), fixed64_field(11), bytes_field(12, TEXTS), size=9,
)  # fmt: skip
RESOURCES = message(bytes_field(1, ATTRIBUTES), number_field(2), size=3)
SCOPES = message(bytes_field(1, TEXTS), bytes_field(2, TEXTS), bytes_field(3, ATTRIBUTES), size=3)


def data_of(rows: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """TracesData or LogsData with such rows."""
    scope_rows = message(bytes_field(1, SCOPES), bytes_field(2, rows), bytes_field(2, rows), bytes_field(3, TEXTS))
    part = message(
        bytes_field(1, RESOURCES), bytes_field(2, scope_rows), bytes_field(2, scope_rows), bytes_field(3, TEXTS), size=4
    )
    return message(bytes_field(1, part), size=3)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """A message that was cut, or had bytes changed, removed, inserted or doubled."""
    data = draw(source)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        match draw(st.sampled_from(("cut", "change", "remove", "insert", "double"))):
            case "cut":
                data = data[:at]
            case "change":
                data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
            case "remove":
                data = data[:at] + data[at + length :]
            case "insert":
                data = data[:at] + draw(st.binary(max_size=3)) + data[at:]
            case _:
                data = data[:at] + data[at : at + length] + data[at:]
    return data
