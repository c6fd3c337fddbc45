"""Who owns which partition, in the simulation: anybody at any time, or members of consumer groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import ProtocolError
from tests.simulation.downstream import Aggregate, Sink
from tests.simulation.groups import SESSION, Group, IllegalGeneration, Rebalancing, UnknownMember, ranges
from tests.simulation.kafka import Fenced, Offsets, OutOfRange, Place
from tests.simulation.owners import Ingest, Sample
from tests.simulation.releases import Release

if TYPE_CHECKING:
    from tests.simulation.history import Simulation

UNOWNED = (500, 6_000)  # ms that a partition is left without an owner
MOST_WORKERS = 3  # of a role

Owner = Ingest | Sample | Aggregate | Sink


class Slot(NamedTuple):
    """What a role owns: a partition, or the pair of it."""

    role: str
    place: Place

    def __str__(self) -> str:
        return f"{self.role} {self.place[0]}/{self.place[1]}"


class Owning(ABC):
    """Somebody owns every slot of the simulation, more or less. `moved`: leases that a rebalance took away."""

    moved = 0

    @abstractmethod
    def act(self) -> None:
        """Somebody does a step."""

    @abstractmethod
    def disturb(self) -> None:
        """Somebody ends, sleeps, comes or goes."""

    @abstractmethod
    def wake(self) -> None:
        """Somebody acts whose slot may be another's by now."""

    @abstractmethod
    def everybody(self) -> Iterator[tuple[Slot, Owner]]:
        """Every slot with its owner, once all is well."""

    @abstractmethod
    def lost(self, slot: Slot, owner: Owner) -> None:
        """It was fenced, or has lost an answer: what it knows counts no longer (I3)."""

    def expire(self) -> None:  # noqa: B027  without sessions time changes nothing
        """Time has gone on."""

    def unowned(self) -> list[Slot]:
        """Slots that nobody has, or more than one, when all is well."""
        return []

    @abstractmethod
    def replace(self, releases: tuple[Release, ...]) -> None:
        """Workers of other releases end; some sleep, and wake as zombies."""

    def end_outdated(self, owner: Owner) -> bool:
        """End the worker of this owner if it has slept through a resize; whether it had."""
        return False

    @abstractmethod
    def stop(self, *roles: str) -> bool:
        """Stop these roles; False if there still are members that do not hear of it."""


class Anybody(Owning):
    """Without groups: each slot by itself is taken from its owner, left alone, given to the next."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._owners: dict[Slot, Owner] = {}
        self._zombies: list[tuple[int, Owner]] = []  # each with the era that it knows
        self._unowned_until: dict[Slot, int] = {}

    def _own(self, slot: Slot) -> Owner | None:
        owner = self._owners.get(slot)
        if owner is None and self._sim.broker.now >= self._unowned_until.get(slot, 0):
            self._sim.tell(f"{slot}: a new owner")
            try:
                owner = self._owners[slot] = self._sim.slots[slot]()
            except Fenced:  # the answer to its first checkpoint was lost
                return None
        return owner

    def act(self) -> None:
        """Any owner, of those that are there."""
        slot = self._sim.rng.choice(self._sim.running)
        owner = self._own(slot)
        if owner is not None:
            try:
                owner.step()
            except Fenced:
                self._sim.tell(f"{slot}: fenced, or an answer was lost")
                self._owners.pop(slot, None)

    def wake(self) -> None:
        """An owner whose slot was given to another."""
        if self._zombies and self._sim.rng.random() < 0.5:
            era, zombie = self._sim.rng.choice(self._zombies)
            try:
                zombie.step()
            except (Fenced, OutOfRange, ProtocolError) as error:  # OutOfRange: its successor has passed that
                self._zombies.remove((era, zombie))
                if isinstance(error, ProtocolError) and era == self._sim.era:
                    raise

    def disturb(self) -> None:
        """A slot loses its owner, who may live on."""
        rng = self._sim.rng
        slot = rng.choice(self._sim.running)
        owner = self._owners.pop(slot, None)
        if owner is None:
            return
        kind = rng.random()
        if kind < 0.3:
            self._sim.tell(f"{slot}: its owner is a zombie now")
            self._zombies.append((self._sim.era, owner))  # it goes on while somebody else takes over
        elif kind < 0.6:
            self._sim.tell(f"{slot}: unowned")
            self._unowned_until[slot] = self._sim.broker.now + rng.choice(UNOWNED)
        else:
            self._sim.tell(f"{slot}: its owner ended")

    def everybody(self) -> Iterator[tuple[Slot, Owner]]:
        """Nothing is unowned."""
        self._unowned_until.clear()
        for slot in self._sim.running:
            owner = self._own(slot)
            assert owner is not None, f"nobody takes {slot} over"
            yield slot, owner

    def lost(self, slot: Slot, owner: Owner) -> None:
        """The next one takes over."""
        self._owners.pop(slot, None)

    def replace(self, releases: tuple[Release, ...]) -> None:
        """Their slots are taken over."""
        for slot in [slot for slot, owner in self._owners.items() if owner.release not in releases]:
            self._zombies.append((self._sim.era, self._owners.pop(slot)))

    def stop(self, *roles: str) -> bool:
        """At once; some sleep through it."""
        for slot in [slot for slot in self._owners if slot.role in roles]:
            owner = self._owners.pop(slot)
            if self._sim.rng.random() < 0.5:
                self._zombies.append((self._sim.era, owner))
        return True


class Worker:
    """A member of the group of its role, as pipeline.kafka.consume is one: leases come back from a rebalance, or go."""

    def __init__(self, sim: Simulation, client: str, role: str, group: Group) -> None:
        self.sim, self.client, self.role, self.group = sim, client, role, group
        self.leases: dict[Slot, Owner] = {}
        self.assigned: list[Slot] = []
        self.asleep_until, self.release, self.era = 0, sim.release(), sim.era
        self.generation = self.served = -1  # that it has joined, that it was given partitions in
        self.joining = True
        self.member = group.join("", sim.broker.now, client)

    @property
    def asleep(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""
        return self.sim.broker.now < self.asleep_until

    def step(self) -> None:
        """Hear of the group, or work on a lease; those of a sink go on together."""
        if self.sim.rng.random() < 0.4 or not self.assigned:
            self.poll()
            return
        for slot in self.assigned if self.role == "sink" else [self.sim.rng.choice(self.assigned)]:
            self._work(slot)

    def _work(self, slot: Slot) -> None:
        owner = self.own(slot)
        if owner is None:
            return
        try:
            owner.step()
        except (Fenced, OutOfRange) as error:
            if isinstance(error, OutOfRange) and self.sim.newest(owner):
                raise
            self.sim.tell(f"{slot}: fenced, or an answer was lost")
            self.leases.pop(slot, None)

    def own(self, slot: Slot) -> Owner | None:
        """The lease, taken over if there is none; not in a rebalance, and not before a zombie had heard of one."""
        if slot not in self.leases and not self.joining:
            try:
                self.group.heartbeat(self.member, self.generation, self.sim.broker.now)
            except (UnknownMember, IllegalGeneration, Rebalancing):
                return None
            self.sim.tell(f"{slot}: {self.member} takes over")
            try:
                owner = self.leases[slot] = self.sim.slots[slot]()
            except Fenced:
                return None
            owner.release = self.release
            if isinstance(owner, Sink):
                owner.commits = self.commit
        return self.leases.get(slot)

    def commit(self, _: Sink, offsets: Offsets) -> bool:
        """A plain commit, and whether it was made; if not, a heartbeat will tell why."""
        if self.joining:
            return False
        try:
            self.sim.broker.commit_plain(self.group, self.member, self.generation, offsets)
        except (UnknownMember, IllegalGeneration, Rebalancing):
            return False
        return True

    def poll(self) -> None:
        """A heartbeat, or what a rebalance needs next."""
        group, now = self.group, self.sim.broker.now
        try:
            if not self.joining:
                group.heartbeat(self.member, self.generation, now)
                return
            generation = group.joined(self.member)
            if generation is None:
                return
            self.generation = generation
            given = ranges(list(group.members), self.sim.topics_of(self.role)) if self.member == group.leader else None
            places = group.sync(self.member, generation, now, given)
        except (UnknownMember, IllegalGeneration, Rebalancing) as error:
            self._join(anew=isinstance(error, UnknownMember))
            return
        if places is not None:
            self._assign([Slot(self.role, place) for place in places])

    def _join(self, anew: bool) -> None:
        """Everything is revoked; leases stay until somebody else has their slots."""
        if not self.joining and not anew:
            for owner in self.leases.values():
                if isinstance(owner, Sink) and self.sim.rng.random() < 0.5:
                    owner.commit()
        self.joining = True
        self.member = self.group.join("" if anew else self.member, self.sim.broker.now, self.client)

    def missed(self) -> bool:
        """Whether the group had a generation without it: somebody else may have had its slots."""
        return self.generation != self.served + 1

    def _assign(self, slots: list[Slot]) -> None:
        missed, self.served = self.missed(), self.generation
        for slot in [slot for slot in self.leases if slot not in slots]:
            self.sim.tell(f"{slot}: moves away from {self.member}")
            self.sim.owning.moved += 1
            del self.leases[slot]
        for slot, owner in list(self.leases.items()):
            if isinstance(owner, Sink):
                owner.began = owner.to.commits  # it can know whether another one has had the slot meanwhile
                if missed:
                    del self.leases[slot]
        self.assigned, self.joining = slots, False

    def leave(self) -> None:
        """SIGTERM: what was sent is committed, then it goes."""
        for owner in list(self.leases.values()):
            if isinstance(owner, Sink):
                owner.commit()
        try:
            self.group.leave(self.member, self.sim.broker.now)
        except UnknownMember:
            return


class Members(Owning):
    """Each role has a group, and workers that join it, leave it, sleep beyond their session or end without a word."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._groups: dict[str, Group] = {}
        self._workers: list[Worker] = []
        self._started = 0

    def expire(self) -> None:
        """Time goes on for the coordinator."""
        for group in self._groups.values():
            group.expire(self._sim.broker.now)

    def _start(self, role: str) -> Worker:
        group = self._groups.setdefault(role, Group(SESSION))
        self._started += 1
        # Who takes a sink's partitions comes back as the same one, and is given them again; elsewhere more may move.
        client = f"sink-{self._started}" if role == "sink" else "member"
        worker = Worker(self._sim, client, role, group)
        self._workers.append(worker)
        self._sim.tell(f"{role}: {worker.member} joins")
        return worker

    def _of(self, role: str) -> list[Worker]:
        return [worker for worker in self._workers if worker.role == role]

    def act(self) -> None:
        """A worker of any role."""
        role = self._sim.rng.choice(self._sim.roles)
        awake = [worker for worker in self._of(role) if not worker.asleep]
        worker = self._sim.rng.choice(awake) if awake else self._start(role)
        try:
            worker.step()
        except ProtocolError:
            if worker.era == self._sim.era:
                raise
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        self._sim.tell(f"{worker.role}: {worker.member} ends, it knows another N")
        self._workers.remove(worker)

    def end_outdated(self, owner: Owner) -> bool:
        """It has read what only the next N knows."""
        outdated = [one for one in self._workers if owner in one.leases.values() and one.era != self._sim.era]
        for worker in outdated:
            self._end(worker)
        return bool(outdated)

    def wake(self) -> None:
        """Nobody: who has slept goes on as if nothing had happened (`act`)."""

    def disturb(self) -> None:
        """A worker comes, leaves, sleeps, ends."""
        rng = self._sim.rng
        role = rng.choice(self._sim.roles)
        workers, kind = self._of(role), rng.random()
        if kind < 0.3 or not workers:
            if len(workers) < MOST_WORKERS:
                self._start(role)
            return
        worker = rng.choice(workers)
        if kind < 0.6:
            worker.asleep_until = self._sim.broker.now + rng.choice((SESSION // 2, 2 * SESSION))
            self._sim.tell(f"{role}: {worker.member} sleeps")
            return
        self._workers.remove(worker)
        if kind < 0.75:
            self._sim.tell(f"{role}: {worker.member} leaves")
            worker.leave()
        else:
            self._sim.tell(f"{role}: {worker.member} is killed")

    def everybody(self) -> Iterator[tuple[Slot, Owner]]:
        """All are awake, and what each has been assigned is its own: at first some of that is still a dead member's."""
        for role in self._sim.roles:
            if not self._of(role):
                self._start(role)
        for worker in self._workers:
            worker.asleep_until = 0
        for _ in range(3):  # join, lead, follow
            for worker in self._workers:
                worker.poll()
        for worker in list(self._workers):
            for slot in worker.assigned:
                if worker not in self._workers:
                    break  # it has ended at the slot before
                if (owner := worker.own(slot)) is not None:
                    yield slot, owner

    def unowned(self) -> list[Slot]:
        """Slots that no worker has, or more than one."""
        owned = [slot for worker in self._workers for slot in worker.leases]
        return [slot for slot in self._sim.running if owned.count(slot) != 1]

    def lost(self, slot: Slot, owner: Owner) -> None:
        """Whoever has it takes over again, if it still is its own."""
        for worker in self._workers:
            if worker.leases.get(slot) is owner:
                del worker.leases[slot]

    def replace(self, releases: tuple[Release, ...]) -> None:
        """Others, of these releases, come."""
        for worker in [one for one in self._workers if one.release not in releases]:
            self._workers.remove(worker)
            worker.leave()

    def stop(self, *roles: str) -> bool:
        """Workers that are awake leave; a group is empty when the sessions of the others are over."""
        for worker in [one for one in self._workers if one.role in roles and not one.asleep]:
            self._workers.remove(worker)
            worker.leave()
        return not any(self._groups[role].members for role in roles if role in self._groups)
