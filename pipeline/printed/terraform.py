"""Resources of the Terraform provider `Mongey/kafka` (its docs/resources/topic.md and acl.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline.config import Config
from pipeline.kafka.acls import Acl
from pipeline.kafka.topics import topic_specs

KINDS = {"topic": "Topic", "group": "Group", "transactional-id": "TransactionalID"}

Value = str | int | Mapping[str, str]


def topics(config: Config) -> str:
    """A kafka_topic for each topic. The provider wants a replication factor; -1 is the broker's default."""
    names = _Names()
    return "\n\n".join(
        _block(
            "kafka_topic",
            names.of(spec.name),
            {
                "name": spec.name,
                "partitions": spec.partitions,
                "replication_factor": config.kafka.replication_factor,
                "config": spec.configs,
            },
        )
        for spec in topic_specs(config)
    )


def acls(config: Config, users: Mapping[str, Sequence[Acl]]) -> str:
    """A kafka_acl for each operation on each resource."""
    names = _Names()
    blocks = []
    for user, granted in users.items():
        for acl in granted:
            resource = acl.resource
            fields: dict[str, Value] = {
                "resource_type": KINDS[resource.kind],
                "resource_name": resource.name,
                "resource_pattern_type_filter": "Prefixed" if resource.prefixed else "Literal",
                "acl_principal": f"User:{user}",
                "acl_host": "*",
                "acl_operation": acl.operation,
                "acl_permission_type": "Allow",
            }
            label = names.of(f"{user} {resource.kind} {resource.name.rstrip('.')} {acl.operation.lower()}")
            blocks.append(_block("kafka_acl", label, fields))
    return "\n\n".join(blocks)


class _Names:
    """Names of resources: what Terraform allows, each once. They stay the same when others come and go."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, text: str) -> str:
        """Letters, digits, underscores and hyphens, not beginning with a digit."""
        name = re.sub(r"[^a-zA-Z0-9-]", "_", text)
        name = f"_{name}" if name[0].isdigit() or name[0] == "-" else name
        while name in self._taken:  # such as a.b and a_b
            name += "_"
        self._taken.add(name)
        return name


def _block(kind: str, name: str, fields: Mapping[str, Value]) -> str:
    return "\n".join([f'resource "{kind}" "{name}" {{', *_lines(fields, "  "), "}"])


def _lines(fields: Mapping[str, Value], indent: str) -> Iterator[str]:
    """`key = value`, aligned as `terraform fmt` does."""
    width = max(len(_key(key)) for key, value in fields.items() if not isinstance(value, Mapping))
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield f"{indent}{_key(key)} = {{"
            yield from _lines(value, f"{indent}  ")
            yield f"{indent}}}"
        else:
            yield f"{indent}{_key(key):{width}} = {value if isinstance(value, int) else _quoted(value)}"


def _key(key: str) -> str:
    return key if key.isidentifier() else _quoted(key)


def _quoted(text: str) -> str:
    """A literal string: `${` and `%{` would begin a template."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
