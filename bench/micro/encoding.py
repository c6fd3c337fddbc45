"""What remote write costs alone: bench/results/encoding.json. `python -m bench.micro.encoding`

Every label value of every row is another string, nothing is cached between rows, rounds or records. Steps, in CPU-s:
find the label sets in the records of a tick as Kafka has them (decompression included), write the `timeseries` fields,
and make requests of them (snappy).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from random import Random
from statistics import median
from typing import Any

from bench.measure import console, in_process, keep, table
from schemas.formats.write_request import Slices
from schemas.point import HistogramValue, Labels, Shape, Value
from schemas.sample import PackedChunk, SeriesBlock, Tick, find_record
from sinks.contract import Coordinates
from sinks.prometheus import SLICES_PER_REQUEST, Prometheus
from sinks.remote_write import write_series
from sinks.sample_item import SampleItem
from sinks.settings import Batch, Sink

LABELS = 10
ROWS = 100_000
ROUNDS = 7
NAMES = tuple(f"label_{number}_name" for number in range(LABELS))
NOON = 1_800_000_000_000  # ms
SHAPES = {
    "counter": Shape("counter", NAMES, (), 1),
    "histogram of 16 buckets": Shape("histogram", NAMES, tuple(float(2**exponent) for exponent in range(16)), 1),
}
COLUMNS = ("Series of", "Samples", "Find, µs a sample", "Write", "Request", "Write alone, samples/CPU-s", "All three")

out = console()


def labels(random: Random) -> Labels:
    """Ten strings of 16 characters that occur nowhere else."""
    return tuple(random.randbytes(8).hex() for _ in NAMES)


def records(shape: Shape, random: Random) -> list[bytes]:
    """The chunks of a tick of ROWS samples or a few more."""
    value: Value = 3
    if shape.kind == "histogram":
        counts = tuple(random.randrange(100) for _ in range(len(shape.bounds) + 1))
        value = HistogramValue(sum(counts), 0.5, counts)
    rows = [(labels(random), value) for _ in range(-(-ROWS // shape.series))]
    return Tick(1, NOON, 0, 1, [SeriesBlock("bench_total", shape, rows)]).encode()[1:-1]


def once(values: Sequence[bytes]) -> tuple[int, list[float]]:
    """Samples, and CPU seconds of the three steps."""
    sink = Prometheus(Sink(endpoint="http://127.0.0.1/"))
    most, most_bytes = (limit // SLICES_PER_REQUEST for limit in (Batch().max_items, Batch().max_bytes))
    times = [time.process_time()]
    chunks = [chunk for value in values if isinstance(chunk := find_record(value), PackedChunk)]
    times.append(time.process_time())
    slices = []
    for chunk in chunks:
        into = Slices(1, most, most_bytes)
        for block in chunk.blocks:
            write_series(block, into, chunk.time_ms)
        slices += into.cut()
    times.append(time.process_time())
    origin = Coordinates("samples", 0, 0, 0, 0)
    items = [
        SampleItem(origin=origin, size=len(fields), rows=len(ends), series=fields, ends=ends, numbers=numbers)
        for _, fields, ends, numbers in slices
    ]
    began = time.process_time()
    for first in range(0, len(items), SLICES_PER_REQUEST):
        sink.request(items[first : first + SLICES_PER_REQUEST])
    spent = time.process_time() - began
    return sum(item.rows for item in items), [times[1] - times[0], times[2] - times[1], spent]


def measured(shape: Shape) -> dict[str, Any]:
    """Medians of all rounds, each of strings of its own."""
    random = Random(11)
    rounds = [once(records(shape, random)) for _ in range(ROUNDS)]
    samples = rounds[0][0]
    find, write, request = (median(times[step] for _, times in rounds) for step in range(3))
    return {"samples": samples, "find": find, "write": write, "request": request}


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    shown = []
    for name, found in figures["cases"].items():
        steps = [found[step] for step in ("find", "write", "request")]
        per_second = (found["samples"] / seconds for seconds in (found["write"], sum(steps)))
        each = [f"{seconds / found['samples'] * 1e6:.2f}" for seconds in steps]
        shown.append([name, f"{found['samples']:,}", *each, *(f"{rate:,.0f}" for rate in per_second)])
    return shown


def main() -> None:
    """Measure, print, save."""
    figures = in_process(labels=LABELS, rounds=ROUNDS)
    figures["cases"] = {name: measured(shape) for name, shape in SHAPES.items()}
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "encoding", figures)


if __name__ == "__main__":
    main()
