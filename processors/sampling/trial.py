"""Policies on trial: a partition's history decided again, and two sets of policies compared trace by trace.

A `Replay` is the Window that decides live traffic; its transactions go nowhere. Two of them read the same records, and
a `Comparison` pairs their verdicts as they come, so memory holds what is undecided in one of them and nothing more. A
record is passed, and its spans count, once both have decided it: at the end of the history one may wait for longer.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.conditions import AnyOf
from processors.sampling.limits import BucketState
from processors.sampling.policies import Policy
from processors.sampling.stats import Stats
from processors.sampling.window import Settings, Window
from schemas.decision import DecisionRecord
from schemas.envelope import Envelope

PROBES = [  # no policy of a configuration has these names
    {"name": "\0errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "\0error logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}},
]
EXAMPLES = 5  # trace ids of each kind


class Fate(NamedTuple):
    """What became of a trace. `policy` kept it, "" when it was dropped.

    `error`: one of its spans failed. `error_log`: one of its logs is of severity ERROR or above.
    """

    trace_id: bytes
    policy: str
    threshold: int
    error: bool
    error_log: bool

    @property
    def kept(self) -> bool:
        """Whether its spans would have been forwarded."""
        return bool(self.policy)


class Replay(Window):
    """A partition's history under some policies. `fates` collects what it decides, by trace key, until it is taken."""

    def __init__(self, partition: int, settings: Settings, policies: Sequence[Policy], compat: Compat) -> None:
        probes = [Policy.model_validate(probe | {"shadow": True}) for probe in PROBES]
        plan = compile_policies([*policies, *probes], compat=compat, extra_keys=["service.name"])
        super().__init__(partition, settings, plan, None)
        self._masks = [probe.mask for _, probe in plan.shadows[-len(probes) :] if isinstance(probe, AnyOf)]
        self.fates: dict[int, Fate] = {}
        self.totals: Stats = Counter()
        self.overlap: Counter[tuple[str, str]] = Counter()
        self._bursts = 0
        self.spans_read = 0  # those of traces that had begun before, which a checkpoint has as counted, as well
        self.other: Replay | None = None  # of the same history, under other policies

    def _fold_spans(self, envelope: Envelope, times: array[int], counted: bool) -> None:
        self.spans_read += len(envelope)
        super()._fold_spans(envelope, times, counted)

    def take(self) -> dict[int, Fate]:
        """What was decided since the last call."""
        fates, self.fates = self.fates, {}
        return fates

    def limiters(self) -> dict[str, list[BucketState]]:
        """What its checkpoint would tell other partitions now."""
        return self._limits.state()

    def settle(self) -> None:
        """Pass what can be passed, as the live worker would in its transactions."""
        while (burst := self.burst()) is not None:
            self.totals += burst.stats
            self.committed(self._bursts)
            self._bursts += 1
            if not burst.more:
                break

    def _all_decided(self, keys: array[int], feed: str, offset: int) -> bool:
        if not super()._all_decided(keys, feed, offset):
            return False
        other = self.other
        return other is None or other.held.cursors[feed].tail > offset or other._verdicts.missing(keys) < 0

    def _drop(self, count: int, kept: Sequence[int], heads: tuple[int, ...]) -> None:
        for place in sorted(set(range(count)).difference(kept)):
            self._decided(place, "", 0)
        super()._drop(count, kept, heads)

    def _keep(self, place: int, heads: tuple[int, ...]) -> None:
        self._decided(place, self._ballot.names[self._ballot.policy], self._ballot.threshold)
        super()._keep(place, heads)

    def _decided(self, place: int, policy: str, threshold: int) -> None:
        (trace_id, error), (_, error_log) = (self._traces.outline(place, mask) for mask in self._masks)
        self.fates[self._traces.due_keys[place]] = Fate(trace_id, policy, threshold, error, error_log)

    def _count_votes(self) -> None:
        names, together = self._ballot.names, self._ballot.together
        for place, number in enumerate(together[: len(names) ** 2]):
            if number:
                self.overlap[names[place // len(names)], names[place % len(names)]] += number
        super()._count_votes()


@dataclass(slots=True)
class Outcome:
    """What one set of policies made of a history, over all partitions. Bytes are OTLP's, without resources.

    `named` counts kept traces by the policy that kept them, `read` all spans, decided or not.
    """

    read: int = 0
    traces: int = 0
    kept: int = 0
    errors: int = 0
    errors_missed: int = 0
    error_logs: int = 0
    error_logs_missed: int = 0
    named: Counter[str] = field(default_factory=Counter)
    totals: Stats = field(default_factory=Counter)
    overlap: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, fate: Fate) -> None:
        """One trace."""
        self.traces += 1
        self.kept += fate.kept
        self.named[fate.policy] += fate.kept
        self.errors += fate.error
        self.errors_missed += fate.error and not fate.kept
        self.error_logs += fate.error_log
        self.error_logs_missed += fate.error_log and not fate.kept

    def close(self, replay: Replay) -> None:
        """A partition's history has been read."""
        replay._count_votes()
        self.read += replay.spans_read
        self.totals += replay.totals + replay._stats
        self.overlap += replay.overlap

    @property
    def spans(self) -> int:
        """Spans that were kept."""
        return self.totals["spans_kept", ""]

    @property
    def passed(self) -> int:
        """Spans that were kept or dropped."""
        return sum(number for (what, _), number in self.totals.items() if what in ("spans_kept", "spans_dropped"))

    @property
    def bytes(self) -> int:
        """Bytes of these spans."""
        return sum(number for (what, _), number in self.totals.items() if what == "policy_bytes")


@dataclass(slots=True)
class Comparison:
    """Two outcomes, `new` and `old`, trace by trace.

    `lost` were kept by `old` alone, `gained` by `new` alone, counted by the policy that kept them; `examples` has some
    trace ids of each: lost, gained, and of what `new` missed: errors, error logs.
    """

    new: Outcome = field(default_factory=Outcome)
    old: Outcome = field(default_factory=Outcome)
    lost: Counter[str] = field(default_factory=Counter)
    gained: Counter[str] = field(default_factory=Counter)
    lost_errors: int = 0
    lost_error_logs: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _waiting: tuple[dict[int, Fate], dict[int, Fate]] = field(default_factory=lambda: ({}, {}))

    def add(self, new: Mapping[int, Fate], old: Mapping[int, Fate]) -> None:
        """Verdicts of both, by trace key; a trace counts once it has both."""
        if new is old:
            for fate in new.values():
                self._pair(fate, fate)
            return
        theirs, ours = self._waiting
        for key, fate in old.items():
            mine = ours.pop(key, None)
            if mine is None:
                theirs[key] = fate
            else:
                self._pair(mine, fate)
        for key, fate in new.items():
            other = theirs.pop(key, None)
            if other is None:
                ours[key] = fate
            else:
                self._pair(fate, other)

    def end_of_history(self) -> None:
        """What has one verdict only will not get the other."""
        for waiting in self._waiting:
            waiting.clear()

    def _pair(self, new: Fate, old: Fate) -> None:
        self.new.add(new)
        self.old.add(old)
        if old.kept and not new.kept:
            self.lost[old.policy] += 1
            self.lost_errors += new.error
            self.lost_error_logs += new.error_log
            self._example("lost", new)
        elif new.kept and not old.kept:
            self.gained[new.policy] += 1
            self._example("gained", new)
        if new.error and not new.kept:
            self._example("errors", new)
        if new.error_log and not new.kept:
            self._example("error logs", new)

    def _example(self, kind: str, fate: Fate) -> None:
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(fate.trace_id.hex())


@dataclass(slots=True)
class Agreement:
    """Whether a replay decided as the workers did: verdicts of the same version, policy and threshold included.

    `others` were recorded under another version of the policies.
    """

    version: str
    same: int = 0
    different: int = 0
    others: int = 0
    examples: list[str] = field(default_factory=list)
    _fates: dict[int, Fate] = field(default_factory=dict)
    _recorded: dict[int, tuple[str, str, int]] = field(default_factory=dict)

    def add(self, fates: Mapping[int, Fate]) -> None:
        """What the replay decided."""
        for key, fate in fates.items():
            recorded = self._recorded.pop(key, None)
            if recorded is None:
                self._fates[key] = fate
            else:
                self._compare(fate, recorded)

    def recorded(self, value: bytes) -> None:
        """One record of the decisions. A verdict that is repeated for a late span was compared before."""
        record = DecisionRecord.decode(value)
        version = record.checkpoint.policy_version
        for key, verdict in zip(record.keys, record.verdicts, strict=True):
            said = version, verdict.policy, verdict.threshold
            fate = self._fates.pop(key, None)
            if fate is None:
                self._recorded.setdefault(key, said)
            else:
                self._compare(fate, said)

    def _compare(self, fate: Fate, recorded: tuple[str, str, int]) -> None:
        if recorded[0] != self.version:
            self.others += 1
        elif recorded[1:] == (fate.policy, fate.threshold):
            self.same += 1
        else:
            self.different += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(fate.trace_id.hex())

    def end_of_history(self) -> None:
        """What has no record yet is not compared."""
        self._fates.clear()
        self._recorded.clear()
