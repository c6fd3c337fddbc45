"""All topics and rights as commands of Apache Kafka's own tools."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pipeline.config import Config
from pipeline.kafka.acls import Acl, Operation, Resource, grouped
from pipeline.kafka.tools import command, grant
from pipeline.kafka.topics import topic_specs


def topics(config: Config) -> str:
    """A command for each topic."""
    lines = []
    for spec in topic_specs(config):
        words = [*command("kafka-topics.sh", config.kafka), "--create", "--if-not-exists"]
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
        lines += [grant(config.kafka, user, operations, found) for (_, _, operations), found in alike.items()]
    return "\n".join(lines)
