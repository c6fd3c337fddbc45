"""What each role needs follows from the diagram, and only from it."""

from __future__ import annotations

import pytest

from pipeline.config import Config
from pipeline.kafka.acls import Acl, Resource, grouped
from pipeline.rights import CANARY, CREATOR, DEAD_LETTERS, by_user, needed
from pipeline.roles import Role, diagram
from schemas.errors import ConfigError
from tests.pipeline.configs import MINIMAL, config_for

SINKS = {
    "jaeger/eu": {"endpoint": "http://jaeger:4318"},
    "prometheus": {"endpoint": "http://prometheus:9090/api/v1/write"},
}
CONFIG = Config.model_validate({**MINIMAL, "sinks": SINKS})
DIRECT = Config.model_validate({**MINIMAL, "regroup": "never"})


def operations(names: list[str], config: Config = CONFIG) -> dict[str, list[str]]:
    return {str(resource): list(found) for resource, found in grouped(needed(config, names))}


def test_what_aggregate_needs() -> None:
    """It reads its own ticks again and deletes the old ones."""
    assert operations(["aggregate"]) == {
        "topic tailrace.points": ["Read", "DescribeConfigs"],
        "topic tailrace.samples": ["Read", "Write", "Delete", "DescribeConfigs"],
        "topic tailrace.dlq": ["Write", "DescribeConfigs"],
        "group tailrace.aggregate": ["Read"],
        "transactional-id tailrace.aggregate.*": ["Write"],
    }


def test_what_a_sink_needs() -> None:
    """The offsets of ingest tell the N in force, which topics are checked by."""
    assert operations(["sink.jaeger/eu"]) == {
        "topic tailrace.kept.spans": ["Read", "DescribeConfigs"],
        "topic tailrace.dlq": ["Write", "DescribeConfigs"],
        "group tailrace.ingest*": ["Describe"],
        "group tailrace.sink.jaeger/eu": ["Read"],
    }


@pytest.mark.parametrize("role", diagram(CONFIG), ids=lambda role: role.name)
def test_every_topic_of_a_role_has_its_operations(role: Role) -> None:
    told = operations([role.name])
    for topic in role.reads:
        assert "Read" in told[f"topic {topic}"]
    for topic in role.writes:
        assert "Write" in told[f"topic {topic}"]
    touched = {f"topic {topic}" for topic in (*role.reads, *role.writes)}
    assert {resource for resource in told if resource.startswith("topic ")} == touched


@pytest.mark.parametrize(("servers", "found"), [(["localhost:9092"], ["Write"]), (["other:9092"], [])])
def test_a_kafka_sink_writes_its_topic_where_it_is_the_same_user(servers: list[str], found: list[str]) -> None:
    sinks = {"kafka": {"bootstrap_servers": servers, "topic": "out"}}
    config = Config.model_validate({**MINIMAL, "sinks": sinks})
    assert operations(["sink.kafka"], config).get("topic out", []) == found


def test_ingest_may_have_a_group_for_each_signal() -> None:
    assert operations(["ingest"])["group tailrace.ingest*"] == ["Read"]


def test_raw_topics_are_read_and_nothing_else() -> None:
    assert operations(["ingest"])["topic otlp_spans"] == ["Read"]


def test_raw_topics_that_sample_reads_itself_have_their_settings_checked() -> None:
    found = operations(["all"], DIRECT)
    assert found["topic otlp_spans"] == ["Read", "DescribeConfigs"]
    assert found["topic tailrace.dlq"] == ["Write", "DescribeConfigs"]
    assert not {"group tailrace.ingest*", "topic tailrace.spans"} & found.keys()


def test_who_creates_topics_may_see_them() -> None:
    """Unless another right implies it."""
    found = operations([CREATOR])
    assert found.pop("group tailrace.ingest*") == ["Describe"]
    assert set(map(tuple, found.values())) == {("Create", "Describe", "DescribeConfigs")}
    assert operations([CREATOR], DIRECT)["topic otlp_spans"] == ["Describe", "DescribeConfigs"]
    assert operations(["sample", CREATOR])["topic tailrace.spans"] == ["Read", "Create", "DescribeConfigs"]
    assert operations(["sample", CREATOR])["topic tailrace.samples"] == ["Create", "Describe", "DescribeConfigs"]


def test_nothing_twice() -> None:
    found = needed(CONFIG, ["all", "sinks", CREATOR])
    assert len(found) == len(set(found))


def test_without_transactions_there_are_no_ids() -> None:
    config = config_for("a:1", transactions=False)
    assert not [acl for acl in needed(config, ["all"]) if acl.resource.kind == "transactional-id"]


def test_users() -> None:
    found = by_user(CONFIG, ["sample", "sink.jaeger/eu", CREATOR], "etl-{role}")
    assert list(found) == ["etl-sample", "etl-sink.jaeger-eu", "etl-topics"]
    assert found["etl-sample"] == needed(CONFIG, ["sample"])
    assert by_user(CONFIG, ["all"], None) == {"tailrace": needed(CONFIG, ["all"])}
    security = {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "etl", "password": "p"}
    assert list(by_user(config_for("a:1", security=security), ["all"], None)) == ["etl"]


def test_the_canary_writes_raw_topics_and_is_not_among_all() -> None:
    inputs = [*MINIMAL["inputs"], {"topic": "otlp_logs", "signal": "logs"}]
    canary = {"jaeger": {"endpoint": "http://jaeger:16686"}}
    config = Config.model_validate({**MINIMAL, "inputs": inputs, "canary": canary})
    assert operations([CANARY], config) == {"topic otlp_spans": ["Write"], "topic otlp_logs": ["Write"]}
    assert operations(["all"], config)["topic otlp_spans"] == ["Read"]
    assert operations(["all", CANARY], config)["topic otlp_spans"] == ["Read", "Write"]
    assert list(by_user(config, ["sample", CANARY], "etl-{role}")) == ["etl-sample", "etl-canary"]
    with pytest.raises(ConfigError, match="canary: is required"):
        needed(CONFIG, [CANARY])


def test_who_replays_dead_letters_writes_raw_topics_and_receipts() -> None:
    assert operations([DEAD_LETTERS]) == {
        "topic tailrace.dlq": ["Read", "Write"],
        "topic otlp_spans": ["Write"],
        "transactional-id tailrace.dlq": ["Write"],
    }
    assert operations([DEAD_LETTERS], config_for("a:1", transactions=False)).keys() == {
        "topic tailrace.dlq",
        "topic otlp_spans",
    }


def test_a_role_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--role topic: no such role"):
        needed(CONFIG, ["topic"])


def test_as_text() -> None:
    assert str(Acl(Resource("transactional-id", "a.", prefixed=True), "Write")) == "Write on transactional-id a.*"
