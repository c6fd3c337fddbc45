"""`--signals`: a consumer group of ingest for each signal, and changing over from one group and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.config import Config
from pipeline.roles import build, check_signals
from pipeline.started import Started
from pipeline.worker import application, running
from schemas.errors import ConfigError
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import DEADLINE, committed
from tests.pipeline.stages import Stages, holds, log_of, now, partition
from tests.services import eventually

BOTH = ("traces", "logs")
INPUTS = [{"topic": "otlp_spans", "signal": "traces"}, {"topic": "otlp_logs", "signal": "logs"}]
CONFIG = Config.model_validate({**MINIMAL, "inputs": INPUTS})


def test_each_signal_has_its_group_and_reads_its_topics() -> None:
    groups = build(application("signals"), CONFIG, ["ingest"], Started(), BOTH)
    assert [(g.role, g.group_id, g._topics, list(g._others)) for g in groups] == [
        ("ingest", "tailrace.ingest.traces", ["otlp_spans"], ["otlp_logs"]),
        ("ingest", "tailrace.ingest.logs", ["otlp_logs"], ["otlp_spans"]),
    ]


@pytest.mark.parametrize(
    ("roles", "signals", "said"),
    [
        (["sample"], ["traces"], "--signals: goes with --role ingest"),
        (["ingest"], ["traces", "spans"], "--signals spans: ingest reads no topic of it; it reads traces, logs"),
    ],
)
def test_what_does_not_fit_is_refused(roles: Sequence[str], signals: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_signals(CONFIG, roles, signals)


def test_a_signal_is_read_once() -> None:
    assert check_signals(CONFIG, ["ingest"], ["logs", "traces", "logs"]) == ["logs", "traces"]


async def test_changing_over_and_back_loses_and_doubles_nothing(
    stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    """`kafka.start: earliest`, so a group that began by itself would read everything again."""
    whole = stages.topics.group("ingest")
    async with stages.producer() as producer, running(stages.config, ["sample"]):

        async def all_forwarded(name: str, signals: Sequence[str]) -> None:
            async with running(stages.config, ["ingest"], signals=signals) as worker:
                await stages.produce(producer, f"{name}/2!", partition=1)
                await holds(worker, "ingest")
                await stages.settled()

        async def marked() -> bool:
            return any(mark >= began for mark, _ in await stages.marks(stages.topics.spans, 0))

        for name, signals in (("a", ()), ("b", BOTH), ("c", ()), ("d", ())):
            if name == "d":  # after a change in which no record came: the offset is the same, its marks went on
                began = now()
                async with running(stages.config, ["ingest"], signals=BOTH):
                    await eventually(marked, DEADLINE, "the other groups write marks")
            await stages.produce(producer, f"{name}/1!")
            await producer.send_and_wait(f"{stages.raw}.logs", log_of(f"{name}/1!", "said"), partition=0)
            await all_forwarded(name, signals)

        async def logs_kept() -> bool:
            return sum([len(e) for _, e in await stages.envelopes(stages.topics.kept_logs)]) >= 4

        await eventually(logs_kept, DEADLINE, "the logs of all four")
    assert sum([len(e) for _, e in await stages.envelopes(stages.topics.kept_logs)]) == 4
    assert f"{whole}.traces" in {r.__dict__.get("group") for r in caplog.records}
    assert await committed(stages.bootstrap, whole, partition(stages.raw)) == 4
    for topic in (stages.topics.spans, stages.topics.logs):
        listed = [e.raw_topics for _, e in await stages.envelopes(topic) if e.raw_topics]
        assert all(found == {stages.raw: 2, f"{stages.raw}.logs": 1} for found in listed)


async def test_a_group_that_is_set_back_by_hand_goes_on_from_there(stages: Stages) -> None:
    """The larger offset of the group before the change won, and was then found to be out of date, for ever."""
    group, first = f"{stages.topics.group('ingest')}.traces", partition(stages.raw)

    async def forwarded(expected: Counter[str]) -> None:
        async def there() -> bool:
            return await stages.names(stages.topics.spans) == expected

        await eventually(there, DEADLINE, f"{expected} are regrouped")

    async with stages.producer() as producer:
        await stages.produce(producer, "a/1")
        await stages.produce(producer, "a/2")
        for number, signals in enumerate([(), BOTH]):
            async with running(stages.config, ["ingest"], signals=signals):
                await stages.produce(producer, f"b/{number}")
                await forwarded(Counter(stages.produced))
        async with AIOKafkaConsumer(
            bootstrap_servers=stages.bootstrap, group_id=group, enable_auto_commit=False
        ) as operator:
            operator.assign([first])
            await operator.commit({first: 1})
        async with running(stages.config, ["ingest"], signals=BOTH):
            await forwarded(Counter({"a/1": 1, "a/2": 2, "b/0": 2, "b/1": 2}))


async def test_a_group_waits_for_the_other_one_to_be_gone(stages: Stages, caplog: pytest.LogCaptureFixture) -> None:
    """Both at once would fence each other for ever."""
    async with (
        stages.producer() as producer,
        running(stages.config, ["sample"]),
        running(stages.config, ["ingest"]) as old,
    ):
        await holds(old, "ingest")
        async with running(stages.config, ["ingest"], signals=BOTH) as new:

            async def says_so() -> bool:
                errors = [str(record.__dict__.get("error")) for record in caplog.records]
                return any("still has 1 members: stop the workers" in error for error in errors)

            await eventually(says_so, DEADLINE, "the new group says what it waits for")
            await stages.produce(producer, "a/1!")
            await stages.settled()
            assert not any(service._leases for service in new.services)
            assert new.ready() == {"ingest": False}
            await old.services[0].stop()
            await holds(new, "ingest")
            await stages.produce(producer, "b/1!")
            await stages.settled()
