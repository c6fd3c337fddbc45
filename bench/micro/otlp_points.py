"""What a point of OTLP metrics costs `ingest`: µs of process CPU. `python -m bench.micro.otlp_points`

Cumulative counters, gauges and histograms of 16 buckets with three attributes each, of four services, in messages of
600 points: the first time that a series is met, and every time after that. Writing the records is part of it.
"""

from __future__ import annotations

import time

from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, MetricsData

from bench.measure import compiled
from processors.metric_points import MetricPoints, Naming
from processors.otlp_series import KnownSeries

SERVICES, SERIES, MESSAGES, ROUNDS = 4, 50, 20, 5
POINTS = SERVICES * SERIES * 3
START = 1_800_000_000  # s
EVERY = 15  # s
NS = 10**9


def message(number: int) -> bytes:
    """What the services say at one time."""
    data = MetricsData()
    now = START + EVERY * number
    for service in range(SERVICES):
        part = data.resource_metrics.add()
        for key in ("service.name", "service.instance.id", "host.name"):
            part.resource.attributes.add(key=key).value.string_value = f"{key}-{service}"
        metrics = part.scope_metrics.add().metrics
        total = metrics.add(name="http.requests", unit="1").sum
        total.is_monotonic, total.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
        level = metrics.add(name="queue.length").gauge
        histogram = metrics.add(name="http.duration", unit="ms").histogram
        histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        times = {"start_time_unix_nano": START * NS, "time_unix_nano": now * NS}
        bounds = [2.0**exponent for exponent in range(15)]
        for series in range(SERIES):
            points = (
                total.data_points.add(as_int=number + series, **times),
                level.data_points.add(as_double=series / 7, **times),
                histogram.data_points.add(
                    count=16 * number, sum=0.5, bucket_counts=[number] * 16, explicit_bounds=bounds, **times
                ),
            )
            for point in points:
                for key, text in (("http.route", f"/r/{series}"), ("http.method", "GET"), ("status", str(series % 5))):
                    point.attributes.add(key=key).value.string_value = text
    return data.SerializeToString()


def spent(messages: list[bytes], known: KnownSeries) -> float:
    """µs a point."""
    points = MetricPoints("raw", 0, "otlp_proto", Naming(), 16 << 20, known=known)
    began = time.process_time()
    for offset, value in enumerate(messages):
        points.add(offset, START * 1000, value)
        for batch in points.flush().batches:
            batch.encode()
    return (time.process_time() - began) / len(messages) / POINTS * 1e6


def main() -> None:
    """Measure and print, the fastest of all rounds."""
    first, *later = map(message, range(MESSAGES))
    new, old = [], []
    for _ in range(ROUNDS):
        known = KnownSeries()
        new.append(spent([first], known))
        old.append(spent(later, known))
    print(f"{'compiled' if compiled() else 'uncompiled'}: µs a point of a new series {min(new):.1f}, of one")
    print(f"that was there before {min(old):.1f}")


if __name__ == "__main__":
    main()
