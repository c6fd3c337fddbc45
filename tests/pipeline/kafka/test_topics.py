"""Internal topics: names and settings; created and checked on a real broker."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.config import Config
from pipeline.kafka import topics as internal
from pipeline.kafka.admin import connected, partition_counts
from pipeline.kafka.topics import Survey, Topics, check, compare, ensure, placed_by_trace, survey, topic_specs
from schemas.errors import Unavailable
from tests.pipeline.configs import MINIMAL, config_for
from tests.pipeline.kafka import create
from tests.services.process import HOST, free_port
from tests.services.servers import Kafka
from tests.services.waiting import eventually

DAY_MS = 86_400_000


def settings(config: Config, **changed: dict[str, str]) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
    """What a broker would tell of topics that are as they must be, but for what is changed by topic."""
    specs = topic_specs(config)
    told = {spec.name: {**spec.configs, **changed.get(spec.name.removeprefix("tailrace."), {})} for spec in specs}
    return {spec.name: spec.partitions for spec in specs}, told


def test_names() -> None:
    topics = Topics("a")
    assert {spec.name for spec in topic_specs(config_for("x:1", prefix="a"))} == {
        getattr(topics, name) for name in Topics.__slots__ if name != "prefix"
    }
    assert (topics.untraced_logs, topics.kept_spans) == ("a.untraced.logs", "a.kept.spans")
    assert topics.group("sink.jaeger/eu") == "a.sink.jaeger/eu"
    assert topics.transactional_id("sample", 3) == "a.sample.3"
    assert topics.transactional_id("ingest", 3, "otlp_spans") == "a.ingest.otlp_spans.3"


def test_specs() -> None:
    config = config_for("x:1", partitions=16, metric_partitions=2)
    specs = {spec.name.removeprefix("tailrace."): spec for spec in topic_specs(config)}
    assert {name: spec.partitions for name, spec in specs.items()} == {
        **dict.fromkeys(("spans", "logs", "untraced.logs", "decisions", "kept.spans", "kept.logs"), 16),
        **dict.fromkeys(("points", "samples"), 2),
        "dlq": 1,
    }
    for spec in specs.values():
        assert spec.configs["message.timestamp.type"] == "LogAppendTime"
        assert spec.configs["cleanup.policy"] == "delete"
    assert specs["spans"].configs["retention.ms"] == str(DAY_MS)
    assert specs["decisions"].configs["retention.ms"] == str(DAY_MS + 600_000)
    assert specs["samples"].configs["retention.ms"] == "-1"
    assert int(specs["dlq"].configs["max.message.bytes"]) == config.limits.max_dead_letter_bytes + 64 * 1024


def test_a_span_as_large_as_allowed_fits() -> None:
    config = Config.model_validate({**MINIMAL, "limits": {"max_span_bytes": 20 << 20}})
    least = int(topic_specs(config)[0].configs["max.message.bytes"])
    assert least > 20 << 20
    (problem,) = compare(config, *settings(config, spans={"max.message.bytes": str((20 << 20) + (64 << 10))}))
    assert f"max.message.bytes is 21037056, must be at least {least}" in str(problem)


@pytest.mark.parametrize(("replicas", "in_sync"), [(-1, None), (1, None), (2, None), (3, "2"), (5, "2")])
def test_what_is_acknowledged_is_on_two_brokers_where_there_are_three(replicas: int, in_sync: str | None) -> None:
    config = config_for("x:1", replication_factor=replicas)
    assert {spec.configs.get("min.insync.replicas") for spec in topic_specs(config)} == {in_sync}
    assert compare(config, *settings(config, spans={"min.insync.replicas": "1"})) == [], "it stops no worker"


def test_topics_as_they_must_be() -> None:
    config = config_for("x:1")
    assert compare(config, *settings(config)) == []


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("spans", "message.timestamp.type", "CreateTime"),
        ("spans", "cleanup.policy", "compact"),
        ("kept.logs", "retention.ms", "60000"),
        ("samples", "retention.ms", "604800000"),
        ("decisions", "retention.bytes", "1000000"),
        ("dlq", "max.message.bytes", "1048588"),
    ],
)
def test_a_wrong_setting_is_told(topic: str, key: str, value: str) -> None:
    config = config_for("x:1")
    (problem,) = compare(config, *settings(config, **{topic: {key: value}}))
    assert problem.topic == f"tailrace.{topic}"
    assert f"{key} is {value}, must be " in problem.text
    spec = next(spec for spec in topic_specs(config) if spec.name == problem.topic)
    where = "kafka-configs.sh --bootstrap-server x:1 --alter --entity-type topics"
    assert f"`{where} --entity-name {problem.topic} --add-config {key}={spec.configs[key]}` sets it" in problem.text


@pytest.mark.parametrize("more", [{"retention.ms": "-1"}, {"max.message.bytes": "99999999"}])
def test_more_than_enough_is_fine(more: dict[str, str]) -> None:
    config = config_for("x:1")
    assert compare(config, *settings(config, **{"kept.spans": more})) == []


@pytest.mark.parametrize("retention", ["-1", str(2 * DAY_MS)])
def test_verdicts_must_outlive_their_rows(retention: str) -> None:
    config = config_for("x:1")
    (problem,) = compare(config, *settings(config, logs={"retention.ms": retention}))
    assert problem.topic == "tailrace.decisions"
    assert "tailrace.logs" in problem.text
    least = -1 if retention == "-1" else 2 * DAY_MS + 600_000
    assert f"--add-config retention.ms={least}` sets it" in problem.text
    assert compare(config, *settings(config, logs={"retention.ms": retention}, decisions={"retention.ms": "-1"})) == []


def test_partitions_and_missing_topics() -> None:
    config = config_for("x:1")
    partitions, told = settings(config)
    partitions["tailrace.spans"] = 3
    del partitions["tailrace.dlq"]
    problems = compare(config, partitions, told)
    assert [problem.topic for problem in problems] == ["tailrace.spans", "tailrace.dlq"]
    assert "3 partitions" in problems[0].text
    assert "does not exist" in str(problems[1])


def test_what_a_resize_left_behind_is_known() -> None:
    """After one to fewer partitions the others stay; without N in force they are somebody's mistake."""
    config = config_for("x:1", partitions=3)
    partitions, told = settings(config)
    partitions |= dict.fromkeys(placed_by_trace(config), 6)
    assert compare(config, partitions, told, in_force=3) == []
    (problem, *_) = compare(config, partitions, told, in_force=6)
    assert "N = 6 partitions are in force, the configuration says 3" in problem.text
    (problem, *_) = compare(config, partitions, told)
    assert "has 6 partitions, the configuration says 3" in problem.text
    assert "`tailrace topics resize FILE --partitions 3`" in problem.text
    partitions["tailrace.dlq"] = 2
    assert compare(config, partitions, told, in_force=3) == [], "letters are found in any of them"
    partitions["tailrace.points"] = 6
    (problem,) = compare(config, partitions, told, in_force=3)
    assert problem.topic == "tailrace.points"
    assert "kafka.metric_partitions cannot be changed once it is in use: set it back, to 6 unless" in problem.text


@pytest.mark.parametrize(
    ("points", "samples", "ticked", "told"),
    [
        (6, 6, 4, []),
        (4, 6, 4, []),
        (6, 4, 4, ["tailrace.samples: has 4 partitions, tailrace.points has 6: .* --partitions 6` gives it as many"]),
        (6, 6, 6, ["tailrace.points: M = 6 .* set it back to 6", "tailrace.samples: M = 6 .* set it back to 6"]),
        (6, 4, 2, ["tailrace.points: M = 2 .* set it back to 2", "tailrace.samples: M = 2 .* set it back to 2"]),
        (6, 4, None, ["tailrace.points: has 6 .* set it back, to 6 unless .* let this user read tailrace.samples"]),
        (2, 4, 4, ["tailrace.points: has 2 partitions, the configuration says 4.* --partitions 4` gives it as many"]),
    ],
)
def test_metric_partitions_that_nobody_writes_to_stop_nobody(
    points: int, samples: int, ticked: int | None, told: list[str]
) -> None:
    """Kafka takes none back. What ticks say is the M in force, never what is found."""
    config = config_for("x:1", metric_partitions=4)
    partitions, settled = settings(config)
    partitions |= {"tailrace.points": points, "tailrace.samples": samples}
    problems = compare(config, partitions, settled, ticked=ticked)
    assert len(problems) == len(told)
    for problem, text in zip(problems, told, strict=True):
        assert re.match(text, str(problem)), problem


def test_a_resize_is_not_advised_where_producers_place_traces() -> None:
    """The command refuses it."""
    config = Config.model_validate(MINIMAL | {"regroup": "never", "kafka": config_for("x:1", partitions=3).kafka})
    partitions, told = settings(config)
    partitions |= {name: 2 for name in placed_by_trace(config) if name in partitions}
    problems = compare(config, partitions, told)
    assert problems
    assert not any("resize" in problem.text for problem in problems)
    assert all("another kafka.prefix" in problem.text for problem in problems)


def test_settings_that_may_not_be_read_are_not_judged() -> None:
    config = config_for("x:1")
    assert compare(config, settings(config)[0], {}) == []


async def surveyed(config: Config) -> Survey:
    async with connected(config) as admin:
        return await survey(admin, config)


async def test_topics_that_acknowledge_too_early_are_a_hint(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(kafka.bootstrap, prefix="thin")
    assert await ensure(config) == []
    assert (await surveyed(config)).thin == [], "with one replica there is nothing to be in sync with"
    monkeypatch.setattr(internal, "REPLICATED", 1)
    assert (await surveyed(config)).thin == [spec.name for spec in topic_specs(config)]
    monkeypatch.setattr(internal, "LEAST_IN_SYNC", 1)
    assert (await surveyed(config)).thin == []


async def test_verdicts_outlive_the_raw_topics_that_sample_reads(kafka: Kafka) -> None:
    """They are made so; where they were there before, or the raw topic keeps more by now, it is a hint."""
    inputs = [{"topic": "outliving-raw", "signal": "traces"}, {"topic": "outliving-raw.logs", "signal": "logs"}]
    settings = {**MINIMAL, "inputs": inputs, "regroup": "never"}

    def config(prefix: str) -> Config:
        kafka_settings = {"bootstrap_servers": [kafka.bootstrap], "prefix": prefix, "partitions": 1}
        return Config.model_validate({**settings, "kafka": kafka_settings})

    early, late = config("outliving-early"), config("outliving-late")
    assert await ensure(early) == []
    await create(kafka.bootstrap, {"outliving-raw": 1}, **{"retention.ms": str(7 * DAY_MS)})
    await create(kafka.bootstrap, {"outliving-raw.logs": 1}, **{"retention.ms": "-1"})

    async def known() -> bool:
        return (await partition_counts(early, [item["topic"] for item in inputs])).keys() == {
            item["topic"] for item in inputs
        }

    await eventually(known, 10, "the raw topics are there")
    assert await ensure(late) == []
    assert (await surveyed(late)).short_decisions == ""
    assert await check(early) == [], "it stops no worker"
    told = (await surveyed(early)).short_decisions
    assert f"outliving-early.decisions: retention.ms is {DAY_MS + 600_000}:" in told
    assert f"set it to {7 * DAY_MS + 600_000}" in told
    assert (await surveyed(config_for(kafka.bootstrap, prefix="outliving-early"))).short_decisions == ""


async def test_create_then_check(every_kafka: Kafka) -> None:
    config = config_for(every_kafka.bootstrap, prefix="create-then-check", partitions=3, metric_partitions=2)
    missing = await check(config)
    assert len(missing) == len(topic_specs(config))
    assert all("does not exist" in problem.text for problem in missing)
    assert await partition_counts(config, ["create-then-check.spans"]) == {}, "checking made a topic"

    assert await ensure(config) == []
    assert await ensure(config) == []
    assert await check(config) == []
    found = await partition_counts(config, ["create-then-check.spans", "create-then-check.samples", "nowhere"])
    assert found == {"create-then-check.spans": 3, "create-then-check.samples": 2}

    other = config_for(every_kafka.bootstrap, prefix="create-then-check", partitions=4, metric_partitions=2)
    assert {problem.topic.removeprefix("create-then-check.") for problem in await check(other)} == {
        "spans", "logs", "untraced.logs", "decisions", "kept.spans", "kept.logs",
    }  # fmt: skip


async def test_asking_never_makes_a_topic_even_where_brokers_would() -> None:
    with Kafka({"auto.create.topics.enable": "true"}) as server:
        config = config_for(server.bootstrap)
        await check(config)
        assert await partition_counts(config, ["tailrace.spans"]) == {}
        made = await partition_counts(config)
        assert not made.keys() - {"__consumer_offsets"}  # the broker's own: whoever asks for a coordinator makes it


async def test_what_somebody_else_made_is_told_and_left_alone(every_kafka: Kafka) -> None:
    config = config_for(every_kafka.bootstrap, prefix="made-elsewhere")
    admin = AIOKafkaAdminClient(bootstrap_servers=every_kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("made-elsewhere.spans", 4, 1, topic_configs={"retention.ms": str(DAY_MS)})])
        problems = await ensure(config)
        assert {problem.topic for problem in problems} == {"made-elsewhere.spans"}
        assert any("message.timestamp.type is CreateTime" in problem.text for problem in problems)
        assert [problem.text for problem in problems] == [problem.text for problem in await check(config)]

        configs = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "max.message.bytes": "8388608"}
        resource = ConfigResource(ConfigResourceType.TOPIC, "made-elsewhere.spans", configs=configs)
        await admin.alter_configs([resource])

        async def only_decisions() -> bool:
            return [problem.topic for problem in await check(config)] == ["made-elsewhere.decisions"]

        await eventually(only_decisions, 10, "the broker tells its new settings, and that verdicts must outlive them")
    finally:
        await admin.close()


async def test_a_creation_that_is_refused_is_a_problem(kafka: Kafka) -> None:
    config = config_for(kafka.bootstrap, prefix="refused", replication_factor=3)  # there is one broker
    problems = await ensure(config)
    assert len(problems) == len(topic_specs(config))
    assert all("cannot be created" in problem.text for problem in problems)


async def test_the_dead_letter_topic_takes_the_largest_letter(every_kafka: Kafka) -> None:
    config = config_for(every_kafka.bootstrap, prefix="large-letters")
    assert await ensure(config) == []
    size = config.limits.max_dead_letter_bytes
    producer: Any = AIOKafkaProducer(bootstrap_servers=every_kafka.bootstrap, max_request_size=size + (64 << 10))
    await producer.start()
    try:
        headers = [("topic", b"t" * 249), ("reason", b"malformed"), ("detail", b"x" * 1000)]
        await producer.send_and_wait("large-letters.dlq", bytes(size), headers=headers)
    finally:
        await producer.stop()


async def test_no_broker() -> None:
    with pytest.raises(Unavailable, match=rf"kafka {HOST}"):
        await check(config_for(f"{HOST}:{free_port()}"))


async def test_brokers_without_transactions_are_left_alone() -> None:
    config = config_for(f"{HOST}:{free_port()}", transactions=False)
    assert await ensure(config) == []
    assert await check(config) == []
