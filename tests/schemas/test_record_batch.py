"""Records of a batch in columns: the same as aiokafka reads, or a clear error, whatever the bytes are."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from aiokafka.record import default_records

from schemas.columns import moved
from schemas.raw_message import UnreadBatch
from schemas.raw_records import Packed, RawRecord, Records, Source
from schemas.reasons import Reason
from schemas.record_batch import RecordColumns

HEADER = default_records._DefaultRecordBatchPy.HEADER_STRUCT.size
FIRST, BASE = 1_700_000_000_000, 1 << 40
Given = list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def drawn(rng: random.Random, count: int) -> Given:
    """Offsets as after compaction, timestamps in any order, keys and headers of any kind."""
    offset, found = 0, Given()
    for _ in range(count):
        headers = [(f"h{n}", rng.choice([None, b"", b"v" * 200])) for n in range(rng.choice([0, 0, 1, 3]))]
        value = rng.choice([None, b"", rng.randbytes(rng.randrange(1, 300))])
        found.append(
            (offset, FIRST + rng.randrange(-(10**6), 10**6), rng.choice([None, b"", b"k" * 70]), value, headers)
        )
        offset += rng.choice([1, 1, 1, 7])
    return found


def batch(given: Given) -> bytearray:
    """As a producer writes it, uncompressed, and a broker stores it."""
    own = default_records.DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for record in given:
        own.append(*record)
    data: bytearray = own.build()
    data[:8] = BASE.to_bytes(8, "big")
    return data


def theirs(data: bytes) -> list[RawRecord]:
    """What aiokafka reads."""
    found = default_records.DefaultRecordBatch(data)
    return [RawRecord(each.offset, each.timestamp, each.value or b"") for each in found]


def plain(data: bytes, count: int, base: int, first: int, last: int) -> list[RawRecord] | None:
    """The records of a batch by the letter of the format; None: they are not just that."""
    least = 0
    at, end = 0, len(data)

    def number() -> int:
        nonlocal at
        value = shift = 0
        while shift < 70:
            if at >= end:
                raise ValueError
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                value %= 1 << 64
                return value >> 1 ^ -(value & 1)
            shift += 7
        raise ValueError

    def some() -> bytes:
        nonlocal at
        size = max(0, number())
        if size > end - at:
            raise ValueError
        at += size
        return data[at - size : at]

    def signed(value: int) -> int:
        return (value + (1 << 63)) % (1 << 64) - (1 << 63)

    found = []
    try:
        for _ in range(count):
            end = len(data)
            size = max(0, number())
            if size > end - at:
                raise ValueError
            end, at = at + size, at + 1
            timestamp, offset = signed(first + number()), number()
            if not least <= offset <= last:
                raise ValueError
            least = offset + 1
            some()
            found.append(RawRecord(base + offset, timestamp, some()))
            if at >= end:
                raise ValueError
            at = end
    except ValueError:
        return None
    return found if at == len(data) else None


def head(data: bytes | bytearray) -> Any:
    """Its header."""
    return default_records._DefaultRecordBatchPy(data)


def by_the_letter(data: bytes) -> list[RawRecord] | None:
    """`plain` of a batch."""
    own = head(data)
    return plain(data[HEADER:], own._num_records, BASE, own.first_timestamp, own.last_offset_delta)


def ours(data: bytes) -> list[RawRecord] | None:
    count, first, last = head(data)._num_records, head(data).first_timestamp, head(data).last_offset_delta
    try:
        found = Records.of_batch(bytes(data[HEADER:]), count, BASE, last, first, False, None)
    except ValueError:
        return None
    assert list(found) == [found[number] for number in range(len(found))]
    assert not found or found.shortest <= min(found.lengths()) <= max(found.lengths()) <= found.longest
    return list(found)


def test_records_are_read_as_aiokafka_reads_them() -> None:
    rng = random.Random(1)
    for count in (0, 1, 2, 50, 300):
        for _ in range(20):
            given = drawn(rng, count)
            data = bytes(batch(given))
            expected = [(BASE + at, time, value or b"") for at, time, _, value, _ in given]
            assert ours(data) == theirs(data) == expected
            assert by_the_letter(data) == expected


def test_a_damaged_batch_is_read_by_the_letter_or_not_at_all() -> None:
    """What is compiled in aiokafka reads beyond the end of some of these."""
    rng = random.Random(2)
    read = refused = 0
    for _ in range(20_000):
        data = batch(drawn(rng, rng.randrange(1, 6)))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(HEADER, len(data))
            if rng.random() < 0.7:
                data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            elif rng.random() < 0.5:
                del data[at:]
                break
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 12))
        found = ours(bytes(data))
        assert found == by_the_letter(bytes(data))
        read, refused = read + (found is not None), refused + (found is None)
    assert min(read, refused) > 1_000, "both were tried"


@pytest.mark.parametrize("count", [-1, 3, 1 << 31, 1 << 40])
def test_more_records_than_there_are_bytes_cost_no_memory(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} records in 10 bytes"):
        RecordColumns().scan(bytes(10), count, 0, 0, 9)


def test_times_are_the_brokers_where_the_topic_says_so() -> None:
    data = bytes(batch(drawn(random.Random(3), 5)))[HEADER:]
    assert {each.timestamp for each in Records.of_batch(data, 5, 0, 99, 77, True, None)} == {77}


def test_sums_beyond_64_bits_are_cut() -> None:
    """As C does: nobody who writes a record may stop a partition with its timestamp."""
    data = bytes(batch([(0, FIRST, None, b"x", []), (1, FIRST + 5, None, b"y", [])]))[HEADER:]
    first, second = Records.of_batch(data, 2, 0, 1, (1 << 63) - 1, False, None)
    assert (first.timestamp, second.timestamp) == ((1 << 63) - 1, -(1 << 63) + 4)


Made = Callable[[list[tuple[int, int, bytes | None]]], Records]


def of_batch(given: list[tuple[int, int, bytes | None]]) -> Records:
    data = bytes(batch([(offset, time, None, value, []) for offset, time, value in given]))[HEADER:]
    last = given[-1][0]
    return Records.of_batch(data, len(given), 0, last, given[0][1], False, (lambda block: block, data))


@pytest.mark.parametrize("make", [Records.of, of_batch])
def test_pieces_and_what_is_joined_are_the_same_records(make: Made) -> None:
    given: list[tuple[int, int, bytes | None]] = [(2 * n, FIRST + n, bytes([n]) * (n % 4)) for n in range(30)]
    records = make(given)
    assert list(records) == given
    assert records.after == 59
    assert list(records.places) == [(offset, time) for offset, time, _ in given]
    assert list(records.since(7)) == [each for each in given if each[0] >= 7]
    assert list(records.since(100)) == []
    assert records[:] is records, "no copy"
    for cuts in ((0, 30), (0, 1, 30), (0, 10, 20, 30), (0, 5, 5, 29, 30)):
        pieces = [records[first:after] for first, after in pairwise(cuts)]
        assert [each for piece in pieces for each in piece] == given
        assert list(Records.joined(pieces)) == given
        for piece in pieces:
            assert len(piece.data) <= len(records.data)
            if (source := piece.source) is not None:
                assert source.read() == piece.data
    assert not records.are_within(1 << 20), "there is an empty one"
    assert make(given[1:4]).are_within(3)
    assert not make(given[1:4]).are_within(2)


def test_what_was_not_read_keeps_its_place() -> None:
    unread = UnreadBatch.of(b"bytes", "zstd", Reason.BATCH_TOO_LARGE, "too large")
    records = Records.joined([Records.of([(1, 0, b"a"), (2, 0, unread)]), Records.of([(3, 0, unread), (4, 0, b"d")])])
    assert [each.value for each in records] == [b"a", b"bytes", b"bytes", b"d"]
    assert [type(each.value) for each in records[1:4]] == [UnreadBatch, UnreadBatch, bytes]
    assert records[-2].value is unread
    assert not records.are_within(1 << 20)
    assert records[:1].are_within(1) or records.shortest == 0, "a piece may be taken for one that has to be looked at"


def test_what_is_joined_has_the_source_of_all_of_it_or_none() -> None:
    """Of a batch whose last records compaction has taken there may be nothing left to read."""
    one, other = of_batch([(0, FIRST, b"a"), (1, FIRST, b"bc")]), of_batch([(5, FIRST, b"d"), (6, FIRST, b"ef")])
    whole = Records.joined([one, other])
    assert whole.source is not None
    assert whole.source.read() == whole.data
    for piece in (one.since(2), one.since(1), one[:1]):
        assert piece.source is not None
        assert piece.source.read() == piece.data
        for several in ([piece, other], [other, piece]):
            assert Records.joined(several).source is None


def test_a_source_is_unpacked_once_for_all_its_pieces() -> None:
    asked = []

    def unpack(block: bytes) -> bytes:
        asked.append(block)
        return block * 2

    packed = Packed([(unpack, b"abc"), (unpack, b"de")], 10)
    first, second = Source(packed, 0, 4), Source(packed, 4, 10)
    assert (first.size, second.size) == (2, 3)
    assert first.read() + second.read() == b"abcabcdede"
    assert asked == [b"abc", b"de"]
    assert Source(Packed([(unpack, b"f")], 2), 0, 2).read() == b"ff"
    assert first.read() == b"abca"
    assert asked == [b"abc", b"de", b"f", b"abc", b"de"], "of all that waits one alone is unpacked"


def test_positions_are_moved() -> None:
    def column() -> Iterator[Any]:
        yield from (5, 10, 4_000_000_000)

    assert moved(array("I", column()), 7).tolist() == [12, 17, 4_000_000_007]
    assert moved(array("I", column()), -5).tolist() == [0, 5, 3_999_999_995]
