"""Raw messages taken apart in one walk: the same rows, headers and refusals as message by message.

test_otlp_scan.py holds single messages against protobuf.
"""

from __future__ import annotations

from array import array
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.otlp_scan import RawRows
from tests.schemas.otlp_wire import LOG_RECORDS, SPANS, bytes_field, data_of, mutated, varint

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


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(value), 0) + value


def of_headers(rng: Random) -> list[bytes]:
    """Messages whose resources and scopes come again and again: alike but for some bytes, some before, some behind."""
    resources = [_field(1, _field(1, b"\x0a\x01k\x12\x12\x0a\x10" + b"pod-of-%08d" % pod)) for pod in range(9)]
    resources += [resources[0] + _field(9, b"x"), _field(1, b""), b"", resources[0] * 2]
    behind = [b"", _field(3, b"a schema"), _field(3, b"another!")]
    scopes = [_field(1, _field(1, name)) for name in (b"library", b"librarz", b"")] + [b""]
    span = _field(2, _field(1, bytes(range(16))) + _field(2, bytes(range(8))))

    def part() -> bytes:
        between = rng.choice([b"", b"", _field(3, b"between")])
        rows = [rng.choice(scopes) + span + between * rng.randrange(2) + span + rng.choice(behind) for _ in range(2)]
        inner = [_field(2, row) for row in rows[: rng.randrange(3)]]
        return _field(1, rng.choice(resources) + between.join(inner) + rng.choice(behind))

    return [b"".join(part() for _ in range(rng.randrange(1, 4))) for _ in range(rng.randrange(1, 40))]


def test_headers_that_come_again_are_read_as_the_first_time() -> None:
    """Damaged ones in between are refused all the same."""
    rng, refused = Random(1), 0
    for _ in range(300):
        messages = of_headers(rng)
        for number in rng.sample(range(len(messages)), k=len(messages) // 3):
            damaged = bytearray(messages[number])
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            messages[number] = bytes(damaged)
        found = together(messages, "traces")
        assert found == one_by_one(messages, "traces")
        refused += len(found[2])
    assert refused > 300
