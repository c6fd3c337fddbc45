"""Where a verdict was made first, in a log of decisions that has it again and again."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from pipeline.kafka.topics import Topics
from pipeline.operating import decision_log
from pipeline.operating.decision_log import DecisionLog, Place, side_by_side
from schemas.decision import DROPPED, RESTORED, Checkpoint, DecisionRecord, Verdict
from tests.pipeline.configs import config_for
from tests.pipeline.kafka import create, fresh
from tests.services import Kafka

KEY, OTHER = 7, 8


def record(number: int, *keys: int, repeated: tuple[int, ...] = (), restored: tuple[int, ...] = ()) -> bytes:
    """The record of the burst after which the tail stood at `number`."""
    made = DecisionRecord(1, checkpoint=Checkpoint(tails={"spans": number}, full=True))
    for key in keys:
        made.append(key, number, Verdict(True, RESTORED) if key in restored else DROPPED)
    made.repeated.extend(repeated)
    made.restored.update(dict.fromkeys(restored, "incident"))
    return made.encode()


@pytest.mark.parametrize("stride", [1, 3, 512])
@pytest.mark.parametrize("filler", [0, 7])
async def test_however_long_ago_it_was_made(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, stride: int, filler: int
) -> None:
    """As after an outage of hours."""
    between = [record(100 + number, OTHER) for number in range(filler)]
    again = record(3, KEY, repeated=(KEY,))
    found = await find(
        kafka, monkeypatch, stride, [record(1), record(2, KEY), *between, again, *between, again, *between]
    )
    assert found.decision is not None
    assert (found.decision.stream_time, found.before.tails) == (2, {"spans": 1})
    found = await find(
        kafka,
        monkeypatch,
        stride,
        [record(1), record(2, KEY), *between, record(3, KEY, restored=(KEY,)), *between, again],
    )
    assert found.decision is not None
    assert found.restored is not None
    assert (found.decision.stream_time, found.restored.why) == (2, "incident")
    found = await find(kafka, monkeypatch, stride, [record(1), *between, again, *between])
    assert found.decision is not None, "the first one is gone"
    assert found.decision.stream_time == 3
    found = await find(kafka, monkeypatch, stride, [record(1), *between, record(2, OTHER)])
    assert (found.decision, found.before.tails) == (None, {"spans": 2})


async def find(kafka: Kafka, monkeypatch: pytest.MonkeyPatch, stride: int, records: list[bytes]) -> Place:
    """With a horizon of nothing: no record is as old as the one before."""
    monkeypatch.setattr(decision_log, "STRIDE", stride)
    config = config_for(kafka.bootstrap, prefix=fresh("log"))
    topic = Topics(config.kafka.prefix).decisions
    await create(kafka.bootstrap, {topic: 1})
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for value in records:
        await producer.send_and_wait(topic, value)
    await producer.stop()
    decisions = DecisionLog(config, 0)
    try:
        return await decisions.find(KEY, -1)
    finally:
        await decisions.close()


async def test_any_of_several_partitions_may_have_it(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read back no further than to what was written when it was decided."""
    monkeypatch.setattr(decision_log, "STRIDE", 4)
    config = config_for(kafka.bootstrap, prefix=fresh("log"), partitions=3)
    horizon = int(config.sampling.late_horizon * 1000)
    topic = Topics(config.kafka.prefix).decisions
    await create(kafka.bootstrap, {topic: 3})
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    times = [number * horizon for number in range(1, 65)]
    for when in times:
        await producer.send_and_wait(topic, record(1, OTHER), partition=0, timestamp_ms=when)
    for partition, when in ((1, times[32]), (2, times[33])):
        await producer.send_and_wait(topic, record(2, KEY), partition=partition, timestamp_ms=when)
        await producer.send_and_wait(topic, record(3, OTHER), partition=partition, timestamp_ms=times[-1])
    await producer.stop()
    async with side_by_side(config, range(3), KEY) as logs:
        assert [each.found for each in logs] == [None, 0, 0]
        assert times[24] < logs[0].reached < times[32]
        assert (await logs[0].place(KEY)).before.tails == {"spans": 1}
        for log in logs[1:]:
            place = await log.place(KEY)
            assert place.decision is not None
            assert place.decision.stream_time == 2
    async with side_by_side(config, range(3), 9) as logs:
        assert [each.found for each in logs] == [None, None, None]
        assert logs[0].reached == times[0]
