"""What a system under test has put out: spans of kept traces, read from its topic while it runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaError, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.envelope import Envelope
from schemas.ids import SPAN_ID_BYTES, TRACE_ID_BYTES

SILENT = 0
FETCHED = 10_000  # records of one look
# A span of bench.load begins with its trace id and its span id, each behind a tag and a length.
_TRACE_ID = slice(2, 2 + TRACE_ID_BYTES)
_SPAN_ID = slice(_TRACE_ID.stop + 2, _TRACE_ID.stop + 2 + SPAN_ID_BYTES)

Ids = Iterator[tuple[bytes, bytes]]
"""Trace id and span id of each span."""


_decoding = threading.Lock()  # zstd's contexts are for one thread; two sides may be looked at at once


def of_envelope(value: bytes) -> Ids:
    """A record of Tailrace's kept spans."""
    with _decoding:
        envelope = Envelope.decode(value)
    for index in range(len(envelope)):
        row = envelope.row(index)
        yield row[_TRACE_ID], row[_SPAN_ID]


def of_otlp(value: bytes) -> Ids:
    """A record of the Collector's kafkaexporter."""
    for resource in TracesData.FromString(value).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.trace_id, span.span_id


class Tally:
    """Counts the committed records of a topic as they come. `spans` are distinct, `repeated` is what came again."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, read: Callable[[bytes], Ids]) -> None:
        self._read = read
        self.traces: Counter[bytes] = Counter()
        self.repeated = 0
        self._seen: set[bytes] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{topic}-tally",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": SILENT,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])

    @property
    def spans(self) -> int:
        """Distinct spans so far."""
        return len(self._seen)

    def poll(self) -> bool:
        """Count what has come since; whether anything has."""
        before = self.spans
        for message in self._consumer.consume(FETCHED, 0.0):
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise RuntimeError(str(error))
            value = message.value()
            assert isinstance(value, bytes)
            for trace_id, span_id in self._read(value):
                identity = trace_id + span_id
                if identity in self._seen:
                    self.repeated += 1
                else:
                    self._seen.add(identity)
                    self.traces[trace_id] += 1
        return self.spans > before

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
