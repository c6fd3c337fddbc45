from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ProtocolError
from schemas.packing import pack, unpack
from schemas.point import HistogramValue, Labels, Shape, Value, decode_values
from schemas.sample import (
    CHUNK_BYTES,
    PackedChunk,
    SeriesBlock,
    Tick,
    TickChunk,
    TickFooter,
    TickHeader,
    decode_record,
    encode_record,
    find_record,
    read_tick,
)
from tests.processors.metric_strategies import COUNTER, HISTOGRAM, labels, values
from tests.repository import ROOT
from tests.schemas.examples import TICK

GOLDEN = ROOT / "schemas/versions/v1"


@st.composite
def ticks(draw: st.DrawFn) -> Tick:
    blocks = []
    for metric, shape in (("calls_total", COUNTER), ("duration", HISTOGRAM)):
        rows = draw(st.lists(st.tuples(labels, values(shape)), max_size=8))
        stale = draw(st.lists(labels, max_size=3))
        if rows or stale:
            blocks.append(SeriesBlock(metric, shape, rows, stale))
    number, time, points = (draw(st.integers(0, 1 << 41)) for _ in range(3))
    return Tick(number, time, points, draw(st.integers(1, 64)), blocks)


@given(ticks())
def test_what_a_sink_finds_is_what_was_written(tick: Tick) -> None:
    for value in tick.encode():
        whole, found = decode_record(value), find_record(value)
        if not isinstance(whole, TickChunk):
            assert found == whole
            continue
        assert isinstance(found, PackedChunk)
        assert (found.number, found.time_ms, found.index, found.since_ms) == (
            whole.number, whole.time_ms, whole.index, whole.since_ms
        )  # fmt: skip
        for block, wanted in zip(found.blocks, whole.blocks, strict=True):
            values = decode_values(block.shape, block.rows, 1)
            rows = [(block.rows.texts(row), value) for row, value in enumerate(values)]
            stale = [block.stale.texts(row) for row in range(len(block.stale))]
            assert (block.metric, block.shape, rows, stale, block.fresh) == (
                wanted.metric, wanted.shape, wanted.rows, wanted.stale, wanted.fresh
            )  # fmt: skip


@given(ticks())
def test_read_is_the_inverse_of_encode(tick: Tick) -> None:
    assert read_tick(tick.encode()) == tick


@given(ticks(), ticks())
def test_what_follows_a_tick_is_left(tick: Tick, more: Tick) -> None:
    values = iter([*tick.encode(), *more.encode()])
    assert read_tick(values) == tick
    assert read_tick(values) == more


@given(ticks(), st.data())
def test_an_incomplete_or_disordered_tick_is_refused(tick: Tick, data: st.DataObject) -> None:
    records = tick.encode()
    at = data.draw(st.integers(0, len(records) - 1))
    damaged = data.draw(
        st.sampled_from([records[:at], records[:at] + records[at + 1 :], records[: at + 1] + records[at:]])
    )
    if damaged[: len(records)] == records:
        return  # a second footer follows the tick: not part of it
    with pytest.raises(ProtocolError):
        read_tick(damaged)


def test_a_tick_interrupted_by_another_is_refused() -> None:
    header, *rest = TICK.encode()
    other = encode_record(TickFooter(8, 4))
    with pytest.raises(ProtocolError, match="interrupted"):
        read_tick([header, other, *rest])


def test_ten_thousand_histograms_are_cut_into_chunks_of_a_stated_size() -> None:
    shape = Shape("histogram", ("service_name", "span_name"), tuple(float(bound) for bound in range(16)))
    rows: list[tuple[Labels, Value]] = [
        ((f"service-{i}", "x" * 500), HistogramValue(17, float(i), (1,) * 17)) for i in range(10_000)
    ]
    tick = Tick(1, 1, 1, 1, [SeriesBlock("d", shape, rows, [("é" * 2048, "")] * 100)])
    records = tick.encode()
    assert len(records) > 10
    assert max(map(len, records)) < CHUNK_BYTES
    assert read_tick(records) == tick


def test_a_chunk_is_read_without_its_header() -> None:
    chunk = decode_record(TICK.encode()[1])
    assert chunk == TickChunk(TICK.number, TICK.time_ms, 0, TICK.blocks)


def test_records_of_version_1_are_read_for_ever() -> None:
    names = ("sample_header.bin", "sample_chunk.bin", "sample_footer.bin")
    records = [(GOLDEN / name).read_bytes() for name in names]
    assert decode_record(records[0]) == TickHeader(7, 1_700_000_015_000, 4711, 4, 1)
    assert read_tick(records) == TICK


@given(st.binary(max_size=64))
def test_foreign_bytes_are_refused(value: bytes) -> None:
    for read in (decode_record, find_record):
        with pytest.raises(ProtocolError):
            read(value)


def test_another_version_is_refused() -> None:
    for value in TICK.encode():
        for read in (decode_record, find_record):
            with pytest.raises(ProtocolError, match="version 3"):
                read(pack(unpack(value) | {"v": 3}))
