"""Commands of Apache Kafka's own tools: what a message says that somebody may run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Protocol

from pipeline.kafka.acls import Acl, Operation, Resource, user_of
from schemas.kafka_client import Security


class Cluster(Protocol):
    """Brokers and how to log in: the pipeline's, or those of a sink."""

    @property
    def bootstrap_servers(self) -> list[str]:
        """`host:port` of some."""

    @property
    def security(self) -> Security:
        """Ours; whoever runs the commands has client.properties."""


def setting(cluster: Cluster, topic: str, key: str, value: str | int) -> str:
    """The command that changes a setting of a topic."""
    words = [*command("kafka-configs.sh", cluster), "--alter", "--entity-type", "topics", "--entity-name", topic]
    return shlex.join([*words, "--add-config", f"{key}={value}"])


def partitions(cluster: Cluster, topic: str, count: int) -> str:
    """The command that gives a topic more partitions."""
    words = [*command("kafka-topics.sh", cluster), "--alter", "--topic", topic, "--partitions", str(count)]
    return shlex.join(words)


def grant(cluster: Cluster, user: str, operations: Sequence[Operation], resources: Sequence[Resource]) -> str:
    """The command that allows the operations on each of the resources, which are of one kind and pattern."""
    words = [*command("kafka-acls.sh", cluster), "--add", "--allow-principal", f"User:{user}"]
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


def command(name: str, cluster: Cluster) -> list[str]:
    """The first words of each: the tool, the brokers and how to log in."""
    words = [name, "--bootstrap-server", ",".join(cluster.bootstrap_servers)]
    if cluster.security.protocol != "PLAINTEXT":
        words += ["--command-config", "client.properties"]
    return words
