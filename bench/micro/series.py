"""What a point costs the aggregate: ns, the best of several rounds. `python -m bench.micro.series`

And what it holds: bytes per label set and per label that refuses values, by the number of values that came.
"""

from __future__ import annotations

import tracemalloc
from timeit import default_timer

from processors.cardinality import Limits
from processors.series import SeriesStore
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value

ROWS = 20_000
ROUNDS = 7
NOON = 1_800_000_000_000  # ms
NAMES = ("service_name", "span_name", "span_kind", "status_code", "tenant")
CALLS = Shape("counter", NAMES, (), 4)
DURATION = Shape("histogram", NAMES, tuple(float(2**exponent) for exponent in range(16)), 4)
ROOMY = Limits(1_000_000, 1_000_000)
SHAPES = {"counter": CALLS, "histogram": DURATION}


def batch(shape: Shape, values: int, first: int = 0) -> PointBatch:
    """ROWS points over so many tenants."""
    value: Value = 1 if shape is CALLS else HistogramValue(1, 3.0, (0,) * 8 + (1,) + (0,) * 8)
    rows: list[tuple[Labels, Value]] = [
        (("cart", "GET /", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET", f"t-{first + number % values}"), value)
        for number in range(ROWS)
    ]
    return PointBatch("m", shape, 0, rows)


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
    one = held(ROOMY, 1)
    print(f"\n{'bytes per admitted label set':40} {one / ROWS:9.0f}")
    for batches in (1, 5, 25):
        found = held(Limits(1_000_000, 100), batches)
        print(f"{f'KiB in all, 100 of {batches * ROWS} values have room':40} {found / 1024:9.0f}")


if __name__ == "__main__":
    main()
