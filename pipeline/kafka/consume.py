"""How roles read Kafka: whole fetches, explicit positions, one lease per owned input partition.

A `Group` is one consumer group of one role in one worker: an AIOKafkaConsumer (range assignor, so partition i of
spans and of logs go to the same worker; read_committed; no auto-commit; every position set by us) run as a service
of the Faust app. It feeds the role's Faust agent through an in-memory channel with everything that one fetch
returned for a partition (docs/adr/0001).

A `Lease` (lease.py) is the ownership of one input partition (of a pair for `sample`) under one epoch (I3).
The group makes it when the partition is assigned and keeps it across a rebalance that gives the partition back. When a
lease raises a Kafka error its state is gone: it is closed, ownership is confirmed by waiting a heartbeat, and a new one
is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError, RebalanceInProgressError
from aiokafka.structs import OffsetAndMetadata
from mode import Service

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka.assignors import Spread
from pipeline.kafka.brokers import METADATA_AGE_MS, Brokers
from pipeline.kafka.fetch_wait import FetchWait
from pipeline.kafka.fetching import POLL_MS, RETAKE_BACKOFF, consumer_kwargs
from pipeline.kafka.lease import Lease
from pipeline.kafka.pace import BurstSize, Turns
from pipeline.kafka.topics import Topics
from pipeline.watching.identity import process_name
from pipeline.watching.watchdog import LOOKS, Watchdog, awaited
from schemas.errors import ProtocolError, Retryable, Unavailable
from schemas.kafka_connect import away
from schemas.raw_records import Records

log = logging.getLogger(__name__)

IDLE_MS = 1_000  # that the group waits for what is fetched, while no partition is held
PIECE_BYTES = 1 << 20  # of values that take one turn: a fetch has no more, but what it has may be compressed
CHANNEL_SIZE = 1  # pieces between consumer and agent: they wait decompressed, and both have the one loop
PAUSE_LIMIT = 3.0  # seconds a rebalance waits for answers, and for what is committed then
REVOKE_LIMIT = 2.0  # seconds it waits for a commit that is under way; both are less than a session
CLOSE_LIMIT = 10.0  # seconds after which a lease that was told to end is no longer waited for
FEW_ERRORS = 5  # of fetching, that say nothing yet
CORRUPT = "fetching it again does not help; docs/runbooks/NotReady.md says how to go on"
RENEWAL_LIMIT = 120.0  # seconds that a takeover after a reload may last before the worker says so: NotReady takes 300
TAKEOVER_LEAST = 30.0  # seconds before a takeover is watched: a predecessor's transaction may have to time out


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch returned for one partition or a piece of it, and under which lease and assignment."""

    unit: Hashable
    lease: Lease
    assignment: int
    partition: TopicPartition
    records: Sequence[ConsumerRecord]


def pieces(lengths: Sequence[int]) -> Iterator[slice]:
    """Of consecutive values of these bytes: PIECE_BYTES together at most, or single ones."""
    first = size = 0
    for place, length in enumerate(lengths) if sum(lengths) > PIECE_BYTES else ():
        size += length
        if size > PIECE_BYTES and place > first:
            yield slice(first, place)
            first, size = place, length
    if first < len(lengths):
        yield slice(first, len(lengths))


def _pieces(records: Sequence[ConsumerRecord]) -> Iterator[slice]:
    """Those of what a fetch returned; of columns that are small together nobody looks at each."""
    if not isinstance(records, Records):
        return pieces([len(record.value or b"") for record in records])
    return iter([slice(len(records))]) if len(records.data) <= PIECE_BYTES else pieces(records.lengths())


def name_of(unit: Hashable) -> str:
    """A unit, for people."""
    return "/".join(map(str, unit)) if isinstance(unit, tuple) else str(unit)


Leases = Callable[["Group", Hashable, Collection[TopicPartition]], Lease]
"""What makes a lease for a group, a unit and its partitions."""


class Group(Service, ConsumerRebalanceListener):  # type: ignore[misc]
    """One role's consumer group in this worker. `unit` maps a partition to its lease's key.

    `signal` if the role has a group for each; `others` are raw topics that another one reads: `raw_topics` has them
    too. `assignor` says which partitions are read, and by whom. Of `raw` topics batches that stay corrupt are passed
    with `accept_loss`. What is read may wait for `patience` seconds, and for `commit_interval`, before it is passed on.
    """

    logger = logging.getLogger("mode.group")  # of what the base class says: "[^-Group]: Starting..."

    def __init__(
        self,
        app: faust.App,
        config: Config,
        role: str,
        topics: Collection[str],
        lease: Leases,
        unit: Callable[[TopicPartition], Hashable] = lambda partition: partition,
        signal: str | None = None,
        others: Collection[str] = (),
        assignor: type[Spread] = Spread,
        patience: float = inf,
        raw: bool = False,
        accept_loss: bool = False,
    ) -> None:
        super().__init__()
        self._limits, self._accept_loss = config.limits if raw else None, accept_loss
        self._wait = FetchWait(min(patience, config.kafka.commit_interval), self._due)
        self._watchdog = Watchdog(config.watchdog.timeout)
        self._others = dict.fromkeys(others, 0)
        self.role, self.kafka = role, config.kafka
        self.group_id = Topics(self.kafka.prefix).group(role if signal is None else f"{role}.{signal}")
        self._topics = sorted(topics)
        self._make, self._unit = lease, unit
        self._assignor = assignor
        self.turns: Turns = app.turns
        self.sizes: dict[str, BurstSize] = {}  # by transactional id, whatever epochs come and go
        self._channel = app.channel(maxsize=CHANNEL_SIZE)
        self._leases: dict[Hashable, Lease] = {}
        self._opening: dict[Hashable, tuple[Lease, float]] = {}  # and since when
        self._holders: dict[Hashable, asyncio.Task[None]] = {}
        self._closing: dict[Hashable, asyncio.Task[None]] = {}  # of the last lease of a unit that ended
        self._renewing: dict[Hashable, float] = {}  # units whose lease is being made anew, until when that counts
        self._assignment, self._generation = 0, -1
        self._in_hand: Counter[TopicPartition] = Counter()
        self._joined = self._stopping = False
        self._answered = -inf  # when the brokers last did, for all that this member has (monotonic)
        self._rebalancing = self._joining = False  # positions cannot be relied on; nothing may be committed
        self._committing = asyncio.Lock()
        self._least: dict[TopicPartition, int] = {}  # what the group's offsets were at least; -1: none
        self._told: dict[TopicPartition, OffsetAndMetadata] = {}  # what they were when they were asked for last
        self._seen: set[str] = set()  # topics that there were
        self.deleted: set[str] = set()  # of them, those that were away since: their offsets went with them
        self._errors: list[float] = []
        self.consumer: AIOKafkaConsumer = None
        self.brokers = Brokers(self.kafka, self._topics)
        app.agent(self._channel, name=self.group_id)(self._agent)

    # ---- the agent ---------------------------------------------------------------------------------------

    async def _agent(self, stream: Any) -> None:
        """The Faust agent of the role: one event is a fetch of one partition, or a piece of it.

        It never lets an exception out: Faust would acknowledge and drop the event.
        """
        async for fetched in stream:
            try:
                async with self.turns.work():
                    self._in_hand[fetched.partition] -= 1
                    self._hand_over(fetched)
            except Exception as error:
                await self._fail(fetched.unit, error)

    def _hand_over(self, fetched: Fetched) -> None:
        current = self._leases.get(fetched.unit)
        if current is not fetched.lease or fetched.assignment != self._assignment:
            return  # fetched before a rebalance or a takeover: will be fetched again from the lease's position
        telemetry.count(
            "tailrace_records_read_total", len(fetched.records), role=self.role, topic=fetched.partition.topic
        )
        fetched.lease.process(fetched.partition, fetched.records)

    async def _fail(self, unit: Hashable, error: Exception) -> None:
        """A batch was not handled: its lease may be half-way through it and must never commit again."""
        self._leases.pop(unit, None)
        if isinstance(error, Retryable | KafkaError):
            log.warning("lease failed", extra={"role": self.role, "unit": str(unit), "error": repr(error)})
            self.consumer.pause(*[p for p in self.consumer.assignment() if self._unit(p) == unit])
            self._hold(unit)
            return
        log.error("role failed", exc_info=error, extra={"role": self.role, "unit": str(unit)})
        if (holder := self._holders.pop(unit, None)) is not None:
            holder.cancel()
        await self.crash(error)

    # ---- the service -------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Connect and join the group."""
        self.consumer = AIOKafkaConsumer(
            group_id=self.group_id,
            client_id=f"{self.role}-{process_name()}",  # member ids begin with it, and the assignor sorts by them
            partition_assignment_strategy=(self._assignor,),
            session_timeout_ms=int(self.kafka.session_timeout * 1000),
            heartbeat_interval_ms=int(self.kafka.heartbeat_interval * 1000),
            max_poll_interval_ms=300_000,
            rebalance_timeout_ms=int(self.kafka.session_timeout * 1000),
            metadata_max_age_ms=METADATA_AGE_MS,
            **consumer_kwargs(self.kafka, self._limits, self._wait, self._accept_loss),
        )
        self.consumer.subscribe(topics=self._topics, listener=self)
        await self.brokers.start(self.consumer)
        await self._count_others()
        await self.consumer.start()
        for task in (self.consumer._client._sync_task, *self.brokers.tasks()):
            task.add_done_callback(self._blind)
        self._answered = time.monotonic()
        self.add_future(self._fetch())
        self.add_future(self._ask_brokers())
        if self._watchdog.timeout:
            self.add_future(self._watch())

    async def on_stop(self) -> None:
        """Finish what is under way, let go of the partitions, leave the group."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.kafka.session_timeout):
                finishing = [lease.finish() for lease in self._leases.values()]
                await asyncio.gather(*finishing, return_exceptions=True)
        await asyncio.gather(*(self._release(unit) for unit in list(self._holders)))
        if self._closing:
            await asyncio.wait(self._closing.values(), timeout=CLOSE_LIMIT)
        await self.brokers.close()

    def _blind(self, task: asyncio.Task[None]) -> None:
        """Without its task for metadata a client waits for ever for a leader that moved; aiokafka tells nobody."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.add_future(self.crash(error))

    def _due(self) -> list[float]:
        """When leases commit; unknown while one is taken over: its partitions wait for the fetch that is under way."""
        return [] if self._opening else [lease.due() for lease in self._leases.values()]

    async def _fetch(self) -> None:
        holds = False
        while not self.should_stop:
            try:
                batches = await self.consumer.getmany(timeout_ms=POLL_MS if holds else IDLE_MS)
            except OffsetOutOfRangeError as error:
                if await self._out_of_range(error):
                    text = f"records are gone before they were read, or the log was cut or made anew: {error}"
                    await self.crash(ProtocolError(text))
                    return
                await asyncio.sleep(RETAKE_BACKOFF)
                continue
            except KafkaError as error:
                log.warning("fetch failed", extra={"role": self.role, "error": repr(error)})
                corrupt = isinstance(error, CorruptRecordException)
                if not (corrupt and self._accept_loss) and self._fails_for_good(time.monotonic()):
                    await self.crash(ProtocolError(f"{error}: {CORRUPT}") if corrupt else error)
                    return
                await asyncio.sleep(RETAKE_BACKOFF)
                continue
            fetched = [
                Fetched(unit, lease, self._assignment, partition, records[piece])
                for partition, records in batches.items()
                if (lease := self._leases.get(unit := self._unit(partition))) is not None
                for piece in _pieces(records)
            ]
            batches.clear()  # pieces are copies of what they are cut from
            self._in_hand.update(item.partition for item in fetched)
            for item in fetched:
                await self._channel.put(item)
            holds = self.throttle()

    async def _out_of_range(self, error: OffsetOutOfRangeError) -> bool:
        """Whether the leader says so as well, not only a follower in this rack that is no longer in sync.

        aiokafka 0.14 reads from such a one for 30 s; with the error it forgets it, and fetches from the leader next.
        """
        if self.kafka.client_rack is None:
            return True  # a log that was cut may have grown beyond the position by the time it is asked again
        (positions,) = error.args
        try:
            ends, first = await self.brokers.written_ends(positions), await self.brokers.beginning(positions)
        except KafkaError:
            return False  # who it is may just be changing
        if any(not first[partition] <= position <= ends[partition] for partition, position in positions.items()):
            return True
        log.warning("a follower is behind, the leader is read", extra={"role": self.role, "error": repr(error)})
        return False

    def _fails_for_good(self, now: float) -> bool:
        """Whether fetching has raised for longer than a session.

        A broker that is away raises nothing. What is raised again and again is a heartbeat or a coordination task of
        aiokafka that ended: the group has gone on without this member, which still believes in its partitions.
        """
        session = self.kafka.session_timeout
        self._errors = [at for at in self._errors if now - at < 2 * session] + [now]
        return len(self._errors) > FEW_ERRORS and now - self._errors[0] > session

    async def _ask_brokers(self) -> None:
        """Notice that brokers hang, whatever the role does meanwhile: one that has nothing to write would not."""
        while not self.should_stop:
            with contextlib.suppress(KafkaError, TimeoutError):
                await self.brokers.answer(self.group_id, self.consumer.assignment())
                self._answered = time.monotonic()
            await asyncio.sleep(self.kafka.heartbeat_interval)

    async def _watch(self) -> None:
        """Stop the worker when something that it holds does not get on; brokers that are away are no such reason."""
        timeout, told = self._watchdog.timeout, False
        while not self.should_stop:
            await asyncio.sleep(timeout / LOOKS)
            try:
                await self._count_others()
                waiting = await self._waiting()
            except (KafkaError, TimeoutError):
                self._watchdog.forget()
                continue
            if self._rebalancing:
                self._watchdog.forget()
                continue
            standing = self._watchdog.look(time.monotonic(), {what: at for what, (at, _) in waiting.items()})
            what, seconds = max(standing.items(), key=lambda item: item[1], default=("", 0.0))
            telemetry.gauge("tailrace_stalled_seconds", seconds, role=self.role)
            if seconds > timeout / 2 and not told:
                where = waiting[what][1]
                log.warning("stands still", extra={"role": self.role, "what": what, "waits": where, "seconds": seconds})
            told = seconds > timeout / 2
            if seconds > timeout:
                text = f"{what}: {waiting[what][1]}; it has stood still for {seconds:.0f} s (watchdog.timeout)"
                await self.crash(Unavailable(text))
                return

    async def _waiting(self) -> dict[str, tuple[Hashable, str]]:
        """What has something to do: how far it is, and what it waits for."""
        found: dict[str, tuple[Hashable, str]] = {}
        watched = [p for p in self.consumer.assignment() - self.consumer.paused() if self._unit(p) in self._leases]
        # Whoever cannot even begin with the brokers waits for them.
        since = -inf if away(self.kafka.bootstrap_servers) else time.monotonic() - TAKEOVER_LEAST
        opening = {unit: lease for unit, (lease, began) in self._opening.items() if began <= since}
        taken = [p for p in self.consumer.assignment() if self._unit(p) in opening]
        ends = await self.brokers.ends([*watched, *taken])
        unknown = {self._unit(partition) for partition in (*watched, *taken) if partition not in ends}
        for partition in watched:
            position = await self.consumer.position(partition)
            if position < ends.get(partition, 0):
                name = f"{partition.topic}/{partition.partition}"
                found[name] = position, f"nothing fetched from {position} on, it ends at {ends[partition]}"
        held = [(f"lease of {name_of(unit)}", unit, lease.progress()) for unit, lease in self._leases.items()]
        for unit, lease in opening.items():
            at = lease.opening()
            held.append((f"takeover of {name_of(unit)}", unit, None if at is None else (id(lease), at)))
        for name, unit, progress in held:
            if progress is not None and unit not in unknown and (holder := self._holders.get(unit)) is not None:
                found[name] = progress, f"its work is at {awaited(holder)}"
        return found

    def throttle(self) -> bool:
        """Pause the partitions of saturated leases, resume the others. Whether any are paused by that."""
        assigned = self.consumer.assignment()
        paused = self.consumer.paused() if hasattr(self.consumer, "paused") else set()
        holds = False
        for lease in self._leases.values():
            held = lease.held()
            partitions = [p for p in lease.positions() if p in assigned]
            self.consumer.pause(*[p for p in partitions if p in held and p not in paused])
            self.consumer.resume(*[p for p in partitions if p not in held and p in paused])
            holds |= any(p in held for p in partitions)
        return holds

    # ---- rebalances --------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Every rebalance revokes everything (eager protocol). The epochs stay ours until somebody takes them."""
        self._assignment += 1
        self._rebalancing = True
        if self.consumer._coordinator.generation < 0:
            self._assignor.forget()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_LIMIT):
                pausing = [lease.pause() for lease in self._leases.values()]
                await asyncio.gather(*pausing, return_exceptions=True)
        self._joining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REVOKE_LIMIT), self._committing:  # see commit()
                pass

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Keep the leases that came back, let go of the rest, take the new ones.

        In a generation that the group had without this worker another one may have had its partitions: what no epoch
        fences is taken over again. So is a unit that has more partitions than before. Not a coroutine on purpose:
        positions are set before the consumer asks the group for them.
        """
        before, self._generation = self._generation, self.consumer._coordinator.generation
        held = {unit: lease for unit, (lease, _) in self._opening.items()} | self._leases
        missed = {u for u, lease in held.items() if not lease.fenced and self._generation != before + 1}
        self._assignment += 1
        self._joined, self._rebalancing, self._joining = True, False, False
        there = {topic for topic, count in self.raw_topics().items() if count}
        self.deleted |= self._seen - there
        self._seen |= there
        for partition in [p for p in self._least if p.topic not in there]:
            del self._least[partition]
            self._told.pop(partition, None)
        units: dict[Hashable, list[TopicPartition]] = {}
        for partition in assigned:
            units.setdefault(self._unit(partition), []).append(partition)
        missed |= {u for u, lease in self._leases.items() if u in units and not set(units[u]) <= {*lease.positions()}}
        for unit, lease in self._leases.items():
            kept = unit in units and unit not in missed
            lease.resume(kept)
            positions = lease.positions()
            for partition in units[unit] if kept else ():
                self.consumer.seek(partition, positions[partition])
        for unit in [u for u in self._holders if u not in units]:
            self.add_future(self._release(unit))
        for unit in missed & units.keys():
            self._leases.pop(unit, None)
        for unit, partitions in units.items():
            if unit not in self._leases:
                for partition in partitions:
                    self.consumer.seek(partition, 0)  # paused: only so that nobody asks for the committed one
                self.consumer.pause(*partitions)
            holder = self._holders.get(unit)
            # done: it found its partitions revoked in the middle of a takeover
            if holder is None or holder.done() or unit in missed:
                self._hold(unit)
        log.info(
            "assigned", extra={"role": self.role, "partitions": sorted(f"{p.topic}/{p.partition}" for p in assigned)}
        )

    async def renew(self, lease: Leases, patience: float | None = None) -> None:
        """Make leases with `lease` from now on. Those that are held commit what they can and are taken over again.

        `patience` as at the beginning, None: it stays.

        It is what a crash would be followed by, without the crash: what is remembered is what is in the log (I3).
        """
        self._make = lease
        if patience is not None:
            self._wait.follow(min(patience, self.kafka.commit_interval))
        now = time.monotonic()
        self._renewing = self._renewed(now) | dict.fromkeys(self._leases, now + RENEWAL_LIMIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.kafka.session_timeout):
                finishing = [held.finish() for held in self._leases.values()]
                await asyncio.gather(*finishing, return_exceptions=True)  # one that failed is taken over all the same
        for unit in list(self._holders):
            self._hold(unit, doubt=False)

    def _hold(self, unit: Hashable, doubt: bool = True) -> None:
        """(Re)start the task that holds a lease of this unit; in `doubt` whether it still is this member's."""
        previous = self._holders.pop(unit, None)
        if previous is not None:
            previous.cancel()
        self._holders[unit] = asyncio.create_task(self._holding(unit, previous, doubt), name=f"{self.role} {unit}")

    async def _holding(self, unit: Hashable, previous: asyncio.Task[None] | None, doubt: bool) -> None:
        if before := [task for task in (previous, self._closing.get(unit)) if task is not None]:
            await asyncio.wait(before, timeout=CLOSE_LIMIT)
        if previous is not None:
            await asyncio.sleep(self.kafka.heartbeat_interval if doubt else 0)
        while not self._stopping:
            partitions = [p for p in self.consumer.assignment() if self._unit(p) == unit]
            if not partitions:
                return
            lease: Lease | None = None
            try:
                lease = self._make(self, unit, partitions)
                positions = await self._take_over(unit, lease)
                if {p for p in self.consumer.assignment() if self._unit(p) == unit} != set(partitions):
                    continue  # a rebalance came in between: look again
                for partition, offset in positions.items():
                    self.consumer.seek(partition, offset)
                self._leases[unit] = lease
                self._renewing.pop(unit, None)
                self.consumer.resume(*partitions)
                await lease.work()
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                log.warning("lease was cancelled by what it waited for", extra={"role": self.role, "unit": str(unit)})
            except (TimeoutError, Retryable, KafkaError, AssertionError) as error:
                # AssertionError: what aiokafka's producer raises once it has been fenced (docs/adr/0003, M6).
                log.warning(
                    "lease lost, taking over again",
                    extra={"role": self.role, "unit": str(unit), "error": repr(error)},
                )
            except Exception as error:
                log.error("role failed", exc_info=error, extra={"role": self.role, "unit": str(unit)})
                await self.crash(error)
                return
            finally:
                if lease is not None and self._leases.get(unit) is lease:
                    del self._leases[unit]
                    still = [p for p in partitions if p in self.consumer.assignment()]
                    self.consumer.pause(*still)
                if lease is not None:
                    await self._close(unit, lease)
            # A zombie that was stopped learns within one heartbeat that its partitions have moved.
            await asyncio.sleep(self.kafka.heartbeat_interval)

    async def _take_over(self, unit: Hashable, lease: Lease) -> Mapping[TopicPartition, int]:
        began = time.monotonic()
        self._opening[unit] = lease, began
        try:
            positions = await lease.open()
            await self._check_ends(positions)
        except ProtocolError as error:
            if await self._overtaken(unit):
                raise Retryable(f"somebody else has taken over meanwhile: {error}") from error
            raise
        finally:
            self._opening.pop(unit, None)
        telemetry.count("tailrace_takeovers_total", role=self.role)
        seconds = round(time.monotonic() - began, 3)
        log.info("taken over", extra={"role": self.role, "unit": name_of(unit), "seconds": seconds})
        return positions

    async def _check_ends(self, positions: Mapping[TopicPartition, int]) -> None:
        """Raises ProtocolError if a log ends before where it is to be read on."""
        for partition, end in (await self.brokers.written_ends(positions)).items():
            if end < positions[partition]:
                raise self._cut(partition, positions[partition], end)

    def _cut(self, partition: TopicPartition, position: int, end: int) -> ProtocolError:
        where = f"{partition.topic}/{partition.partition}"
        return ProtocolError(
            f"{where} ends at {end}, {self.group_id} has read it up to {position}: the log was cut, as by an unclean "
            "leader election, or the topic was made anew. What is written up to there would be skipped without a "
            "word: docs/runbooks/NotReady.md says how to go on"
        )

    async def _overtaken(self, unit: Hashable) -> bool:
        """Whether offsets have moved since the takeover asked for them, as while it was stopped.

        Then they do not contradict what it has read afterwards: both are somebody else's by now.
        """
        before = {p: told for p, told in self._told.items() if self._unit(p) == unit}
        if before:
            await self.committed(before)
        return any(self._told[p] != told for p, told in before.items())

    async def _close(self, unit: Hashable, lease: Lease) -> None:
        """To its end, even if whoever waits for it is cancelled: half of it would leave connections behind."""
        closing = asyncio.create_task(self._let_go(lease), name=f"{self.role} closes")
        self._closing[unit] = closing
        await asyncio.shield(closing)

    async def _let_go(self, lease: Lease) -> None:
        try:
            await lease.close()
        except Exception as error:
            log.error("a lease did not close", exc_info=error, extra={"role": self.role})

    async def _release(self, unit: Hashable) -> None:
        holder = self._holders.pop(unit, None)
        if holder is not None:
            holder.cancel()
            await asyncio.wait([holder], timeout=REVOKE_LIMIT)

    # ---- what leases ask ---------------------------------------------------------------------------------

    async def committed(
        self, partitions: Collection[TopicPartition], group: str | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The group's offsets, or another's, asked afresh; partitions without one are absent.

        Only right after InitProducerId is the answer final: before, a transaction may be pending (M8, M9). Raises
        Unavailable while the coordinator is loading or moving, and if the own group has less than was known: a
        coordinator may not know that it still loads (M21).
        """
        group = group or self.group_id
        found = await self.brokers.offsets(group, partitions)
        if group == self.group_id:  # another one may be deleted
            for partition, offset in found.items():
                if offset.offset < (before := self._least.get(partition, offset.offset)):
                    where = f"{partition.topic}/{partition.partition}"
                    raise Unavailable(f"the coordinator of {group} says {offset.offset} for {where}, it was {before}")
            self.moved(found)
            self._told.update(found)
        return {p: offset for p, offset in found.items() if offset.offset >= 0}

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """A plain commit, for roles that are at-least-once. Raises RebalanceInProgressError while the group rebalances.

        aiokafka 0.14 forgets its member id when a commit is answered with IllegalGeneration, as one is that falls
        between JoinGroup and the new assignment. It then joins as somebody else, and its ghost holds up the group for
        a session; each further commit makes it forget again.
        """
        async with self._committing:
            if self._joining:
                raise RebalanceInProgressError(self.group_id)
            await self.consumer.commit({p: (o.offset, o.metadata) for p, o in offsets.items()})
            self.moved(offsets)

    def moved(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """The group's offsets are these at least; they never go back while it has members."""
        self._least.update((partition, offset.offset) for partition, offset in offsets.items())

    async def drained(self, partition: TopicPartition) -> bool:
        """Whether everything up to the partition's end, asked now, has been given to its lease.

        False while a transaction is open before it: it may hold older records (F11).
        """
        end = await self.written_end(partition)
        return end is not None and await self.passed(partition, end)

    async def written_end(self, partition: TopicPartition) -> int | None:
        """`Brokers.written_end`. Raises ProtocolError if it lies before what was read already."""
        held = not self._rebalancing and partition in self.consumer.assignment()
        position = await self.consumer.position(partition) if held else 0
        end = await self.brokers.written_end(partition)
        if end is not None and end < position:
            raise self._cut(partition, position, end)
        return end

    async def passed(self, partition: TopicPartition, end: int) -> bool:
        """Whether everything before `end` has been given to the partition's lease.

        Compares positions, not record offsets: only positions pass the markers of transactional producers.
        """
        if self._rebalancing or partition not in self.consumer.assignment() or self._in_hand[partition]:
            return False  # in a rebalance positions lie beyond records that were thrown away
        position: int = await self.consumer.position(partition)
        return position >= end and not self._rebalancing and not self._in_hand[partition]

    def raw_topics(self) -> dict[str, int]:
        """The role's topics with their partition counts, as far as metadata knows."""
        return {t: len(self.consumer.partitions_for_topic(t) or ()) for t in self._topics} | self._others

    async def _count_others(self) -> None:
        if self._others:
            found = await self.brokers.counts()
            self._others = {topic: found.get(topic, count) for topic, count in self._others.items()}

    async def unread(self) -> int:
        """Records and markers between what was fetched and the ends that the last fetches were told."""
        unread = 0
        with contextlib.suppress(KafkaError):  # a partition that a rebalance takes away meanwhile
            for partition in self.consumer.assignment() if self._joined and not self._rebalancing else ():
                end = self.consumer.last_stable_offset(partition)
                if end is not None and self._unit(partition) in self._leases:
                    unread += max(0, end - await self.consumer.position(partition))
        return unread

    def lease(self, unit: Hashable) -> Lease | None:
        """The lease of this unit, if it has it."""
        return self._leases.get(unit)

    @property
    def units(self) -> int:
        """How many units are assigned to this worker."""
        return len({self._unit(partition) for partition in self.consumer.assignment()})

    @property
    def ready(self) -> bool:
        """Whether every assigned partition has its lease, or is about to have another, and the brokers answer.

        Who has not heard of them for a session cannot know whether its partitions still are its own.
        """
        now = time.monotonic()
        if not self._joined or now - self._answered > self.kafka.session_timeout:
            return False
        return {self._unit(p) for p in self.consumer.assignment()} <= self._leases.keys() | self._renewed(now).keys()

    def _renewed(self, now: float) -> dict[Hashable, float]:
        """Units that had their lease when a reload asked for another, until when they count as if they had it."""
        return {unit: until for unit, until in self._renewing.items() if now < until}
