"""Raw messages taken apart in one walk: the same rows, headers and refusals as message by message.

test_otlp_scan.py holds single messages against protobuf.
"""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.otlp_scan import RawRows
from tests.schemas.otlp_wire import LOG_RECORDS, SPANS, bytes_field, data_of, mutated

SIGNALS = ("traces", "logs")
MESSAGES = {"traces": data_of(SPANS), "logs": data_of(LOG_RECORDS)}
Row = tuple[int, int, bytes, bytes, bytes]  # message, item, bytes of the row, of its resource and scope


Found = tuple[dict[str, list[Row]], list[int], list[int]]


def one_by_one(messages: list[bytes], signal: str) -> Found:
    """Rows by where they belong, the keys of those in `rows`, and malformed messages: message by message."""
    found: dict[str, list[Row]] = {"rows": [], "nameless": [], "spanless": []}
    keys: list[int] = []
    bad: list[int] = []
    for number, data in enumerate(messages):
        rows, own_keys, own_bad = together([data], signal)
        for kind, own in rows.items():
            found[kind] += [(number, *row[1:]) for row in own]
        keys += own_keys
        bad += [number for _ in own_bad]
    return found, keys, bad


def together(messages: list[bytes], signal: str) -> Found:
    """The same in one scan."""
    data, ends = b"".join(messages), array("I")
    for value in messages:
        ends.append((ends[-1] if ends else 0) + len(value))
    raw = RawRows(signal)
    raw.scan(b"\x01", array("I", [1]))  # what was scanned before does not matter
    raw.scan(data, ends)
    found: dict[str, list[Row]] = {}
    for kind, rows in (("rows", raw), ("nameless", raw.nameless), ("spanless", raw.spanless)):
        columns = zip(rows.message, rows.item, rows.starts, rows.ends, rows.resource, rows.scope, strict=True)
        found[kind] = [(m, i, data[a:z], raw.resources[of], raw.scopes[scope]) for m, i, a, z, of, scope in columns]
        assert rows is raw or not any(rows.keys)
    assert len(set(raw.resources)) == len(raw.resources)
    assert len(set(raw.scopes)) == len(raw.scopes)
    assert all(detail for _, detail in raw.bad)
    return found, list(raw.keys), [number for number, _ in raw.bad]


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_messages_are_taken_apart_as_one_by_one(signal: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.one_of(MESSAGES[signal], mutated(MESSAGES[signal])), max_size=4))
    assert together(drawn, signal) == one_by_one(drawn, signal)


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_many_rows_make_the_columns_grow(signal: str, data: st.DataObject) -> None:
    row = data.draw(SPANS if signal == "traces" else LOG_RECORDS)
    part = data.draw(bytes_field(2, st.just(row))) * 600
    scope = data.draw(bytes_field(2, st.just(part)))
    message = data.draw(bytes_field(1, st.just(scope)))
    assert together([message, message], signal) == one_by_one([message, message], signal)
