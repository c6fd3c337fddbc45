"""Raw messages taken apart in one walk: the same rows, headers and refusals as message by message with protobuf."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Malformed
from schemas.ids import trace_key
from schemas.otlp_scan import RawRows, Rows, split_logs, split_traces
from tests.schemas.otlp_wire import LOG_RECORDS, SPANS, bytes_field, data_of, mutated, varint

Split = Callable[[bytes], Rows]
SIGNALS: dict[str, Split] = {"traces": split_traces, "logs": split_logs}
MESSAGES = {"traces": data_of(SPANS), "logs": data_of(LOG_RECORDS)}
Row = tuple[int, int, bytes, bytes, bytes]  # message, item, bytes of the row, of its resource and scope


def whole(identifier: bytes, size: int) -> bool:
    return len(identifier) == size and any(identifier)


def one_by_one(messages: list[bytes], signal: str) -> tuple[dict[str, list[Row]], list[int], list[int]]:
    """Rows by where they belong, the keys of those in `rows`, and malformed messages: message by message."""
    found: dict[str, list[Row]] = {"rows": [], "nameless": [], "spanless": []}
    keys, bad = [], []
    for number, data in enumerate(messages):
        try:
            rows = SIGNALS[signal](data)
        except Malformed:
            bad.append(number)
            continue
        if not rows.resources:
            bad.append(number)
        for item, (start, end) in enumerate(zip(rows.starts, rows.ends, strict=True)):
            headers = rows.resources[rows.resource[item]], rows.scopes[rows.scope[item]]
            kind = "rows"
            if not whole(rows.trace_ids[item], 16):
                kind = "nameless"
            elif signal == "traces" and not whole(rows.span_ids[item], 8):
                kind = "spanless"
            else:
                keys.append(trace_key(rows.trace_ids[item]))
            found[kind].append((number, item, data[start:end], *headers))
    return found, keys, bad


def together(messages: list[bytes], signal: str) -> tuple[dict[str, list[Row]], list[int], list[int]]:
    """The same by `RawRows`."""
    data, ends = b"".join(messages), array("I")
    for value in messages:
        ends.append((ends[-1] if ends else 0) + len(value))
    raw = RawRows(signal)
    raw.scan(b"\x01", array("I", [1]))  # what was scanned before does not matter
    raw.scan(data, ends)
    columns = zip(raw.message, raw.item, raw.starts, raw.ends, raw.resource, raw.scope, strict=True)
    found: dict[str, list[Row]] = {}
    for kind, rows in (("rows", columns), ("nameless", raw.nameless), ("spanless", raw.spanless)):
        found[kind] = [(m, i, data[a:z], raw.resources[of], raw.scopes[scope]) for m, i, a, z, of, scope in rows]
    assert len(set(raw.resources)) == len(raw.resources)
    assert len(set(raw.scopes)) == len(raw.scopes)
    assert all(detail for _, detail in raw.bad)
    return found, list(raw.keys), [number for number, _ in raw.bad]


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_messages_are_taken_apart_as_one_by_one(signal: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.one_of(MESSAGES[signal], mutated(MESSAGES[signal])), max_size=4))
    assert together(drawn, signal) == one_by_one(drawn, signal)


def test_values_nest_as_deeply_as_protobuf_allows() -> None:
    """An array in an array in … the body of a log."""

    def nested(depth: int) -> bytes:
        value = b""
        for field in (*(1, 5) * depth, 5, 2, 2, 1):  # AnyValue, ArrayValue, …; LogRecord, ScopeLogs, ResourceLogs
            value = bytes((field << 3 | 2,)) + varint(len(value)) + value
        return value

    found = [nested(depth) for depth in range(40, 56)]
    _, _, bad = together(found, "logs")
    assert 0 < len(bad) < len(found)
    assert together(found, "logs") == one_by_one(found, "logs")


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_many_rows_make_the_columns_grow(signal: str, data: st.DataObject) -> None:
    row = data.draw(SPANS if signal == "traces" else LOG_RECORDS)
    part = data.draw(bytes_field(2, st.just(row))) * 600
    scope = data.draw(bytes_field(2, st.just(part)))
    message = data.draw(bytes_field(1, st.just(scope)))
    assert together([message, message], signal) == one_by_one([message, message], signal)
