"""KafkaTopic and KafkaUser of the Strimzi operators, `kafka.strimzi.io/v1` (Strimzi 0.49 and newer).

The label `strimzi.io/cluster` says which operators see them; the cluster's name is not in our configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.kafka.acls import Acl, grouped
from pipeline.kafka.topics import topic_specs
from schemas.errors import ConfigError
from schemas.kafka_client import Security

API_VERSION = "kafka.strimzi.io/v1"
CLUSTER = "my-cluster"
KINDS = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}
# metadata.name of any custom resource: a DNS subdomain (RFC 1123).
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_HINT = f"# The label strimzi.io/cluster has to be the name of your Kafka resource, not {CLUSTER}.\n"


def topics(config: Config) -> str:
    """A KafkaTopic for each topic; a name that Kubernetes does not allow goes into `spec.topicName`."""
    found = []
    for spec in topic_specs(config):
        name = re.sub(r"[^a-z0-9.-]", "-", spec.name.lower()).strip(".-")
        body: dict[str, Any] = {} if name == spec.name else {"topicName": spec.name}
        body["partitions"] = spec.partitions
        if config.kafka.replication_factor > 0:
            body["replicas"] = config.kafka.replication_factor
        found.append(_resource("KafkaTopic", name, {**body, "config": dict(spec.configs)}))
    return _documents(found)


def acls(config: Config, users: Mapping[str, Sequence[Acl]]) -> str:
    """A KafkaUser for each user, logging in as the configuration says."""
    found = []
    for user, granted in users.items():
        if not _OBJECT_NAME.fullmatch(user):
            raise ConfigError(f"{user} cannot be a KafkaUser: --user takes lower-case letters, digits, - and . there")
        rules = [
            {
                "resource": {
                    "type": KINDS[resource.kind],
                    "name": resource.name,
                    "patternType": "prefix" if resource.prefixed else "literal",
                },
                "operations": list(operations),
            }
            for resource, operations in grouped(granted)
        ]
        body = _authentication(config.kafka.security) | {"authorization": {"type": "simple", "acls": rules}}
        found.append(_resource("KafkaUser", user, body))
    return _documents(found)


def _authentication(security: Security) -> dict[str, Any]:
    """What the user operator makes credentials for; it knows no other ways to log in."""
    if security.sasl_mechanism == "SCRAM-SHA-512":
        return {"authentication": {"type": "scram-sha-512"}}
    if security.protocol == "SSL" and security.cert_file is not None:
        return {"authentication": {"type": "tls"}}
    return {}


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}


def _documents(found: Iterable[Mapping[str, Any]]) -> str:
    return _HINT + yaml.safe_dump_all(found, sort_keys=False, explicit_start=True).rstrip("\n")
