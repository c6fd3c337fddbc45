"""The diagram as code: it is the README's picture, and what the roles' groups really read."""

from __future__ import annotations

import asyncio
import re

import pytest
from pydantic import ValidationError

from pipeline import roles
from pipeline.config import Config
from pipeline.kafka.topics import Topics, ensure, topic_specs
from pipeline.roles import diagram, expand, wait_for_servers
from pipeline.started import Started
from pipeline.worker import application, unless_stopped
from schemas.errors import ConfigError
from tests.pipeline.configs import MINIMAL, config_for
from tests.pipeline.kafka import DEADLINE, create, fresh
from tests.repository import ROOT
from tests.services import Kafka, free_port

SINKS = {
    "jaeger": {"endpoint": "http://jaeger:4318"},
    "elasticsearch": {"endpoint": "http://elasticsearch:9200"},
    "prometheus": {"endpoint": "http://prometheus:9090/api/v1/write"},
}
INPUTS = [
    {"topic": "otlp_spans", "signal": "traces"},
    {"topic": "otlp_logs", "signal": "logs"},
    {"topic": "otlp_metrics", "signal": "metrics"},
]
CONFIG = Config.model_validate({**MINIMAL, "inputs": INPUTS, "sinks": SINKS})
ARROW = r"[─┐┘◄►└├]+[^\[\]\n]*?"


def picture() -> str:
    """The first block of the README."""
    return (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]


def test_every_topic_of_the_picture_is_one_of_the_diagram() -> None:
    """And the other way round; roles in the order of the data."""
    found = {topic for role in diagram(CONFIG) for topic in (*role.reads, *role.writes)}
    assert set(re.findall(r"tailrace\.[a-z.]+|otlp_\w+", picture())) == found
    main = [name for name in re.findall(r"\[([a-z.]+)\]", picture()) if "." not in name]
    assert main == [role.name for role in diagram(CONFIG)][:3]


def test_the_arrows_of_the_picture_are_those_of_the_diagram() -> None:
    """What stands left of a sink's box it reads; what stands under a role's box, up to the next one, it writes."""
    by_name = {role.name: role for role in diagram(CONFIG)}
    for topic, sink in re.findall(rf"(tailrace\.[a-z.]+) *{ARROW}\[(sink\.\w+)\]", picture()):
        assert topic in by_name[sink].reads, (topic, sink)
    boxes = re.split(r"\[(ingest|sample|aggregate)\]", picture().split(" every stage")[0])
    for name, text in zip(boxes[1::2], boxes[2::2], strict=True):
        assert set(re.findall(r"tailrace\.[a-z.]+", text)) == set(by_name[name].writes) - {"tailrace.dlq"}


def test_where_sample_reads_raw_topics_itself_ingest_is_there_for_metrics_alone() -> None:
    keyed = {**MINIMAL, "inputs": INPUTS, "regroup": "never"}
    found = {role.name: role for role in diagram(Config.model_validate(keyed))}
    assert found["sample"].reads == ("otlp_spans", "otlp_logs")
    assert (found["ingest"].reads, found["ingest"].writes) == (("otlp_metrics",), ("tailrace.points", "tailrace.dlq"))
    assert "ingest" not in [role.name for role in diagram(Config.model_validate(keyed | {"inputs": INPUTS[:2]}))]
    groups = roles.build(application("keyed"), Config.model_validate(keyed), ["all"], Started())
    assert {group.role: sorted(group._topics) for group in groups} == {
        role.name: sorted(role.reads) for role in found.values()
    }


async def test_groups_read_what_the_diagram_says() -> None:
    """Under the group's name of the role, two sinks of a kind apart from each other."""
    sinks = SINKS | {"jaeger/eu": {"endpoint": "http://eu:4318"}}
    config = Config.model_validate({**MINIMAL, "inputs": INPUTS, "sinks": sinks})
    groups = roles.build(application("roles"), config, ["all"], Started())
    topics = Topics(config.kafka.prefix)
    assert [(g.role, g.group_id, sorted(g._topics)) for g in groups] == [
        (role.name, topics.group(role.name), sorted(role.reads)) for role in diagram(config)
    ]


def test_every_internal_topic_is_written_and_read() -> None:
    """Decisions are read by their writer when it takes over; the dead-letter queue is the operator's."""
    t = Topics("tailrace")
    internal = {spec.name for spec in topic_specs(CONFIG)}
    written = {topic for role in diagram(CONFIG) for topic in role.writes}
    read = {topic for role in diagram(CONFIG) for topic in role.reads}
    assert written == internal
    assert read == internal - {t.decisions, t.dlq} | {"otlp_spans", "otlp_logs", "otlp_metrics"}


def test_without_regrouping_sample_reads_the_raw_topics() -> None:
    """No ingest, no topics between; what ingest would write beside them is sample's."""
    config = Config.model_validate({**MINIMAL, "inputs": INPUTS[:2], "regroup": "never"})
    sample, aggregate = diagram(config)
    assert (sample.name, sample.reads) == ("sample", ("otlp_spans", "otlp_logs"))
    assert {"tailrace.untraced.logs", "tailrace.dlq"} < set(sample.writes)
    specs = {spec.name for spec in topic_specs(config)}
    assert specs == {*sample.writes, *aggregate.writes}
    assert not specs & {"tailrace.spans", "tailrace.logs"}
    with pytest.raises(ConfigError, match="--role ingest: with regroup: never there is none"):
        expand(config, ["ingest"])


@pytest.mark.parametrize(
    ("inputs", "rule"),
    [
        (
            [{"topic": "a", "signal": "traces", "encoding": "otlp_json"}],
            r"0\.encoding: .*otlp_proto alone; otlp_json needs ingest",
        ),
        ([{"topic": "a", "signal": "traces"}, {"topic": "b", "signal": "traces"}], "one topic of traces, and"),
        ([{"topic": "a", "signal": "logs"}], "needs a topic with signal: traces"),
    ],
)
def test_what_cannot_be_read_directly_is_refused(inputs: list[dict[str, str]], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Config.model_validate({**MINIMAL, "regroup": "never", "inputs": inputs})


def test_each_topic_but_the_points_and_dead_letters_has_one_writing_role() -> None:
    writers: dict[str, list[str]] = {}
    for role in diagram(CONFIG):
        for topic in role.writes:
            writers.setdefault(topic, []).append(role.name)
    assert {topic for topic, names in writers.items() if len(names) > 1} == {"tailrace.dlq", "tailrace.points"}


@pytest.mark.parametrize(
    ("names", "expanded"),
    [
        (["sample"], ["sample"]),
        (["sinks"], ["sink.jaeger", "sink.elasticsearch", "sink.prometheus"]),
        (["all"], ["ingest", "sample", "aggregate", "sink.jaeger", "sink.elasticsearch", "sink.prometheus"]),
        (["sample", "all", "sample"], ["sample", "ingest", "aggregate", *(f"sink.{name}" for name in SINKS)]),
        ([], []),
    ],
)
def test_names_that_stand_for_several_roles(names: list[str], expanded: list[str]) -> None:
    assert expand(CONFIG, names) == expanded


@pytest.mark.parametrize("name", ["smaple", "sink", "sink.kibana", "jaeger", ""])
def test_another_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--role {name}: no such role; .* ingest, sample, aggregate, sink.jaeger"):
        expand(CONFIG, ["ingest", name])


def test_a_sink_that_is_not_configured_is_no_role() -> None:
    with pytest.raises(ConfigError, match="has ingest, sample, aggregate, sinks, all"):
        expand(Config.model_validate(MINIMAL), ["sink.jaeger"])


async def test_roles_wait_for_their_topics(kafka: Kafka) -> None:
    """F20: for those that these roles touch, and never make one by asking for it."""
    config = config_for(kafka.bootstrap, prefix=fresh("roles"), partitions=1, metric_partitions=1)
    waiting = asyncio.create_task(wait_for_servers(config, ["sample"]))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await ensure(config) == []
    await asyncio.wait_for(waiting, DEADLINE)


async def test_topics_that_break_the_protocol_are_refused(kafka: Kafka) -> None:
    """F20, F21: made by somebody else, with another N and the producers' time."""
    config = config_for(kafka.bootstrap, prefix=fresh("roles"), partitions=2, metric_partitions=1)
    topics = Topics(config.kafka.prefix)
    await create(kafka.bootstrap, {topics.spans: 3})
    await ensure(config)
    with pytest.raises(
        ConfigError, match=rf"{topics.spans}: has 3 partitions, the configuration says 2; .*LogAppendTime"
    ):
        await asyncio.wait_for(wait_for_servers(config, ["sample"]), DEADLINE)


async def test_topics_of_the_release_before_are_told_and_stop_no_worker(
    kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    """They have no room for a whole envelope beside the largest row."""
    config = config_for(kafka.bootstrap, prefix=fresh("roles"), partitions=1, metric_partitions=1)
    await ensure(config)
    for size, refused in ((15 << 19, False), (9 << 20, True)):
        larger = config.model_copy(update={"limits": config.limits.model_copy(update={"max_span_bytes": size})})
        waiting = asyncio.wait_for(wait_for_servers(larger, ["sample"]), DEADLINE)
        if refused:
            with pytest.raises(ConfigError, match=r"max\.message\.bytes is 8388608"):
                await waiting
        else:
            await waiting
            assert "a topic should be altered" in caplog.text


async def test_waiting_ends_when_the_worker_is_told_to_stop() -> None:
    stopping = asyncio.Event()
    servers = wait_for_servers(config_for(f"127.0.0.1:{free_port()}"), ["sample"])
    waiting = asyncio.create_task(unless_stopped(stopping, servers))
    stopping.set()
    await asyncio.wait_for(waiting, DEADLINE)
