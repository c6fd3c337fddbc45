"""What ingest does to a span without Kafka: µs of process CPU. `python -m bench.micro.regroup`

The shop's messages of 1, 10 and 200 spans, fetches of a MB, to 4 and 64 output partitions, a flush after each fetch.
"""

from __future__ import annotations

import time

from bench.load import Load, messages
from processors.regroup import Regroup

SPANS = 40_000
FETCH_BYTES = 1 << 20
START = 1_800_000_000_000  # ms


def fetches(spans_per_message: int) -> list[list[tuple[int, int, bytes]]]:
    """Records as fetches have them."""
    found: list[list[tuple[int, int, bytes]]] = [[]]
    size = 0
    load = Load(SPANS, START, logs_per_span=0.0, spans_per_message=spans_per_message)
    for offset, message in enumerate(messages(load)):
        if size >= FETCH_BYTES:
            found.append([])
            size = 0
        found[-1].append((offset, message.timestamp, message.value))
        size += len(message.value)
    return found


def main() -> None:
    """Measure and print."""
    for spans_per_message in (1, 10, 200):
        given = fetches(spans_per_message)
        for partitions in (4, 64):
            regroup = Regroup("raw", 0, "traces", "otlp_proto", partitions, 16 << 20, 1 << 20)
            added = flushed = 0.0
            for records in given:
                began = time.process_time()
                regroup.add_all(records)
                taken = time.process_time()
                regroup.flush(START, {"raw": 1})
                added, flushed = added + taken - began, flushed + time.process_time() - taken
            us = 1e6 / SPANS
            print(
                f"{spans_per_message:4} spans a message, {partitions:2} partitions: "
                f"{added * us:5.2f} µs/span to take apart, {flushed * us:5.2f} to pack"
            )


if __name__ == "__main__":
    main()
