"""The codecs that are compared have among them what `ingest` writes and what `sample` keeps."""

from __future__ import annotations

from bench.load import Load, messages
from bench.micro.codecs import COLUMNS, LOADS, codecs, measure, rows
from schemas.packing import compressed
from schemas.raw_batch import RawReader

SPANS = 2_000
VALUES = [message.value for message in messages(Load(SPANS, 0, logs_per_span=0))]


def test_level_1_of_zstd_is_what_envelopes_are_written_with() -> None:
    assert [codecs()["zstd, level 1"].compress(value) for value in VALUES] == [compressed(value) for value in VALUES]


def test_a_block_of_lz4_is_what_a_raw_batch_waits_as() -> None:
    records = [(offset, 1_000, value) for offset, value in enumerate(VALUES)]
    batch = RawReader("raw", 0, 1, "traces", 1 << 20, 1 << 20).read(records)
    assert (source := batch.shrunk().source) is not None
    assert [block for _, block in source.packed.blocks] == [bytes(codecs()["lz4, a block"].compress(batch.rows.body))]


def test_every_codec_has_a_row_and_gives_back_what_it_got() -> None:
    found = measure(VALUES, SPANS)
    plain = sum(map(len, VALUES)) / SPANS
    assert all(0 < each["bytes"] < plain / 2 for each in found.values())
    shown = rows({load: {"codecs": found, "bytes": plain} for load in LOADS})
    assert [row[0] for row in shown] == [*codecs(), "none"]
    assert {len(row) for row in shown} == {len(COLUMNS)}
