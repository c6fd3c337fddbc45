"""Which of the rights that roles need this user has, asked of the brokers. Nothing is written or disturbed.

Who may not describe ACLs can still learn its own. Of a topic Kafka tells them (KIP-430, version 8 of Metadata). For
groups and transactional ids a request is sent that changes nothing: a heartbeat of a member, and the end of a
transaction of a producer, that do not exist; the question for a coordinator. Brokers authorize before they look
(KafkaApis), so the refusal tells.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    SecurityDisabled,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import DescribeAclsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from pipeline.kafka.acls import Acl, Operation

# Of org.apache.kafka.common.acl.AclOperation; an answer is a bit field of them.
CODES: dict[Operation, int] = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "DescribeConfigs": 10,
}  # fmt: skip
NOT_TOLD = -(1 << 31)  # what a broker says instead of a bit field if it has none
NOBODY = "check"  # a member that no coordinator knows; behind a prefix, a transactional id that no worker has
NO_PRODUCER = -1
GROUP = 0  # a coordinator's type: asking for it needs Describe
TOPIC, LITERAL, ANY = 2, 3, 1  # of ResourceType, PatternType, and both AclOperation and AclPermissionType


async def missing(admin: AIOKafkaAdminClient, wanted: Collection[Acl]) -> list[Acl]:
    """What of `wanted` the client's user may not do, in that order. Raises KafkaError.

    What cannot be told, such as reading a topic that does not exist, is not missing.
    """
    topics = {acl for acl in wanted if acl.resource.kind == "topic"}
    lacking = await on_topics(admin, topics)
    lacking |= {acl for acl in set(wanted) - topics if not await _may(admin, acl)}
    return [acl for acl in wanted if acl in lacking]


async def unguarded(admin: AIOKafkaAdminClient) -> bool:
    """Whether these brokers have no authorizer: everybody may do everything. Raises KafkaError."""
    request: Any = DescribeAclsRequest(TOPIC, NOBODY, LITERAL, None, None, ANY, ANY)
    return bool((await admin._send_request(request)).error_code == SecurityDisabled.errno)


async def on_topics(admin: AIOKafkaAdminClient, wanted: Collection[Acl]) -> set[Acl]:
    """What of `wanted`, on topics alone, the client's user may not do. Raises KafkaError.

    Of a topic that is hidden or absent each operation is asked for on its own, as far as that is harmless.
    """
    names = sorted({acl.resource.name for acl in wanted})
    if not names:
        return set()
    told: dict[str, int] = {}
    hidden: set[str] = set()
    answer = await admin._send_request(_TopicRights(names))
    for code, name, _internal, _partitions, operations in answer.topics:
        if code == TopicAuthorizationFailedError.errno:
            hidden.add(name)
        elif not code and operations != NOT_TOLD:
            told[name] = operations
    untold = [acl for acl in wanted if acl.resource.name not in told]
    refused: dict[str, set[str]] = {
        "DescribeConfigs": await _configs_refused(admin, _names(untold, "DescribeConfigs")),
        "Create": await _creation_refused(admin, _names(untold, "Create")),
    }
    lacking = {acl for acl in untold if acl.resource.name in refused.get(acl.operation, hidden)}
    for acl in wanted:
        if acl.resource.name in told and not told[acl.resource.name] >> CODES[acl.operation] & 1:
            lacking.add(acl)
    return lacking


def _names(acls: Collection[Acl], operation: Operation) -> list[str]:
    return sorted({acl.resource.name for acl in acls if acl.operation == operation})


async def _configs_refused(admin: AIOKafkaAdminClient, names: Collection[str]) -> set[str]:
    if not names:
        return set()
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        name
        for answer in answers
        for code, _message, _kind, name, _entries in answer.resources
        if code == TopicAuthorizationFailedError.errno
    }


async def _creation_refused(admin: AIOKafkaAdminClient, names: Collection[str]) -> set[str]:
    if not names:
        return set()
    answer = await admin.create_topics([NewTopic(name, 1, 1) for name in names], validate_only=True)
    return {name for name, code, *_ in answer.topic_errors if code == TopicAuthorizationFailedError.errno}


async def _may(admin: AIOKafkaAdminClient, acl: Acl) -> bool:
    """Whether a right on groups (Read, Describe) or on transactional ids (Write) is there."""
    name = acl.resource.name + (NOBODY if acl.resource.prefixed else "")
    request: Any
    if acl.resource.kind == "transactional-id":
        request, refusal = EndTxnRequest(name, NO_PRODUCER, 0, False), TransactionalIdAuthorizationFailed
    elif acl.operation == "Read":
        request, refusal = HeartbeatRequest(name, 0, NOBODY), GroupAuthorizationFailedError
    else:
        request, refusal = FindCoordinatorRequest(name, GROUP), GroupAuthorizationFailedError
    answer = await admin._send_request(request)
    return bool(answer.error_code != refusal.errno)


class _TopicRightsResponse(Response):  # type: ignore[misc]
    """Metadata, version 8: the last one before flexible versions, the first with authorized operations."""

    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _TopicRightsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _TopicRightsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicRights(Request[_TopicRightsRequest]):  # type: ignore[misc]
    """What the user may do with these topics; makes none of them."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicRightsRequest]) -> _TopicRightsRequest:
        return request_struct_class(self._topics, False, False, True)
