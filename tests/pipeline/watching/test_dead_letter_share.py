"""A role stops before it acknowledges what nearly all goes to the dead-letter queue; on a real Kafka, both ways in."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.config import DeadLetters
from pipeline.telemetry import REGISTRY
from pipeline.watching.dead_letter_share import NEVER, DeadLetterShare
from pipeline.worker import running
from schemas.errors import TooManyDeadLetters
from tests.pipeline.kafka import DEADLINE, committed
from tests.pipeline.stages import Stages, log_of, partition, refusal
from tests.services import Kafka, eventually

LIMIT = {"dead_letters": {"min_records": 50}}


def share(**limit: float) -> DeadLetterShare:
    return DeadLetterShare("ingest", "raw", DeadLetters.model_validate({"min_records": 100, "window": 60.0, **limit}))


def test_the_ratio_counts_what_has_been_acknowledged_and_what_would_be() -> None:
    found = share()
    found.check(0, 99, 99)  # too few to say anything
    found.add(0, 99, 49)
    found.check(1, 1, 1)  # 50 of 100 is the limit, not beyond it
    with pytest.raises(TooManyDeadLetters, match=r"raw: 51 of the last 101 records would become dead letters"):
        found.check(1, 2, 2)
    assert REGISTRY.get_sample_value("tailrace_dead_letter_ratio", {"role": "ingest", "input": "raw"}) == 51 / 101


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    found = share()
    found.add(0, 1_000, 0)
    found.check(59, 200, 200)
    with pytest.raises(TooManyDeadLetters):
        found.check(61, 200, 200)


def test_nothing_new_is_no_reason_to_stop() -> None:
    """Good records leave the window first, and an idle partition still has its marks to write."""
    found = share()
    found.add(0, 1_000, 0)
    found.add(30, 200, 200)
    found.check(61, 0, 0)


def test_a_ratio_of_one_never_stops() -> None:
    DeadLetterShare("ingest", "raw", NEVER).check(0, 1_000_000, 1_000_000)


class Limited(Stages):
    SECTIONS: ClassVar = {"limits": LIMIT | {"max_span_bytes": 90_000}}


class KeyedLimited(Stages):
    SECTIONS: ClassVar = {"limits": LIMIT, "regroup": "never"}


@pytest.mark.parametrize(("kind", "role"), [(Limited, "ingest"), (KeyedLimited, "sample")], ids=["ingest", "keyed"])
async def test_a_producer_that_writes_something_else_stops_the_role(
    kafka: Kafka, tmp_path: Path, kind: type[Stages], role: str
) -> None:
    """Nothing is acknowledged, so nothing has to be fetched back."""
    stages = kind(kafka.bootstrap, tmp_path, partitions=1)
    await stages.create(raw=1)
    raw = partition(stages.raw)
    async with stages.producer() as producer:
        for number in range(30):
            await stages.produce(producer, f"t{number}/1!")
        for number in range(40):
            await producer.send_and_wait(stages.raw, b"{}" if number else b"", partition=0)
    async with running(stages.config, [role]) as worker:
        said = await refusal(worker)
    assert "TooManyDeadLetters" in said
    assert f"{stages.raw}: 40 of the last 70 records would become dead letters" in said
    assert "inputs[].encoding" in said
    assert await stages.records(stages.topics.dlq) == []
    assert await committed(stages.bootstrap, stages.topics.group(role), raw) <= 0

    # As an operator may decide: all of them go to the queue.
    stages.settings["limits"] = {"dead_letters": {"max_ratio": 1}}
    config = type(stages.config).model_validate(stages.settings)
    async with running(config, ["all"]):
        await stages.settled()

        async def buried() -> bool:
            return len(await stages.records(stages.topics.dlq)) == 40

        await eventually(buried, DEADLINE, "the others are dead letters")


async def test_rows_that_are_bad_beside_good_ones_stop_nobody(kafka: Kafka, tmp_path: Path) -> None:
    """One bad span in every message: all messages have a letter, and none of them is lost."""
    stages = Limited(kafka.bootstrap, tmp_path)
    await stages.create(raw=1)
    async with stages.producer() as producer:
        for number in range(60):
            good = log_of("t1/1", f"said {number}")
            await producer.send(f"{stages.raw}.logs", good + log_of("", "x" * 100_000), partition=0)
        async with running(stages.config, ["ingest"]):

            async def buried() -> bool:
                return len(await stages.records(stages.topics.dlq)) == 60

            await eventually(buried, DEADLINE, "the large ones are dead letters")
    assert {r.value[-9:] for r in await stages.records(stages.topics.dlq)} == {b"x" * 9}
