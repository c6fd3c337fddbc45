"""The guards of the delivery protocol, and what the simulation says when one of them is taken away.

`python -m tests.simulation.guards` (uncompiled code only: it is patched) prints the table of docs/faults.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest

from pipeline.sending.settled import Settled
from pipeline.sending.settlement import Account
from processors.sampling.decision_log import DecisionLog
from processors.sampling.forward import Forward
from processors.sampling.limits import Limits
from processors.sampling.restore import Restoration
from processors.sampling.trace_table import TraceTable
from processors.sampling.verdicts import Verdicts
from processors.sampling.window import Burst, Window
from processors.series import SeriesStore
from processors.stream_time import RawClock, RawMark, StreamClock
from schemas.decision import DecisionRecord
from schemas.raw_offset import RawOffset
from schemas.sample import Tick
from tests.simulation import releases
from tests.simulation.downstream import Aggregate, Sink
from tests.simulation.history import Broker, Kind
from tests.simulation.kafka import Fenced, Log
from tests.simulation.minimise import failure
from tests.simulation.owners import Ingest, Sample
from tests.simulation.resizing import Resizing
from tests.simulation.workers import Slot, Worker

SEEDS_TO_NOTICE = 200
ALONE = Kind()
TRACE = re.compile(r"(trace )?[0-9a-f]{16}:? ?")


@dataclass(frozen=True, slots=True)
class Noticed:
    """The first history that fails, and the check that failed it."""

    seed: int
    check: str


@dataclass(frozen=True, slots=True)
class Guard:
    """Something that the protocol relies on. `remove` takes it away; its docstring says what is then wrong."""

    remove: Callable[[pytest.MonkeyPatch], None]
    kind: Kind = ALONE

    @property
    def name(self) -> str:
        """For people."""
        return self.remove.__name__.strip("_").replace("_", " ")

    @property
    def without(self) -> str:
        """What happens without it."""
        return (self.remove.__doc__ or "").strip()

    def noticed(self) -> Noticed | None:
        """None if every history passes. A failure that is no check's, of the removal itself for one, is raised."""
        with pytest.MonkeyPatch.context() as patch:
            self.remove(patch)
            for seed in range(SEEDS_TO_NOTICE):
                if (found := failure(seed, self.kind)) is not None:
                    return Noticed(seed, TRACE.sub("", found.check))
        return None


def _commit_without_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1 gone: a zombie's transaction is accepted."""
    monkeypatch.setattr(Broker, "_check", lambda *_: None)


def _forget_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """I2 gone: verdicts are not in the log, a new owner decides again."""
    put, load = Verdicts.put, Window.load

    def load_checkpoint_only(self: Window, offset: int, value: bytes) -> None:
        monkeypatch.setattr(Verdicts, "put", lambda *_: None)
        load(self, offset, value)
        monkeypatch.setattr(Verdicts, "put", put)

    monkeypatch.setattr(Window, "load", load_checkpoint_only)


def _count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counted-up-to of the checkpoint is ignored: spans between tail and head are counted twice."""
    resume = Window.resume

    def from_tail(self: Window, committed: dict[str, int | None], starts: dict[str, int]) -> dict[str, int]:
        positions = resume(self, committed, starts)
        for cursor in self.held.cursors.values():
            cursor.counted = 0
        return positions

    monkeypatch.setattr(Window, "resume", from_tail)


def _clock_of_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock follows the newest mark instead of the oldest: an unowned raw partition is not waited for."""
    monkeypatch.setattr(StreamClock, "now", lambda self: max((m for m, _ in self.marks.values()), default=None))


def _no_wait_for_unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw partitions without a mark do not hold the clock."""
    monkeypatch.setattr(StreamClock, "now", lambda self: min((m for m, _ in self.marks.values()), default=None))


def _checkpoint_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks in the checkpoint are as of the head, not the tail: a new owner's clock starts too late."""
    burst = Window.burst

    def with_head_marks(self: Window, *args: Any, **named: Any) -> Burst | None:
        self._tail_clock.marks |= self._clock.marks
        self._tail_clock.changed |= set(self._clock.marks)
        for raw in self._clock._heard:
            self._tail_clock._expect(raw)
        return burst(self, *args, **named)

    monkeypatch.setattr(Window, "burst", with_head_marks)


def _forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts expire without regard to the tail."""
    monkeypatch.setattr(Verdicts, "expire", lambda self, now, tails: self.__init__(self.horizon))


def _ahead_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts of traces whose tail has not come are dropped from the transaction."""
    decide_due = Window._decide_due

    def unrecorded(self: Window) -> None:
        pending = self._log.pending
        recorded = len(pending.keys)
        decide_due(self)
        del pending.keys[recorded:], pending.times[recorded:], pending.verdicts[recorded:]

    monkeypatch.setattr(Window, "_decide_due", unrecorded)


def _evidence_without_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence that came apart is lost instead of merged at the deadline."""
    monkeypatch.setattr(TraceTable, "_merge", lambda *_: 0)


def _buckets_start_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new owner does not take the rates over."""
    monkeypatch.setattr(Limits, "restore", lambda *_: None)


def _buckets_after_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the rates in a record is not that after its verdicts, but that of the record before."""
    state = Limits.state

    def one_behind(self: Limits) -> object:
        saved, self._saved = getattr(self, "_saved", {}), state(self)  # type: ignore[attr-defined]
        return saved

    monkeypatch.setattr(Limits, "state", one_behind)


def _rates_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates follow the time of the decision, not the deadline: how much is due at once then matters."""
    decide_due = Window._decide_due

    def at_now(self: Window) -> None:
        now = self._clock.now() or 0
        monkeypatch.setattr(Limits, "at", lambda limits, _: at(limits, now))
        decide_due(self)

    at = Limits.at
    monkeypatch.setattr(Window, "_decide_due", at_now)


def _certain_without_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row counts as certain although a root that comes yet may make its trace due before it."""
    evidence = TraceTable._evidence

    def rootless(self: TraceTable, *row: Any) -> int:
        rooted, self._rooted = self._rooted, False
        try:
            return int(evidence(self, *row))
        finally:
            self._rooted = rooted

    monkeypatch.setattr(TraceTable, "_evidence", rootless)


def _root_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided after its root."""
    trace = TraceTable._trace
    monkeypatch.setattr(TraceTable, "_trace", lambda self, key, time, high, root: trace(self, key, time, high, False))


def _tail_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's offset is the head: what is between tail and head is never forwarded."""
    burst = Window.burst

    def at_head(self: Window, *args: Any, **named: Any) -> Burst | None:
        made = burst(self, *args, **named)
        if made is not None:
            made.tails = self.positions()
        return made

    monkeypatch.setattr(Window, "burst", at_head)


def _pass_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail does not wait for verdicts."""
    monkeypatch.setattr(Window, "_all_decided", lambda *_: True)


def _verdicts_one_transaction_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are forwarded in one transaction, their verdicts are recorded in the next."""
    burst = Window.burst

    def behind(self: Window, *args: Any, **named: Any) -> Burst | None:
        late = getattr(self, "_late_record", None) or DecisionRecord(self._settings.partitions)
        self._late_record, self._log.pending = self._log.pending, late  # type: ignore[attr-defined]
        return burst(self, *args, **named)

    monkeypatch.setattr(Window, "burst", behind)


def _load_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointer in the offset's metadata names the newest decisions, not the oldest that are needed."""

    def newest(self: DecisionLog, *_: object) -> int | None:
        return self._segments[-1].offset if self._segments else None

    monkeypatch.setattr(DecisionLog, "load_from", newest)


def _mark_what_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """ingest marks the broker's time whether it has read up to there or not."""
    cut = RawMark.cut

    def ahead(self: RawMark, now: int | None) -> int | None:
        cut(self, now)
        self.mark = now
        return now

    monkeypatch.setattr(RawMark, "cut", ahead)


def _offsets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are not in the transaction of the outputs: a crash comes between."""
    commit = Broker.commit

    def apart(self: Broker, *given: Any) -> list[int]:
        *rest, offsets = given
        torn = self.rng.random() < 0.1
        written = commit(self, *rest, (lambda _: {}) if torn else offsets)  # type: ignore[call-arg]
        if torn:
            raise Fenced
        return written

    monkeypatch.setattr(Broker, "commit", apart)


def _sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction whose answer was lost is sent again instead of taking over anew (I3)."""
    commit = Broker.commit

    def twice(self: Broker, *given: Any) -> list[int]:
        if self.rng.random() < 0.05:
            commit(self, *given)
        return commit(self, *given)

    monkeypatch.setattr(Broker, "commit", twice)


def _offsets_before_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are asked for before the predecessor is fenced, which then still commits (F8)."""

    def early(self: Sample) -> dict[str, tuple[int, str] | None]:
        committed = {feed: self.sim.broker.offsets.get(place) for feed, place in self.places.items()}
        self.sim.interrupt()
        self.epoch = self.sim.broker.init(self.id)
        return committed

    monkeypatch.setattr(Sample, "take_over", early)


def _read_uncommitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not committed, or aborted, is read (F3)."""
    read = Log.read
    monkeypatch.setattr(Log, "read", lambda self, position, count: read(self, position, count, committed=False))


def _batch_across_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of raw records reaches across the position up to which spans are counted."""
    monkeypatch.setattr(Window, "uncounted", lambda *_: 0)


def _no_wait_for_the_other_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a pair of raw partitions is that of the one that is read further."""
    monkeypatch.setattr(RawClock, "now", lambda self: max((m for m, _ in self.marks.values()), default=None))


def _end_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent raw partition does not move the clock."""
    monkeypatch.setattr(RawClock, "ended", lambda *_: None)


def _verdict_without_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a restored trace had before the tail does not go out with its verdict."""
    monkeypatch.setattr(Forward, "restored_spans", lambda *_: [])
    monkeypatch.setattr(Forward, "restored_logs", lambda *_: [])


def _handed_over_behind_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace is restored from what was read of it while the tail has moved on."""
    behind = Restoration.behind

    def at_first(self: Restoration, tails: dict[str, int]) -> object:
        return behind(self, self.__dict__.setdefault("tails", tails))

    monkeypatch.setattr(Restoration, "behind", at_first)


def _restore_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict that supersedes a drop is in memory alone: a new owner knows the drop."""
    restore = Window.restore

    def unrecorded(self: Window, found: Restoration) -> object:
        add, self._log.add = self._log.add, lambda *_: None  # type: ignore[method-assign]
        try:
            return restore(self, found)
        finally:
            self._log.add = add  # type: ignore[method-assign]

    monkeypatch.setattr(Window, "restore", unrecorded)


def _settled_when_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink takes what it has sent for delivered, answer or not."""
    send = Sink.send

    def careless(self: Sink) -> None:
        send(self)
        while self.again:
            self.settle(self.again.pop())

    monkeypatch.setattr(Sink, "send", careless)


def _offset_past_the_unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink's offset moves with the newest row that was delivered, past older ones that were not."""

    def newest(self: Account) -> None:
        settled = [ticket for ticket in self._tickets if not ticket.unsettled]
        if settled:
            self.position = max(self.position, settled[-1].upto)

    monkeypatch.setattr(Account, "settle", newest)


def _begun_taken_for_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offset names the records behind it of which some rows are delivered, as if all were."""
    settled = Account.settled

    def careless(self: Account) -> Settled:
        found = settled(self)
        for offset in found.rows:
            found.records.add(offset, offset + 1)
        return found

    monkeypatch.setattr(Account, "settled", careless)


def _settled_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new owner delivers everything behind the offset, whatever its metadata says."""
    monkeypatch.setattr(Settled, "unpack", lambda metadata, position: Settled())


def _lease_of_a_missed_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink's lease comes back from a rebalance although the group had a generation without this worker."""
    monkeypatch.setattr(Worker, "missed", lambda *_: False)


def _sent_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink sends although the group may have given its partition away for longer than a session."""
    monkeypatch.setattr(Sink, "confirmed", lambda *_: True)


def _series_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next owner of points begins at zero instead of at the last tick."""
    monkeypatch.setattr(SeriesStore, "load", lambda *_: None)


def _points_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset of points is where the owner has read to, not what the tick includes."""
    load = Aggregate.load

    def ahead(self: Aggregate, tick: Tick, committed: int) -> None:
        load(self, tick, committed)
        self.ticks._next += 1

    monkeypatch.setattr(Aggregate, "load", ahead)


def _kept_over_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that failed goes on with what it has in memory, under a new epoch (I3)."""
    step = Sample.step

    def stubborn(self: Sample) -> None:
        try:
            step(self)
        except Fenced:
            self.epoch = self.sim.broker.init(self.id)

    monkeypatch.setattr(Sample, "step", stubborn)


def _lease_of_an_epoch_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that comes back from a rebalance takes the epoch anew, and keeps what it has in memory (I3)."""
    assign = Worker._assign

    def anew(self: Worker, slots: list[Slot]) -> None:
        assign(self, slots)
        for lease in self.leases.values():
            lease.epoch = self.sim.broker.init(lease.id)

    monkeypatch.setattr(Worker, "_assign", anew)


def _resize_without_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resize trusts that no worker lives, without ending their epochs: one that sleeps writes for the N before."""
    monkeypatch.setattr(Resizing, "fence", lambda *_: None)


def _writers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next version is written by the release that is the first to read it."""
    before, this, reads, writes = releases.BEFORE, releases.THIS, releases.READS, releases.WRITES
    monkeypatch.setattr("tests.simulation.history.ROLLING", ((before, this), (this, writes), (writes, reads)))


def _n_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets of ingest do not say N: a worker that slept through a resize writes rows for the N before."""
    unpack = RawOffset.unpack
    monkeypatch.setattr(RawOffset, "unpack", lambda metadata: replace(unpack(metadata), partitions=None))


def _old_offsets_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest goes on from the offset that it is told, without a look at what was written behind it (M21)."""
    monkeypatch.setattr(Ingest, "marks", lambda *_: [])


DIRECT, WHOLE, RESTORES = Kind(direct=True), Kind(whole=True), Kind(restores=True)
WHOLE_SESSIONS = Kind(whole=True, sessions=True)
SESSIONS, RESIZES, MIXED, LOADS = Kind(sessions=True), Kind(resizes=True), Kind(mixed=True), Kind(loads=True)
GUARDS: list[Guard] = [
    Guard(_commit_without_fencing),
    Guard(_forget_decisions),
    Guard(_count_again),
    Guard(_clock_of_the_fastest),
    Guard(_no_wait_for_unmarked),
    Guard(_checkpoint_of_the_head),
    Guard(_forget_at_once),
    Guard(_ahead_counts),
    Guard(_evidence_without_deadline),
    Guard(_buckets_start_full),
    Guard(_buckets_after_the_record),
    Guard(_rates_by_the_clock),
    Guard(_certain_without_the_root),
    Guard(_root_ignored),
    Guard(_tail_of_the_head),
    Guard(_pass_undecided),
    Guard(_verdicts_one_transaction_later),
    Guard(_load_too_little),
    Guard(_mark_what_is_not_read),
    Guard(_offsets_apart),
    Guard(_sent_again),
    Guard(_offsets_before_the_epoch),
    Guard(_read_uncommitted),
    Guard(_old_offsets_believed, LOADS),
    Guard(_settled_when_sent, WHOLE),
    Guard(_offset_past_the_unsettled, WHOLE),
    Guard(_begun_taken_for_settled, WHOLE),
    Guard(_settled_unread, WHOLE),
    Guard(_lease_of_a_missed_generation, WHOLE_SESSIONS),
    Guard(_sent_unconfirmed, WHOLE),
    Guard(_series_not_loaded, WHOLE),
    Guard(_points_of_the_head, WHOLE),
    Guard(_kept_over_a_failure, SESSIONS),
    Guard(_lease_of_an_epoch_that_moved, SESSIONS),
    Guard(_resize_without_fencing, RESIZES),
    Guard(_n_unchecked, RESIZES),
    Guard(_writers_first, MIXED),
    Guard(_batch_across_what_is_counted, DIRECT),
    Guard(_no_wait_for_the_other_topic, DIRECT),
    Guard(_end_not_asked, DIRECT),
    Guard(_verdict_without_its_rows, RESTORES),
    Guard(_handed_over_behind_the_tail, RESTORES),
    Guard(_restore_not_recorded, RESTORES),
]


def main() -> None:
    """Take every guard away in turn; a line of JSON for each."""
    for guard in GUARDS:
        found = guard.noticed()
        told = {"guard": guard.name, "without": guard.without, "seed": None, "check": ""}
        print(json.dumps(told | (asdict(found) if found else {})), flush=True)


if __name__ == "__main__":
    main()
