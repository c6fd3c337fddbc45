"""Invariants I1–I3 over simulated histories, and proof that the simulation would notice their loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from processors.sampling import window
from processors.sampling.limits import Limits
from processors.sampling.trace_table import TraceTable
from processors.sampling.verdicts import Verdicts
from processors.sampling.window import Window
from processors.stream_time import RawClock, StreamClock
from tests.processors.sampling.simulation import Broker, Simulation

SEEDS = 1_000
CHUNK = 100
SEEDS_TO_NOTICE = 200
HASTY_SEEDS = 150
DIRECT_SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_trace_is_lost_split_or_counted_twice(first: int) -> None:
    """I1, I2 and I3 hold whatever crashes, stands still, comes back as a zombie or drains unevenly."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        try:
            seen += Simulation(seed).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}).run().verify()") from error
    assert seen["kept"] > CHUNK
    assert seen["traces"] - seen["kept"] > 4 * CHUNK
    assert min(seen[policy] for policy in ("errors", "error-logs", "some", "large")) > CHUNK // 10
    assert seen["early"] > CHUNK


def test_hasty_decisions_and_small_records_break_no_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw partitions are left out after seconds, the broker's clock is set back and forth by a minute, and a decision
    record holds two verdicts: traces may be misjudged, but none is lost, split, decided twice or counted twice."""
    monkeypatch.setattr(window, "DECISION_BYTES", 40)
    seen: Counter[str] = Counter()
    for seed in range(HASTY_SEEDS):
        try:
            seen += Simulation(seed, hasty=True).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}, hasty=True).run().verify()") from error
    assert seen["misjudged"] > 0, "else nothing was ever left out"


@pytest.mark.parametrize("first", range(0, DIRECT_SEEDS, CHUNK))
def test_without_ingest_no_trace_is_lost_split_or_counted_twice(first: int) -> None:
    """The same on raw topics that are keyed by trace (`regroup: never`)."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        try:
            seen += Simulation(seed, direct=True).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}, direct=True).run().verify()") from error
    assert seen["kept"] > CHUNK
    assert seen["traces"] - seen["kept"] > 4 * CHUNK
    assert min(seen[policy] for policy in ("errors", "error-logs", "some", "large")) > CHUNK // 10


def test_a_seed_replays_exactly() -> None:
    first, second = Simulation(7).run(), Simulation(7).run()
    assert {p: log.records for p, log in first.broker.logs.items()} == {
        p: log.records for p, log in second.broker.logs.items()
    }


def _commit_without_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1 gone: a zombie's transaction is accepted."""
    commit = Broker.commit

    def unfenced(self: Broker, transactional_id: str, epoch: int, *rest: object) -> list[int]:
        return commit(self, transactional_id, self.epochs[transactional_id], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Broker, "commit", unfenced)


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
        for cursor in self._cursors.values():
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

    def with_head_marks(self: Window, final: bool = False) -> object:
        self._tail_clock.marks |= self._clock.marks
        self._tail_clock.changed |= set(self._clock.marks)
        return burst(self, final)

    monkeypatch.setattr(Window, "burst", with_head_marks)


def _forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts expire without regard to the tail."""
    monkeypatch.setattr(Verdicts, "expire", lambda self, now, tails: self.__init__(self.horizon))


def _ahead_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts of traces whose tail has not come are dropped from the transaction."""
    decide_due = Window._decide_due

    def unrecorded(self: Window) -> None:
        recorded = len(self._pending.keys)
        decide_due(self)
        del self._pending.keys[recorded:], self._pending.times[recorded:], self._pending.verdicts[recorded:]

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


GUARDS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _commit_without_fencing,
    _forget_decisions,
    _count_again,
    _clock_of_the_fastest,
    _no_wait_for_unmarked,
    _checkpoint_of_the_head,
    _forget_at_once,
    _ahead_counts,
    _evidence_without_deadline,
    _buckets_start_full,
    _buckets_after_the_record,
    _rates_by_the_clock,
    _certain_without_the_root,
    _root_ignored,
]


def _batch_across_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of raw records reaches across the position up to which spans are counted."""
    monkeypatch.setattr(Window, "uncounted", lambda *_: 0)


def _no_wait_for_the_other_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a pair of raw partitions is that of the one that is read further."""
    monkeypatch.setattr(RawClock, "now", lambda self: max((m for m, _ in self.marks.values()), default=None))


def _end_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent raw partition does not move the clock."""
    monkeypatch.setattr(RawClock, "ended", lambda *_: None)


@pytest.mark.uncompiled
@pytest.mark.parametrize(
    "remove",
    [_batch_across_what_is_counted, _no_wait_for_the_other_topic, _end_not_asked],
    ids=lambda guard: guard.__name__.strip("_"),
)
def test_the_simulation_notices_a_missing_guard_of_the_direct_way(
    remove: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(monkeypatch)
    for seed in range(SEEDS_TO_NOTICE):
        try:
            Simulation(seed, direct=True).run().verify()
        except Exception:
            return
    pytest.fail(f"{SEEDS_TO_NOTICE} histories passed without: {remove.__doc__}")


@pytest.mark.uncompiled
@pytest.mark.parametrize("remove", GUARDS, ids=lambda guard: guard.__name__.strip("_"))
def test_the_simulation_notices_a_missing_guard(
    remove: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(monkeypatch)
    for seed in range(SEEDS_TO_NOTICE):
        try:
            Simulation(seed).run().verify()
        except Exception:
            return
    pytest.fail(f"{SEEDS_TO_NOTICE} histories passed without: {remove.__doc__}")
