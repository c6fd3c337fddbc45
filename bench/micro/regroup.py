"""What ingest does to a span without Kafka: µs of process CPU. `python -m bench.micro.regroup`

Messages of 200 spans of traces of five, to 4 and 64 output partitions, a flush every 20 messages.
"""

from __future__ import annotations

import time
from random import Random

from bench.micro.window import SPANS_A_MESSAGE, START, message
from processors.regroup import Regroup

MESSAGES = 400
MESSAGES_A_FLUSH = 20


def main() -> None:
    random = Random(7)
    messages = [message(random, START + number) for number in range(MESSAGES)]
    for partitions in (4, 64):
        regroup = Regroup("raw", 0, "traces", "otlp_proto", partitions, 16 << 20, 1 << 20)
        added = flushed = 0.0
        for number, value in enumerate(messages, start=1):
            began = time.process_time()
            regroup.add(number, START, value)
            added += time.process_time() - began
            if number % MESSAGES_A_FLUSH == 0:
                began = time.process_time()
                regroup.flush(START, {"raw": 1})
                flushed += time.process_time() - began
        spans = MESSAGES * SPANS_A_MESSAGE / 1e6
        print(f"{added / spans:6.2f} µs/span to take apart, {flushed / spans:6.2f} to pack, {partitions} partitions")


if __name__ == "__main__":
    main()
