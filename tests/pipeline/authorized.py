"""A broker that lets nobody do anything but what ACLs say, and what grants them: for tests of rights."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipeline.kafka.acls import OPERATIONS, Acl, Resource
from tests.services.process import HOST, free_port
from tests.services.servers import Kafka
from tests.services.waiting import wait_for

SECRET = "let-me-in"
ADMINISTRATOR = "root"
TIMEOUT = 30.0

Right = tuple[str, Acl]
"""A user and what it may do."""

_KINDS = {"topic": "TOPIC", "group": "GROUP", "transactional-id": "TRANSACTIONAL_ID"}
_NAMES = ["READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS"]
_OPERATIONS = dict(zip(OPERATIONS, _NAMES, strict=True))


class Authorized(Kafka):
    """Its plain listener is the administrator's; at `address` users log in with SCRAM-SHA-512."""

    def __init__(self) -> None:
        super().__init__()
        self.address = f"{HOST}:{free_port()}"
        self.properties |= {
            "listeners": f"{self.properties['listeners']},USERS://{self.address}",
            "advertised.listeners": f"{self.properties['advertised.listeners']},USERS://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.users.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.users.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{ADMINISTRATOR}",
        }

    def security(self, user: str, password: str = SECRET) -> dict[str, Any]:
        """`kafka.security` of a user."""
        login = {"sasl_mechanism": "SCRAM-SHA-512", "username": user, "password": password}
        return {"protocol": "SASL_PLAINTEXT", **login}

    def add_users(self, names: Iterable[str]) -> None:
        """Users who may log in, once the broker has heard of them; only the administrator may do more."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        for name in names:
            user = UserScramCredentialUpsertion(name, credential, SECRET.encode())
            for done in self._admin.alter_user_scram_credentials([user]).values():
                done.result(TIMEOUT)
            wait_for(lambda name=name: self._knows(name), TIMEOUT, f"the broker knows {name}")  # type: ignore[misc]

    def _knows(self, user: str) -> bool:
        (described,) = self._admin.describe_user_scram_credentials([user]).values()
        return described.exception(TIMEOUT) is None

    def grant(self, rights: Iterable[Right]) -> None:
        """Allow it."""
        bindings = [AclBinding(*_described(right), AclPermissionType.ALLOW) for right in rights]
        for done in self._admin.create_acls(bindings).values():
            done.result(TIMEOUT)

    def revoke(self, right: Right) -> None:
        """Allow it no more. Raises AssertionError if it was not allowed."""
        (done,) = self._admin.delete_acls([AclBindingFilter(*_described(right), AclPermissionType.ALLOW)]).values()
        assert len(done.result(TIMEOUT)) == 1, right

    def granted(self) -> int:
        """How many ACLs there are."""
        everything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        return len(self._admin.describe_acls(everything).result(TIMEOUT))

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})


def _described(right: Right) -> tuple[Any, ...]:
    user, acl = right
    resource = acl.resource
    pattern = ResourcePatternType.PREFIXED if resource.prefixed else ResourcePatternType.LITERAL
    kind = getattr(ResourceType, _KINDS[resource.kind])
    return kind, resource.name, pattern, f"User:{user}", "*", getattr(AclOperation, _OPERATIONS[acl.operation])


def rights_of_commands(text: str) -> set[Right]:
    """What printed `kafka-acls.sh` commands grant; another word in them is an error."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--command-config")
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True, choices=OPERATIONS)
    parser.add_argument("--resource-pattern-type", choices=["literal", "prefixed"], default="literal")
    for kind in _KINDS:
        parser.add_argument(f"--{kind}", action="append", default=[], dest=kind)
    found = set()
    for line in text.splitlines():
        tool, *words = shlex.split(line)
        assert tool == "kafka-acls.sh"
        given = parser.parse_args(words)
        user = given.allow_principal.removeprefix("User:")
        for kind in _KINDS:
            for name in getattr(given, kind):
                resource = Resource(kind, name, given.resource_pattern_type == "prefixed")  # type: ignore[arg-type]
                found |= {(user, Acl(resource, operation)) for operation in given.operation}
    return found
