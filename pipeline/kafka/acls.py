"""What an ACL of Kafka is about and allows, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.kafka_client import Security

DEFAULT_USER = "tailrace"

Kind = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What an ACL is about: a name, or all names that begin with it. `kind` is as `kafka-acls.sh` has it."""

    kind: Kind
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}{'*' if self.prefixed else ''}"


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One operation that is allowed on one resource."""

    resource: Resource
    operation: Operation

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource}"


def user_of(security: Security) -> str:
    """Who the configured login is to the brokers; a certificate's or a token's name is not known here."""
    return security.username or DEFAULT_USER


def grouped(acls: Iterable[Acl]) -> list[tuple[Resource, list[Operation]]]:
    """All operations on a resource together, resources in the order of the ACLs."""
    found: dict[Resource, set[Operation]] = {}
    for acl in acls:
        found.setdefault(acl.resource, set()).add(acl.operation)
    return [(resource, sorted(operations, key=OPERATIONS.index)) for resource, operations in found.items()]
