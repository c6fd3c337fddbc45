"""The internal topics and the ACLs in the words of other tools, for whoever may make them.

Each form is a module with `topics(config)` and `acls(config, users)`, both the text to print; `users` maps the name of
each user to its ACLs. No secret is ever in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.config import Config
from pipeline.kafka.acls import Acl
from pipeline.printed import kafka_cli, strimzi, terraform


class Form(Protocol):
    """One way to print."""

    def topics(self, config: Config) -> str:
        """All internal topics."""

    def acls(self, config: Config, users: Mapping[str, Sequence[Acl]]) -> str:
        """The ACLs of these users. Raises ConfigError for a user that the other tool could not name."""


FORMS: dict[str, Form] = {"kafka-cli": kafka_cli, "strimzi": strimzi, "terraform": terraform}
