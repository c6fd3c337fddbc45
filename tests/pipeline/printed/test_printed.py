"""What is printed for other tools: valid there, the same in every form, without secrets."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import hcl2
import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.config import Config
from pipeline.kafka.acls import Acl, Resource
from pipeline.kafka.topics import topic_specs
from pipeline.printed import FORMS, kafka_cli, strimzi, terraform
from pipeline.rights import CREATOR, by_user, needed
from schemas.errors import ConfigError
from tests.pipeline.authorized import Right, rights_of_commands
from tests.pipeline.configs import MINIMAL
from tests.repository import ROOT

SASL = {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "username": "etl", "password": "hunter2"}
SETTINGS: dict[str, Any] = {
    **MINIMAL,
    "kafka": {"bootstrap_servers": ["x:1"], "prefix": "tail_race", "replication_factor": 3, "security": SASL},
    "inputs": [{"topic": "otlp.spans", "signal": "traces"}, {"topic": "otlp_logs", "signal": "logs"}],
    "sinks": {
        "jaeger": {"endpoint": "http://jaeger:4318"},
        "jaeger/eu": {"endpoint": "http://eu:4318"},
        "elasticsearch": {"endpoint": "http://elasticsearch:9200"},
        "prometheus": {"endpoint": "http://prometheus:9090/api/v1/write"},
    },
}
CONFIG = Config.model_validate(SETTINGS)
USERS = by_user(CONFIG, ["all", CREATOR], "tailrace-{role}")
RIGHTS: set[Right] = {(user, acl) for user, granted in USERS.items() for acl in granted}

Topic = tuple[str, int, int, dict[str, str]]


def schema(kind: str) -> dict[str, Any]:
    """The custom resource's schema (deploy/schemas/README.md), closed: a misspelt field is an error."""
    path = ROOT / "deploy" / "schemas" / "strimzi-1.2.0" / f"{kind.lower()}.yaml"
    (version,) = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["versions"]
    assert version["name"] == strimzi.API_VERSION.rsplit("/", 1)[1]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    close(found)
    return found


def close(found: Any) -> None:
    """Allow no other properties than those named, where some are."""
    for value in found.values() if isinstance(found, dict) else ():
        close(value)
    if isinstance(found, dict) and found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)


SCHEMAS = {kind: Draft202012Validator(schema(kind)) for kind in ("KafkaTopic", "KafkaUser")}


def resources(text: str, kind: str) -> Iterator[dict[str, Any]]:
    """The documents, each of this kind and as its schema says."""
    for found in yaml.safe_load_all(text):
        assert (found["kind"], found["apiVersion"]) == (kind, strimzi.API_VERSION)
        assert [error.message for error in SCHEMAS[kind].iter_errors(found)] == []
        yield found


def blocks(text: str, kind: str) -> dict[str, dict[str, Any]]:
    """The resources of a Terraform file by name."""
    found: dict[str, dict[str, Any]] = {}
    for resource in hcl2.loads(text)["resource"]:
        ((quoted, named),) = resource.items()
        assert quoted.strip('"') == kind
        ((name, body),) = named.items()
        assert name not in found
        found[name] = {key: plain(value) for key, value in body.items() if not key.startswith("__")}
    return found


def plain(value: Any) -> Any:
    """Strings without HCL's quotes, keys of maps too."""
    if isinstance(value, dict):
        return {key.strip('"'): plain(item) for key, item in value.items() if not key.startswith("__")}
    return value.strip('"') if isinstance(value, str) else value


def topics_of_commands() -> list[Topic]:
    found = []
    for line in kafka_cli.topics(CONFIG).splitlines():
        tool, *words = shlex.split(line)
        assert tool == "kafka-topics.sh"
        assert words[:4] == ["--bootstrap-server", "x:1", "--command-config", "client.properties"]
        assert words[4:6] == ["--create", "--if-not-exists"]
        given = list(zip(words[6::2], words[7::2], strict=True))
        one = dict(given)
        configs = dict(value.split("=", 1) for key, value in given if key == "--config")
        found.append((one["--topic"], int(one["--partitions"]), int(one["--replication-factor"]), configs))
    return found


def topics_of_resources() -> list[Topic]:
    found = []
    for topic in resources(strimzi.topics(CONFIG), "KafkaTopic"):
        spec = topic["spec"]
        name = spec.get("topicName", topic["metadata"]["name"])
        found.append((name, spec["partitions"], spec["replicas"], spec["config"]))
    return found


def topics_of_blocks() -> list[Topic]:
    """The fields are those of docs/resources/topic.md of Mongey/terraform-provider-kafka, which requires all four."""
    found = blocks(terraform.topics(CONFIG), "kafka_topic").values()
    assert all(body.keys() == {"name", "partitions", "replication_factor", "config"} for body in found)
    return [(body["name"], body["partitions"], body["replication_factor"], body["config"]) for body in found]


@pytest.mark.parametrize("read", [topics_of_commands, topics_of_resources, topics_of_blocks])
def test_every_form_has_all_topics_with_their_settings(read: Callable[[], list[Topic]]) -> None:
    assert read() == [(spec.name, spec.partitions, 3, dict(spec.configs)) for spec in topic_specs(CONFIG)]


def rights_of_resources(text: str) -> set[Right]:
    kinds: dict[str, Any] = {"topic": "topic", "group": "group", "transactionalId": "transactional-id"}
    found: set[Right] = set()
    for user in resources(text, "KafkaUser"):
        for rule in user["spec"]["authorization"]["acls"]:
            of = rule["resource"]
            resource = Resource(kinds[of["type"]], of["name"], of["patternType"] == "prefix")
            found |= {(user["metadata"]["name"], Acl(resource, operation)) for operation in rule["operations"]}
    return found


def rights_of_blocks(text: str) -> set[Right]:
    """The fields and their values are those of docs/resources/acl.md of Mongey/terraform-provider-kafka."""
    kinds: dict[str, Any] = {"Topic": "topic", "Group": "group", "TransactionalID": "transactional-id"}
    found: set[Right] = set()
    for body in blocks(text, "kafka_acl").values():
        assert (body.pop("acl_host"), body.pop("acl_permission_type")) == ("*", "Allow")
        prefixed = {"Literal": False, "Prefixed": True}[body.pop("resource_pattern_type_filter")]
        resource = Resource(kinds[body.pop("resource_type")], body.pop("resource_name"), prefixed)
        found.add((body.pop("acl_principal").removeprefix("User:"), Acl(resource, body.pop("acl_operation"))))
        assert not body
    return found


@pytest.mark.parametrize(
    ("form", "read"),
    [("kafka-cli", rights_of_commands), ("strimzi", rights_of_resources), ("terraform", rights_of_blocks)],
)
def test_every_form_grants_the_same(form: str, read: Callable[[str], set[Right]]) -> None:
    assert read(FORMS[form].acls(CONFIG, USERS)) == RIGHTS


@pytest.mark.parametrize("form", FORMS)
def test_no_secret_is_printed(form: str) -> None:
    assert "hunter2" not in FORMS[form].topics(CONFIG) + FORMS[form].acls(CONFIG, USERS)


def test_the_schema_notices_a_misspelt_field() -> None:
    user = next(resources(strimzi.acls(CONFIG, USERS), "KafkaUser"))
    user["spec"]["authorization"]["acls"][0]["operation"] = ["Read"]
    assert [error.validator for error in SCHEMAS["KafkaUser"].iter_errors(user)] == ["additionalProperties"]


def test_names_that_kubernetes_does_not_allow() -> None:
    """A topic has a name of its own beside; a user would be another one."""
    first = next(resources(strimzi.topics(CONFIG), "KafkaTopic"))
    assert (first["metadata"]["name"], first["spec"]["topicName"]) == ("tail-race.spans", "tail_race.spans")
    with pytest.raises(ConfigError, match="tail_race cannot be a KafkaUser"):
        strimzi.acls(CONFIG, by_user(CONFIG, ["all"], "tail_race"))


@pytest.mark.parametrize(
    ("security", "authentication"),
    [
        ({"protocol": "PLAINTEXT"}, None),
        ({"protocol": "SSL"}, None),
        ({"protocol": "SSL", "cert_file": "c.pem"}, {"type": "tls"}),
        ({**SASL, "sasl_mechanism": "PLAIN"}, None),
        (SASL, {"type": "scram-sha-512"}),
    ],
)
def test_the_user_operator_makes_what_is_logged_in_with(
    security: dict[str, str], authentication: dict[str, str] | None
) -> None:
    config = Config.model_validate({**SETTINGS, "kafka": {"bootstrap_servers": ["x:1"], "security": security}})
    (user,) = resources(strimzi.acls(config, by_user(config, ["all"], None)), "KafkaUser")
    assert user["spec"].get("authentication") == authentication


def test_terraform_names_are_unique_and_strings_are_no_templates() -> None:
    inputs = [{"topic": name, "signal": "traces"} for name in ("a.b", "a_b", "a-b")]
    config = Config.model_validate({**SETTINGS, "inputs": inputs})
    text = terraform.acls(config, by_user(config, ["ingest"], "${evil} %{x}"))
    assert {acl for _, acl in rights_of_blocks(text)} == set(needed(config, ["ingest"]))
    assert text.count("$${evil} %%{x}") == text.count("acl_principal")
