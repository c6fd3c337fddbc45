"""`kafka-topics.sh` and `kafka-acls.sh` of Apache Kafka."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.config import Config
from pipeline.kafka.acls import Acl, Operation, Resource, grouped, user_of
from pipeline.kafka.topics import topic_specs
from schemas.kafka_client import Security


class Cluster(Protocol):
    """Brokers and how to log in: the pipeline's, or those of a sink."""

    @property
    def bootstrap_servers(self) -> list[str]:
        """`host:port` of some."""

    @property
    def security(self) -> Security:
        """Ours; whoever runs the commands has client.properties."""


def topics(config: Config) -> str:
    """A command for each topic."""
    lines = []
    for spec in topic_specs(config):
        words = [*_tool("kafka-topics.sh", config.kafka), "--create", "--if-not-exists"]
        words += ["--topic", spec.name, "--partitions", str(spec.partitions)]
        if config.kafka.replication_factor > 0:
            words += ["--replication-factor", str(config.kafka.replication_factor)]
        for key, value in spec.configs.items():
            words += ["--config", f"{key}={value}"]
        lines.append(shlex.join(words))
    return "\n".join(lines)


def setting(cluster: Cluster, topic: str, key: str, value: str | int) -> str:
    """The command that changes a setting of a topic."""
    words = [*_tool("kafka-configs.sh", cluster), "--alter", "--entity-type", "topics", "--entity-name", topic]
    return shlex.join([*words, "--add-config", f"{key}={value}"])


def acls(config: Config, users: Mapping[str, Sequence[Acl]]) -> str:
    """A command for all resources of a user on which the operations are the same."""
    lines = []
    for user, granted in users.items():
        alike: dict[tuple[str, bool, tuple[Operation, ...]], list[Resource]] = {}
        for resource, operations in grouped(granted):
            alike.setdefault((resource.kind, resource.prefixed, tuple(operations)), []).append(resource)
        lines += [grant(config.kafka, user, operations, found) for (_, _, operations), found in alike.items()]
    return "\n".join(lines)


def grant(cluster: Cluster, user: str, operations: Sequence[Operation], resources: Sequence[Resource]) -> str:
    """The command that allows the operations on each of the resources, which are of one kind and pattern."""
    words = [*_tool("kafka-acls.sh", cluster), "--add", "--allow-principal", f"User:{user}"]
    for operation in operations:
        words += ["--operation", operation]
    if resources[0].prefixed:
        words += ["--resource-pattern-type", "prefixed"]
    for resource in resources:
        words += [f"--{resource.kind}", resource.name]
    return shlex.join(words)


def remedy(cluster: Cluster, acl: Acl) -> str:
    """Who lacks a right that we need, and the command that grants it."""
    user = user_of(cluster.security)
    return f"{user} has no such right; grant it: {grant(cluster, user, [acl.operation], [acl.resource])}"


def _tool(name: str, cluster: Cluster) -> list[str]:
    words = [name, "--bootstrap-server", ",".join(cluster.bootstrap_servers)]
    if cluster.security.protocol != "PLAINTEXT":
        words += ["--command-config", "client.properties"]
    return words
