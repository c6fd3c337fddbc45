"""The embedded broker: librdkafka's mock cluster, which the confluent-kafka wheel carries.

In memory, on a free loopback port, up in milliseconds. For the demo and quick tests, never for claims about
delivery: transactions do not read back, every topic has four partitions of which only the newest 5 MB or so stay, a
group has one member, and a group's first join takes three seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.errors import Unavailable

PARTITIONS = 4
"""What the mock cluster gives every topic; not configurable from Python."""

ANSWER_SECONDS = 10.0


class EmbeddedBroker:
    """One broker for as long as the `with` block lasts.

    >>> with EmbeddedBroker() as broker:
    ...     broker.create(["orders"])
    {'orders': 4}
    """

    def __init__(self) -> None:
        self._client: Any = None
        self.url = ""

    def __enter__(self) -> EmbeddedBroker:
        try:
            from confluent_kafka import Producer
        except ImportError as error:
            raise Unavailable(
                "the embedded broker needs the demo extra: pip install 'tailrace[demo]' (or name a broker with --kafka)"
            ) from error
        # Any bootstrap server will do: test.mock.num.brokers replaces it by the cluster in this process.
        self._client = Producer(
            {"bootstrap.servers": "embedded", "test.mock.num.brokers": 1, "log_level": 2}, logger=None
        )
        broker = next(iter(self._client.list_topics(timeout=ANSWER_SECONDS).brokers.values()))
        self.url = f"{broker.host}:{broker.port}"
        return self

    def __exit__(self, *_: object) -> None:
        # The cluster lives exactly as long as the client that started it.
        self._client = None
        self.url = ""

    def create(self, topics: Iterable[str]) -> dict[str, int]:
        """Make the topics exist; returns their partition counts. The mock has no CreateTopics: asking creates them."""
        counts = {}
        for topic in topics:
            answer = self._client.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
            if answer.error is not None:
                raise Unavailable(f"the embedded broker refuses topic {topic}: {answer.error}")
            counts[topic] = len(answer.partitions)
        return counts
