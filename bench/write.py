"""Writes a load into raw topics: as fast as it goes, or each message when its time has come."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bench.load import Load, Signal, Written, messages

POLL_SECONDS = 0.1
FLUSH_SECONDS = 120.0


class LoadFailed(RuntimeError):
    """Kafka did not take the load."""


def write(
    bootstrap: str,
    topics: dict[Signal, tuple[str, int]],
    load: Load,
    *,
    paced: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write a load to raw topics (name, partitions), zstd-compressed; return once every message is acknowledged.

    `paced` sends each message when its timestamp has come. `stopped` is asked before each message.
    Raises LoadFailed.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "zstd",
            "linger.ms": 5,
            "acks": "all",
            "message.max.bytes": 32 << 20,
            "queue.buffering.max.kbytes": 256 << 10,
            "enable.idempotence": True,
            "log_level": 0,  # a new broker's coordinator is retried, which librdkafka would print; failures are raised
        }
    )
    refused: list[str] = []
    done = Written()

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(str(error))
        elif paced:
            done.late_seconds = max(done.late_seconds, time.time() - message.timestamp()[1] / 1000)

    turn: dict[Signal, int] = {"traces": 0, "logs": 0}
    began = said = time.monotonic()
    for message in messages(load, done):
        if stopped() or refused:
            break
        while paced and (wait := message.timestamp / 1000 - time.time()) > 0:
            producer.poll(min(wait, POLL_SECONDS))
            if stopped():
                break
        topic, partitions = topics[message.signal]
        turn[message.signal] += 1
        partition = turn[message.signal] % partitions if message.partition is None else message.partition
        while True:
            try:
                producer.produce(
                    topic,
                    message.value,
                    partition=partition,
                    timestamp=message.timestamp,
                    on_delivery=acknowledged,
                )
                break
            except BufferError:
                producer.poll(POLL_SECONDS)
            except KafkaException as error:  # what it knows to be wrong, a partition for one, it refuses at once
                raise LoadFailed(str(error)) from error
        producer.poll(0)
        if message.signal == "traces":
            done.spans += message.rows
        else:
            done.logs += message.rows
        done.messages += 1
        done.value_bytes += len(message.value)
        done.first_ms = done.first_ms or message.timestamp
        done.last_ms = max(done.last_ms, message.timestamp)
        if time.monotonic() - said > 2:
            said = time.monotonic()
            say(f"load: {done.spans:,} of {load.spans:,} spans")
    left = producer.flush(FLUSH_SECONDS)
    if refused or left:
        raise LoadFailed(refused[0] if refused else f"{left} messages were not acknowledged in {FLUSH_SECONDS:.0f} s")
    done.seconds = time.monotonic() - began
    return done
