"""Whether the newest records of a raw topic are what the file says: decoded as `ingest` does, and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.config import Config, Input
from pipeline.kafka.reader import Reader
from processors.otlp_series import KnownSeries
from processors.regroup import Regroup
from schemas.errors import ProtocolError, Unavailable
from schemas.formats import detect
from schemas.kafka_client import told

OFFSETS = 10  # before the end of a partition: the last ones may be markers of transactions
_DETECT = {"traces": detect.detect_traces, "logs": detect.detect_logs, "metrics": detect.detect_metrics}

Record = tuple[int, int, bytes]
"""Offset, time in ms, value."""


class Look(NamedTuple):
    """What the records decode as, each once, and what is wrong with those that do not decode."""

    fit: list[str]
    unfit: list[str]


async def look(config: Config, source: Input, partitions: int) -> Look:
    """At the newest record of each partition; no group, no offset. Raises Unavailable."""
    reader = Reader(config.kafka, config.limits)
    try:
        found = await reader.newest([TopicPartition(source.topic, number) for number in range(partitions)], OFFSETS)
    except (KafkaError, ProtocolError, OSError) as error:
        raise Unavailable(told(error)) from error
    finally:
        await reader.close()
    return judged(config, source, found)


def judged(config: Config, source: Input, found: Mapping[TopicPartition, Record]) -> Look:
    """Each of these records as one of the topic that the configuration says it is."""
    fit, unfit = dict[str, None](), []
    for partition, (offset, time_ms, value) in found.items():
        record = offset, time_ms, value or b""
        if why := _lost(config, source, partition, record):
            other = _other(config, source, partition, record)
            place = f"{partition.topic}/{partition.partition}/{offset}"
            text = f"{place} does not look like {source.signal} ({source.encoding}): {why}"
            unfit.append(f"{text}; it decodes as {other}" if other else text)
        else:
            fit[_as(source, record)] = None
    return Look(list(fit), unfit)


def _lost(config: Config, source: Input, partition: TopicPartition, record: Record) -> str:
    """Why nothing of a record can be used; empty if something can."""
    from pipeline.ingest import processor  # what a worker needs takes a second to import

    taken = processor(partition, source, config, KnownSeries())
    taken.add_all([record])
    if not taken.lost:
        return ""
    letter = (taken.flush(None, {}) if isinstance(taken, Regroup) else taken.flush()).dead_letters[0]
    return f"{letter.reason}, {letter.detail}" if letter.detail else letter.reason


def _as(source: Input, record: Record) -> str:
    encoding = _DETECT[source.signal](record[2]) if source.encoding == "auto" else source.encoding
    return f"{source.signal} ({encoding})"


def _other(config: Config, source: Input, partition: TopicPartition, record: Record) -> str:
    """What else it decodes as; any text would as a log."""
    for signal in _DETECT:
        guess = source.model_copy(update={"signal": signal, "encoding": "auto"})
        name = _as(guess, record)
        if name != "logs (text)" and not _lost(config, guess, partition, record):
            return name
    return ""
