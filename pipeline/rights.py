"""The rights that each role needs, as Kafka's ACLs: the fewest with which it works.

They follow from `roles.diagram`, so a new role or topic has its ACLs as soon as it is in the picture. `Describe` is not
among them where `Read`, `Write` or `Delete` is: Kafka's authorizers let each of these imply it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config import Config
from pipeline.kafka.acls import Acl, Operation, Resource, user_of
from pipeline.kafka.topics import Topics, canary_topics, direct_topics, placed_by_trace, topic_specs
from pipeline.roles import Role, diagram, expand

CREATOR = "topics"
"""Stands among role names for whoever runs `tailrace topics FILE --create`."""
CANARY = "canary"
"""Stands among role names for whoever runs `tailrace canary`."""
DEAD_LETTERS = "dlq"
"""Stands among role names for whoever runs `tailrace dlq`."""
RESIZER = "resize"
"""Stands among role names for whoever runs `tailrace topics resize`."""
OTHERS = (CREATOR, CANARY, DEAD_LETTERS, RESIZER)

_IMPLY_DESCRIBE = {"Read", "Write", "Delete", "Alter"}


def needed(config: Config, names: Sequence[str]) -> list[Acl]:
    """What these roles need together; OTHERS may stand among them. Raises ConfigError for other names."""
    chosen = expand(config, [name for name in names if name not in OTHERS])
    found = [acl for role in diagram(config) if role.name in chosen for acl in _of_role(config, role)]
    if CREATOR in names:
        operations: tuple[Operation, ...] = ("Create", "Describe", "DescribeConfigs")
        found += [Acl(Resource("topic", spec.name), o) for spec in topic_specs(config) for o in operations]
        found += [Acl(Resource("topic", name), o) for name in direct_topics(config) for o in operations[1:]]
        found += _placement(config)
    if CANARY in names:
        found += [Acl(Resource("topic", name), "Write") for name in canary_topics(config)]
    if DEAD_LETTERS in names:
        found += _replaying(config)
    if RESIZER in names:
        found += _resizing(config)
    seen = {acl.resource for acl in found if acl.operation in _IMPLY_DESCRIBE}
    return [acl for acl in dict.fromkeys(found) if acl.operation != "Describe" or acl.resource not in seen]


def by_user(config: Config, names: Sequence[str], user: str | None) -> dict[str, list[Acl]]:
    """What each user needs so that these roles run. `{role}` in `user` stands for the role's name, with - for /.

    The default is the configured user, or `tailrace`, for all roles.
    """
    others = [name for name in OTHERS if name in names]
    users: dict[str, list[str]] = {}
    for name in [*expand(config, [name for name in names if name not in OTHERS]), *others]:
        named = (user or user_of(config.kafka.security)).replace("{role}", name.replace("/", "-"))
        users.setdefault(named, []).append(name)
    return {named: needed(config, roles) for named, roles in users.items()}


def _of_role(config: Config, role: Role) -> list[Acl]:
    topics = Topics(config.kafka.prefix)
    # A worker refuses to run on topics whose settings break the protocol.
    checked = {spec.name for spec in topic_specs(config)} | set(direct_topics(config))
    found = []
    touched = dict.fromkeys((*role.reads, *role.writes))
    for name in touched:
        resource = Resource("topic", name)
        found += [Acl(resource, operation) for operation in _on_topic(role, name)]
        if name in checked:
            found.append(Acl(resource, "DescribeConfigs"))
    if touched.keys() & set(placed_by_trace(config)):
        found += _placement(config)
    found += [Acl(Resource("topic", name), "Write") for name in _sent_to(config, role)]
    found.append(Acl(Resource("group", topics.group(role.name), prefixed=role.by_signal), "Read"))
    if role.transactional and config.kafka.transactions:
        # One id for each input partition: `prefix.role.…` (Topics.transactional_id).
        found.append(Acl(Resource("transactional-id", f"{topics.group(role.name)}.", prefixed=True), "Write"))
    return found


def _replaying(config: Config) -> list[Acl]:
    """`list` and `show` need the first of them alone."""
    topics = Topics(config.kafka.prefix)
    written = [Acl(Resource("topic", name), "Write") for name in (topics.dlq, *(i.topic for i in config.inputs))]
    found = [Acl(Resource("topic", topics.dlq), "Read"), *written]
    if config.kafka.transactions:
        found.append(Acl(Resource("transactional-id", topics.group(DEAD_LETTERS)), "Write"))
    return found


def _resizing(config: Config) -> list[Acl]:
    """What `ingest` and `sample` may, whose epochs and offsets it takes over, more partitions, and an id of its own."""
    found = [acl for role in diagram(config) if role.name in ("ingest", "sample") for acl in _of_role(config, role)]
    found += [Acl(Resource("topic", name), "Alter") for name in placed_by_trace(config)]
    return [*found, Acl(Resource("transactional-id", Topics(config.kafka.prefix).resize), "Write")]


def _placement(config: Config) -> list[Acl]:
    """The N in force, by which topics are checked, is told by the offsets of ingest (pipeline/kafka/topics.py)."""
    groups = Resource("group", Topics(config.kafka.prefix).group("ingest"), prefixed=True)
    return [Acl(groups, "Describe")] if config.regroup == "always" else []


def _sent_to(config: Config, role: Role) -> list[str]:
    """The topic of a kafka sink on the pipeline's own brokers, whose user is the role's."""
    sink = config.sinks.get(role.name.removeprefix("sink."))
    own = config.kafka
    same = sink is not None and set(sink.bootstrap_servers) & set(own.bootstrap_servers)
    return [sink.topic] if sink and same and sink.security.username == own.security.username else []


def _on_topic(role: Role, name: str) -> Iterator[Operation]:
    if name in role.reads or name in role.replays:
        yield "Read"
    if name in role.writes:
        yield "Write"
    if name in role.trims:
        yield "Delete"
