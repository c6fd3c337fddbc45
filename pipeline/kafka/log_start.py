"""How near Kafka's retention is to overtaking the tail of `sample`, as two gauges of each partition.

Records between tail and head are needed again, and Kafka deletes by age whether they are or not. It deletes nothing
that is younger than the topic's `retention.ms`, so the age of the first record that the tail has not passed, as a share
of that, says how much room is left. The distance to the first record that Kafka still has says what is so far.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline import telemetry
from pipeline.kafka.consume import Group
from pipeline.watching.seldom import Seldom
from processors.feeds import place_of, topic_of

INTERVAL = 15.0  # seconds between looks
ANSWER_LIMIT = 1.0  # seconds that a look may keep a partition from its next burst
RETENTION_AGE = 60.0  # seconds that an answer about settings serves all partitions of a worker
GAUGES: tuple[telemetry.MetricName, ...] = ("tailrace_tail_log_start_seconds", "tailrace_tail_retention_ratio")


class Retention:
    """The `retention.ms` in effect of some topics, asked for at most once per RETENTION_AGE by a whole worker."""

    def __init__(self, configured: float) -> None:
        self._configured = configured  # seconds; what a user without DescribeConfigs has to believe
        self._known: dict[str, float] = {}
        self._asked = Seldom(RETENTION_AGE)

    async def of(self, group: Group, topic: str) -> float:
        """Seconds; infinite for a topic that keeps everything. Raises KafkaError."""
        if self._asked.due(time.monotonic()):
            self._known = await group.brokers.retention()
        return self._known.get(topic, self._configured)


class LogStart:
    """The two gauges of one partition of `sample` under one epoch."""

    def __init__(self, group: Group, partition: int, retention: Retention) -> None:
        self._group, self._partition, self._retention = group, partition, retention
        self._looked = Seldom(INTERVAL)

    async def look(self, oldest: Mapping[str, int | None]) -> None:
        """Look if it is time to. `oldest`: append time (ms) of what each feed's tail stands before; None: of nothing.

        What cannot be asked now is asked at the next look; the gauges keep what they say.
        """
        if not self._looked.due(time.monotonic()):
            return
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                places = {feed: TopicPartition(*place_of(feed, self._partition)) for feed in oldest}
                first = await self._group.brokers.first_times(list(places.values()))
                retention = {feed: await self._retention.of(self._group, topic_of(feed)) for feed in oldest}
        except (TimeoutError, KafkaError):
            return
        now = int(time.time() * 1000)
        tails = {feed: now if append is None else append for feed, append in oldest.items()}
        distances = [(tails[feed] - first[place]) / 1000 for feed, place in places.items() if place in first]
        shares = [max(0, now - append) / 1000 / retention[feed] for feed, append in tails.items()]
        for gauge, value in zip(GAUGES, (max(0.0, min(distances, default=0.0)), max(shares)), strict=True):
            telemetry.gauge(gauge, value, partition=str(self._partition))

    def end(self) -> None:
        """The partition is another worker's, which tells these gauges from now on."""
        for gauge in GAUGES:
            telemetry.remove(gauge, partition=str(self._partition))
