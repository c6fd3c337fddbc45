"""Which member of a group gets which partitions. All keep those of several topics with one number together."""

from __future__ import annotations

from typing import Any

from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata


class Spread(RangePartitionAssignor):  # type: ignore[misc]
    """The range assignor: every member gets its part of each topic."""

    @classmethod
    def forget(cls) -> None:
        """The group has gone on without this member: what it had is another's."""


def first_partitions(count: int) -> type[Spread]:
    """The range assignor over the first `count` partitions of each topic: what lies beyond is of an earlier N."""

    class Cluster:
        def __init__(self, cluster: Any) -> None:
            self._cluster = cluster

        def partitions_for_topic(self, topic: str) -> set[int] | None:
            found: set[int] | None = self._cluster.partitions_for_topic(topic)
            return None if found is None else {partition for partition in found if partition < count}

    class FirstPartitions(Spread):
        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            return super().assign(Cluster(cluster), members)

    return FirstPartitions


def one_member() -> type[Spread]:
    """All partitions for one member, for a group of one worker: it keeps them while others come and go."""

    class OneMember(Spread):
        has = b""

        @classmethod
        def forget(cls) -> None:
            cls.has = b""

        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            first = min(members, key=lambda member: (not members[member].user_data, member))
            waiting = {member: ConsumerProtocolMemberAssignment(cls.version, [], b"") for member in members}
            return waiting | super().assign(cluster, {first: members[first]})

        @classmethod
        def metadata(cls, topics: Any) -> Any:
            return ConsumerProtocolMemberMetadata(cls.version, list(topics), cls.has)

        @classmethod
        def on_assignment(cls, assignment: Any) -> None:
            cls.has = b"all" if assignment.assignment else b""

    return OneMember
