"""How the records of a raw partition are taken apart where `sample` reads it (`regroup: never`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from aiokafka import TopicPartition

from pipeline.config import Config
from processors.redaction import Redactor
from schemas.raw_batch import RawReader


def redactors(config: Config) -> dict[str, Redactor]:
    """What takes out what must not be stored, by signal; none if nothing is to be taken out."""
    if config.redaction is None:
        return {}
    return {item.signal: Redactor(config.redaction) for item in config.inputs if item.signal != "metrics"}


def raw_reader(config: Config, partition: TopicPartition, by_signal: Mapping[str, Redactor]) -> RawReader:
    """For one raw partition; policies see what the redactor of its signal leaves."""
    topic, limits = partition.topic, config.limits
    signal = next(item.signal for item in config.inputs if item.topic == topic)
    sizes = config.kafka.partitions, signal, limits.max_message_bytes, limits.max_span_bytes
    return RawReader(topic, partition.partition, *sizes, *redacting(by_signal.get(signal), signal))


def redacting(redactor: Redactor | None, signal: str) -> tuple[Any, ...]:
    """What a RawReader of a signal is given of its redactor."""
    return () if redactor is None else (partial(redactor.message, signal=signal), redactor.buried)
