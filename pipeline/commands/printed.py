"""The internal topics and the rights of a worker as shell commands, for whoever may run them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pipeline.config import Config
from pipeline.topics import topic_specs


def commands(config: Config) -> list[str]:
    """`kafka-topics.sh` calls that create the internal topics, for whoever may run them."""
    target = ["kafka-topics.sh", "--bootstrap-server", ",".join(config.kafka.bootstrap_servers)]
    if config.kafka.security.protocol != "PLAINTEXT":
        target += ["--command-config", "client.properties"]
    lines = []
    for spec in topic_specs(config):
        words = [*target, "--create", "--if-not-exists", "--topic", spec.name, "--partitions", str(spec.partitions)]
        if config.kafka.replication_factor > 0:
            words += ["--replication-factor", str(config.kafka.replication_factor)]
        for key, value in spec.configs.items():
            words += ["--config", f"{key}={value}"]
        lines.append(shlex.join(words))
    return lines


def acl_commands(config: Config) -> list[str]:
    """`kafka-acls.sh` calls that grant what workers need; the principal is the configured user, or one to fill in."""
    target = ["kafka-acls.sh", "--bootstrap-server", ",".join(config.kafka.bootstrap_servers)]
    if config.kafka.security.protocol != "PLAINTEXT":
        target += ["--command-config", "client.properties"]
    target += ["--add", "--allow-principal", f"User:{config.kafka.security.username or 'tailrace'}"]

    def grant(operations: Sequence[str], *resource: str) -> str:
        words = [word for operation in operations for word in ("--operation", operation)]
        return shlex.join([*target, *words, *resource])

    prefixed = ("--resource-pattern-type", "prefixed")
    mine = f"{config.kafka.prefix}."
    # Delete: the aggregate deletes ticks that nobody needs any more.
    on_topics = ("Read", "Write", "Create", "Delete", "Describe", "DescribeConfigs")
    return [
        grant(on_topics, *prefixed, "--topic", mine),
        grant(("Read", "Describe"), *prefixed, "--group", mine),
        grant(("Write", "Describe"), *prefixed, "--transactional-id", mine),
        *(grant(("Read", "Describe"), "--topic", item.topic) for item in config.inputs),
    ]
