"""Consumer groups of the simulated Kafka, as their coordinator sees them: the classic protocol, eager.

A rebalance has two phases. All members join again, or are left behind after a session (*preparing*); then the leader
says who gets what (*completing*). A member is known by its id and the generation that it joined: a heartbeat or a
commit with others is refused. A transaction, as aiokafka 0.14 sends it, is not asked for either: there epochs alone
count (docs/adr/0003). test_conformance.py asks a real coordinator the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.simulation.kafka import Place

SESSION = 3_000  # ms, of workers


class UnknownMember(Exception):
    """Its session ended, or it has left."""


class IllegalGeneration(Exception):
    """The group has gone on without it."""


class Rebalancing(Exception):
    """The member has to join again, or to wait for the leader."""


@dataclass(slots=True)
class Member:
    """`seen` is when it was last heard of (ms), `joined` whether it has joined the next generation."""

    seen: int
    joined: bool = True
    assigned: Sequence[Place] = ()


@dataclass(slots=True)
class Group:
    """One group. `session` is in ms, also of how long a rebalance waits for its members."""

    session: int
    generation: int = 0
    state: Literal["empty", "preparing", "completing", "stable"] = "empty"
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    _since: int = 0
    _ids: int = 0

    def join(self, member: str, now: int, client: str = "member") -> str:
        """JoinGroup; "" to become a member, whose id begins with that of the client; once all have joined, `joined`
        answers. Raises UnknownMember.
        """
        if not member:
            self._ids += 1
            member = f"{client}-{self._ids}"
            self.members[member] = Member(now)
        known = self._known(member)
        if self.state != "preparing":
            self._prepare(now)
        known.joined, known.seen = True, now
        self._complete(now)
        return member

    def joined(self, member: str) -> int | None:
        """The generation that the member has joined; None while others are waited for. Raises UnknownMember."""
        self._known(member)
        return None if self.state == "preparing" else self.generation

    def sync(
        self, member: str, generation: int, now: int, assignment: Mapping[str, Sequence[Place]] | None = None
    ) -> Sequence[Place] | None:
        """SyncGroup, with everybody's assignment from the leader: the own one; None until the leader has told.

        Raises UnknownMember, IllegalGeneration, Rebalancing.
        """
        known = self._current(member, generation)
        if self.state == "preparing":
            raise Rebalancing
        known.seen = now
        if self.state == "completing" and assignment is not None and member == self.leader:
            for name, one in self.members.items():
                one.assigned = assignment.get(name, ())
            self.state = "stable"
        return known.assigned if self.state == "stable" else None

    def heartbeat(self, member: str, generation: int, now: int) -> None:
        """Raises UnknownMember, IllegalGeneration; Rebalancing if the member has to join again."""
        self._current(member, generation).seen = now
        if self.state == "preparing":
            raise Rebalancing

    def may_commit(self, member: str, generation: int) -> None:
        """A commit of offsets outside a transaction. Raises UnknownMember, IllegalGeneration, Rebalancing."""
        self._current(member, generation)
        if self.state == "completing":
            raise Rebalancing

    def leave(self, member: str, now: int) -> None:
        """LeaveGroup. Raises UnknownMember."""
        self._known(member)
        self._remove([member], now)

    def expire(self, now: int) -> None:
        """Sessions that are over, and members that a rebalance has waited for long enough."""
        waited = self.state == "preparing" and now - self._since > self.session
        silent = {name for name, one in self.members.items() if now - one.seen > self.session}
        behind = {name for name, one in self.members.items() if not one.joined}
        joined = {name for name, one in self.members.items() if self.state == "preparing" and one.joined}
        self._remove(sorted((silent - joined) | (behind if waited else set())), now)

    def _known(self, member: str) -> Member:
        if member not in self.members:
            raise UnknownMember
        return self.members[member]

    def _current(self, member: str, generation: int) -> Member:
        known = self._known(member)
        if generation != self.generation:
            raise IllegalGeneration
        return known

    def _remove(self, gone: Sequence[str], now: int) -> None:
        for name in gone:
            del self.members[name]
        if gone and self.members and self.state in ("stable", "completing"):
            self._prepare(now)
        if gone:
            self._complete(now)

    def _prepare(self, now: int) -> None:
        self.state, self._since = "preparing", now
        for one in self.members.values():
            one.joined = False

    def _complete(self, now: int) -> None:
        """All have joined: a new generation, whose leader now has to tell."""
        if not self.members:
            self.state = "empty"
        elif self.state == "preparing" and all(one.joined for one in self.members.values()):
            self.generation += 1
            self.state = "completing"
            if self.leader not in self.members:
                self.leader = next(iter(self.members))
            for one in self.members.values():
                one.seen, one.assigned = now, ()


def ranges(members: Sequence[str], topics: Mapping[str, int]) -> dict[str, list[Place]]:
    """The range assignor: of each topic every member gets partitions that follow each other."""
    given: dict[str, list[Place]] = {name: [] for name in members}
    for topic, count in topics.items():
        each, more = divmod(count, len(members))
        first = 0
        for place, name in enumerate(sorted(members)):
            upto = first + each + (place < more)
            given[name] += [(topic, partition) for partition in range(first, upto)]
            first = upto
    return given
