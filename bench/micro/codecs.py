"""What compressing costs by codec and level: bench/results/codecs.json. `python -m bench.micro.codecs`

The shop's messages of 200 spans in fetches of a MB: *envelopes* as `ingest` writes them of eight fetches, to four
output partitions (schemas/packing.py), and *raw batches* as `sample` keeps one of each fetch (schemas/raw_batch.py).
Each is compressed and decompressed alone; rounds of all codecs alternate, and the best of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cramjam
import zstandard

from bench.measure import console, in_process, keep, table
from bench.micro.regroup import START, fetches
from processors.regroup import Regroup
from schemas.packing import unpacked
from schemas.raw_batch import Record

LEVELS = (3, 1, -1, -5)  # of zstd; its own default first, then what ingest uses
SPANS_PER_MESSAGE = 200
PARTITIONS = 4
FETCHES_A_FLUSH = 8
ROUNDS = 7
LOADS = ("envelopes", "raw batches")
COLUMNS = (
    "Codec",
    *("Envelopes: µs to compress a span", "To decompress", "Bytes a span"),
    *("Raw batches: µs to compress a span", "To decompress", "Bytes a span"),
)

out = console()


class Codec(NamedTuple):
    """Both ways."""

    compress: Callable[[bytes], Any]
    decompress: Callable[[Any], Any]


def codecs() -> dict[str, Codec]:
    """By what the table calls them."""
    decompress = zstandard.ZstdDecompressor().decompress
    zstd = {
        f"zstd, level {level}": Codec(zstandard.ZstdCompressor(level=level).compress, decompress) for level in LEVELS
    }
    lz4 = Codec(cramjam.lz4.compress_block, cramjam.lz4.decompress_block)
    return {**zstd, "lz4, a block": lz4, "snappy": Codec(cramjam.snappy.compress_raw, cramjam.snappy.decompress_raw)}


def envelopes(fetched: Sequence[Sequence[Record]]) -> tuple[list[bytes], int]:
    """Packed and not compressed; and how many spans are in them."""
    regroup = Regroup("raw", 0, "traces", "otlp_proto", PARTITIONS, 16 << 20, 1 << 20)
    found: list[bytes] = []
    spans = 0
    for first in range(0, len(fetched), FETCHES_A_FLUSH):
        for records in fetched[first : first + FETCHES_A_FLUSH]:
            regroup.add_all(records)
        flushed = regroup.flush(START, {"raw": 1})
        spans += flushed.rows
        found += [unpacked(value) for values in flushed.envelopes.values() for value in values]
    return found, spans


def once(codec: Codec, given: Sequence[bytes]) -> tuple[int, int, int]:
    """ns of CPU to compress all and to decompress all, and bytes when they are compressed."""
    began = time.process_time_ns()
    small = [codec.compress(value) for value in given]
    compressed = time.process_time_ns()
    for value in small:
        codec.decompress(value)
    return compressed - began, time.process_time_ns() - compressed, sum(map(len, small))


def measure(given: Sequence[bytes], spans: int) -> dict[str, dict[str, float]]:
    """µs and bytes a span."""
    compared = codecs()
    for name, codec in compared.items():
        assert all(bytes(codec.decompress(codec.compress(value))) == value for value in given), name
    rounds = [{name: once(codec, given) for name, codec in compared.items()} for _ in range(ROUNDS)]
    found = {}
    for name in compared:
        compress, decompress, sizes = zip(*(each[name] for each in rounds), strict=True)
        found[name] = {
            "compress": min(compress) / 1000 / spans,
            "decompress": min(decompress) / 1000 / spans,
            "bytes": sizes[0] / spans,
        }
    return found


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    loads = [figures[load] for load in LOADS]
    names = loads[0]["codecs"]
    shown = [[name, *(cell for load in loads for cell in _cells(load["codecs"][name]))] for name in names]
    return [*shown, ["none", *(cell for load in loads for cell in ("–", "–", f"{load['bytes']:.0f}"))]]


def _cells(found: Mapping[str, float]) -> list[str]:
    return [f"{found['compress']:.2f}", f"{found['decompress']:.2f}", f"{found['bytes']:.0f}"]


def main() -> None:
    """Measure, print, save."""
    fetched = fetches(SPANS_PER_MESSAGE)
    packed, spans = envelopes(fetched)
    bodies = [b"".join(value for _, _, value in records) for records in fetched]
    figures = in_process(spans=spans, rounds=ROUNDS)
    for load, given in zip(LOADS, (packed, bodies), strict=True):
        size = sum(map(len, given)) / spans
        figures[load] = {"count": len(given), "bytes": size, "codecs": measure(given, spans)}
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "codecs", figures)


if __name__ == "__main__":
    main()
