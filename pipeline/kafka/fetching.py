"""How consumers fetch, of whatever group: committed records only, every position and commit ours."""

from __future__ import annotations

from typing import Any

from pipeline.config import Kafka, Limits
from pipeline.kafka import decompression
from pipeline.kafka.fetch_wait import FetchWait
from pipeline.kafka.security import client_kwargs

POLL_MS = 100  # that whoever has something to look at meanwhile waits for what is fetched: held partitions may go on
FETCH_BYTES = 256 << 10  # that are worth an answer at once
PARTITION_FETCH_BYTES = 1 << 20  # of one partition in one fetch: bounds how long one batch keeps the loop busy
LOOK_MS = 1_000  # between two looks of aiokafka at what to fetch, if nothing that it waits for has come
RETAKE_BACKOFF = 0.5  # seconds between attempts to fetch
STALLED = 60.0  # seconds that a position may stand still before records that are there


def consumer_kwargs(
    kafka: Kafka,
    limits: Limits | None = None,
    wait: FetchWait | None = None,
    accept_loss: bool = False,
) -> dict[str, Any]:
    """What all consumers have in common.

    Unless a `wait` is given, what is read may wait for `commit_interval` before it is passed on.

    `limits` are those of raw topics: whoever writes them, their batches may be anything when they are decompressed.
    With `accept_loss` one that stays corrupt is passed (pipeline/kafka/decompression.py).
    """
    return {
        "value_deserializer": None if limits is None else decompression.bound(limits, accept_loss),
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_wait_ms": wait or FetchWait(kafka.commit_interval),
        "fetch_min_bytes": FETCH_BYTES,
        "fetch_max_bytes": kafka.fetch_max_bytes,
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
        "consumer_timeout_ms": LOOK_MS,
        "client_rack": kafka.client_rack,
        **client_kwargs(kafka),
    }
