"""The printed commands: complete, quoted, without secrets."""

from __future__ import annotations

import shlex

from pipeline.commands.printed import acl_commands, commands
from pipeline.topics import topic_specs
from tests.pipeline.configs import config_for


def test_commands() -> None:
    security = {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "etl", "password": "hunter2"}
    config = config_for("x:1", replication_factor=3, security=security)
    lines = commands(config)
    assert len(lines) == len(topic_specs(config))
    words = shlex.split(lines[0])
    assert words[words.index("--topic") + 1] == "tailrace.spans"
    assert words[words.index("--replication-factor") + 1] == "3"
    assert "message.timestamp.type=LogAppendTime" in words
    acls = acl_commands(config)
    assert any("--transactional-id" in line and "prefixed" in line for line in acls)
    assert any("--topic otlp_spans" in line for line in acls)
    assert all("User:etl" in line for line in acls)
    assert "hunter2" not in "".join(lines + acls)
