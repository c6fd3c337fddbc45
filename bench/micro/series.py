"""What a point costs the aggregate: ns, the best of several rounds. `python -m bench.micro.series`

What a series costs it from tick to tick, one point each: ns of process CPU to count it, to gather the tick, to pack and
compress it. One load has ten labels as in bench.series, one is OTLP metrics as in bench.micro.otlp_points: readings.

And what it holds: bytes per label set and per label that refuses values, by the number of values that came.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from timeit import default_timer

from bench.micro import otlp_points
from bench.series import Options, counted
from processors.cardinality import Limits
from processors.metric_points import MetricPoints, Naming
from processors.series import SeriesStore
from processors.ticks import Ticks
from schemas.point import HistogramValue, Labels, PackedBatch, PointBatch, Shape, Value

ROWS = 20_000
ROUNDS = 7
NOON = 1_800_000_000_000  # ms
NAMES = ("service_name", "span_name", "span_kind", "status_code", "tenant")
CALLS = Shape("counter", NAMES, (), 4)
DURATION = Shape("histogram", NAMES, tuple(float(2**exponent) for exponent in range(16)), 4)
ROOMY = Limits(1_000_000, 1_000_000)
SHAPES = {"counter": CALLS, "histogram": DURATION}


def batch(shape: Shape, values: int, first: int = 0) -> PackedBatch:
    """ROWS points over so many tenants."""
    value: Value = 1 if shape is CALLS else HistogramValue(1, 3.0, (0,) * 8 + (1,) + (0,) * 8)
    rows: list[tuple[Labels, Value]] = [
        (("cart", "GET /", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET", f"t-{first + number % values}"), value)
        for number in range(ROWS)
    ]
    return PackedBatch.decode(PointBatch("m", shape, 0, rows).encode())


def cost(limits: Limits, shape: Shape, values: int, warm: bool) -> float:
    """ns per point; warm: the label sets were admitted or refused before."""
    best = float("inf")
    for _ in range(ROUNDS):
        store, points = SeriesStore(limits), batch(shape, values)
        if warm:
            store.apply(points)
        start = default_timer()
        store.apply(points)
        best = min(best, default_timer() - start)
    return best / ROWS * 1e9


def ticks(records: Sequence[Sequence[bytes]], interval: int) -> list[float]:
    """ns a series to count, gather and pack, of the fastest tick; `records` by tick, `interval` in ms."""
    state, offset = Ticks(1, interval, ROOMY, {}), 0
    fastest = [float("inf")] * 3
    for number, values in enumerate(records):
        now = NOON + interval * number
        took = [time.process_time()]
        for value in values:
            state.point(offset, now, value, now / 1000)
            offset += 1
        took.append(time.process_time())
        due = state.due((now + interval) / 1000)
        took.append(time.process_time())
        if due is None:
            raise RuntimeError("no tick is due")
        due.tick.encode()
        took.append(time.process_time())
        if number:  # in the first one every series is new
            series = sum(block.label_sets for block in due.tick.blocks)
            spent = [(after - before) / series * 1e9 for before, after in pairwise(took)]
            fastest = list(map(min, fastest, spent))
    return fastest


def otlp(number: int) -> list[bytes]:
    """The records of points that a message of OTLP metrics becomes."""
    points = MetricPoints("raw", 0, "otlp_proto", Naming(), 16 << 20)
    points.add(number, NOON, otlp_points.message(number))
    return [batch.encode() for batch in points.flush().batches]


def held(limits: Limits, batches: int) -> int:
    """Bytes after so many batches of values that were not there before."""
    tracemalloc.start()
    store = SeriesStore(limits)
    for number in range(batches):
        store.apply(batch(CALLS, ROWS, number * ROWS))
    store.blocks(NOON)
    found = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return found


def main() -> None:
    print(f"{'a point, ns':40} {'counter':>9} {'histogram':>9}")
    for name, limits, values, warm in (
        ("admitted before", ROOMY, 1_000, True),
        ("new, there is room", ROOMY, ROWS, False),
        ("its value is refused", Limits(1_000_000, 100), ROWS, True),
        ("its series is refused", Limits(10_000, 1_000_000), ROWS, True),
    ):
        print(f"{name:40} " + " ".join(f"{cost(limits, shape, values, warm):9.0f}" for shape in SHAPES.values()))
    wide = [value for _, value in counted(Options(5 * ROWS, 10, 1)).records]
    print(f"\n{'a series from tick to tick, ns':40} {'count':>9} {'gather':>9} {'pack':>9}")
    for name, records, interval in (
        ("counted, ten labels", [wide] * ROUNDS, 1000),
        ("OTLP metrics", [otlp(number) for number in range(3 * ROUNDS)], otlp_points.EVERY * 1000),
    ):
        print(f"{name:40} " + " ".join(f"{ns:9.0f}" for ns in ticks(records, interval)))
    one = held(ROOMY, 1)
    print(f"\n{'bytes per admitted label set':40} {one / ROWS:9.0f}")
    for batches in (1, 5, 25):
        found = held(Limits(1_000_000, 100), batches)
        print(f"{f'KiB in all, 100 of {batches * ROWS} values have room':40} {found / 1024:9.0f}")


if __name__ == "__main__":
    main()
