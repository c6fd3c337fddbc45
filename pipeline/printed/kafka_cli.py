"""`kafka-topics.sh` and `kafka-acls.sh` of Apache Kafka."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pipeline.acls import Acl, Operation, Resource, grouped, user_of
from pipeline.config import Config
from pipeline.topics import topic_specs


def topics(config: Config) -> str:
    """A command for each topic."""
    lines = []
    for spec in topic_specs(config):
        words = [*_tool("kafka-topics.sh", config), "--create", "--if-not-exists"]
        words += ["--topic", spec.name, "--partitions", str(spec.partitions)]
        if config.kafka.replication_factor > 0:
            words += ["--replication-factor", str(config.kafka.replication_factor)]
        for key, value in spec.configs.items():
            words += ["--config", f"{key}={value}"]
        lines.append(shlex.join(words))
    return "\n".join(lines)


def acls(config: Config, users: Mapping[str, Sequence[Acl]]) -> str:
    """A command for all resources of a user on which the operations are the same."""
    lines = []
    for user, granted in users.items():
        alike: dict[tuple[str, bool, tuple[Operation, ...]], list[Resource]] = {}
        for resource, operations in grouped(granted):
            alike.setdefault((resource.kind, resource.prefixed, tuple(operations)), []).append(resource)
        lines += [grant(config, user, operations, found) for (_, _, operations), found in alike.items()]
    return "\n".join(lines)


def grant(config: Config, user: str, operations: Sequence[Operation], resources: Sequence[Resource]) -> str:
    """The command that allows the operations on each of the resources, which are of one kind and pattern."""
    words = [*_tool("kafka-acls.sh", config), "--add", "--allow-principal", f"User:{user}"]
    for operation in operations:
        words += ["--operation", operation]
    if resources[0].prefixed:
        words += ["--resource-pattern-type", "prefixed"]
    for resource in resources:
        words += [f"--{resource.kind}", resource.name]
    return shlex.join(words)


def remedy(config: Config, acl: Acl) -> str:
    """The command that grants the configured user what it lacks."""
    return grant(config, user_of(config), [acl.operation], [acl.resource])


def _tool(name: str, config: Config) -> list[str]:
    words = [name, "--bootstrap-server", ",".join(config.kafka.bootstrap_servers)]
    if config.kafka.security.protocol != "PLAINTEXT":
        words += ["--command-config", "client.properties"]
    return words
