"""All series of one metric: deltas and readings in, cumulative rows out, inside the metric's budgets.

A *reading* says what its source has counted since it began. It is compared with the newest one of the same source and
becomes a delta, so that rows of several sources, folded ones too, add up like any other. The first reading of a source
that began lately is its delta. Of one that began earlier nobody knows how much was counted before, for Tailrace is new
here: its row begins with all of it, and not at zero; if there is a row already, or more is counted before the first
tick, it is counted from here on. But where other label sets of the same run of its producer were read before, and go
on, a new one is new indeed, however old the process is: SDKs give all of them its start. Where one of them has fallen
silent by the next tick the new one may stand in its place, as when an attribute is added or masked on the way.

A source that begins with its first reading says that its start is not known (OpenTelemetry metrics data model, "Resets
and gaps"): it counts from here on as well, unless it was told before under another start, in whose place it goes on. A
source that begins anew, with another start time, is another source: two that call themselves alike are kept apart by
it, and a late reading of the one before still counts. What is always told of a process (`Reading.target`) outlives what
may come later: with its start it goes on under another number. So does a histogram that has other bounds from now on,
and one of whose resource more or less is told (processors/resources.py). Two with one target, as two pods of a node may
have, and two resources that agree are kept apart once their readings contradict each other.

A source that ended, because it said so or was silent, and comes back goes on from what it had told: a failed scrape is
no new beginning. Which sources and runs are known is in processors/sources.py.

Levels (gauges, sums that may fall, a summary's quantiles) have no history: the newest reading of a source stands for it
until it is stale, and then is taken away again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from processors.cardinality import OVERFLOW, Limits
from processors.folds import Folds
from processors.known_rows import KnownRows
from processors.resources import differences
from processors.sources import NOT_TOLD, Candidate, Gone, Had, Key, Run, Source, Sources
from processors.values import ROUNDING, Bounds, conformed, in_one_bucket, minus, nothing, observations, plus
from schemas.point import (
    LEVELS,
    UNCOUNTED,
    HistogramValue,
    Kind,
    Labels,
    Reading,
    Resources,
    Shape,
    SummaryValue,
    Value,
    encode_labels,
)
from schemas.reasons import Reason
from schemas.sample import ENDING, SeriesBlock, SourceState

BOUNDED: frozenset[Kind] = frozenset(("histogram", "summary"))
# Label names that an open shape may have: attribute keys that are data must not make every row wider. When others want
# in, those that no row has any more make room with the next tick.
MOST_LABELS = 64
# Of a row on average that are remembered: each kind of source may send its labels in an order of its own.
SPELLINGS = 4
# What a reading's time may be ahead of its append time: a clock that is set right again holds nothing up for longer.
AHEAD_MS = 60_000
# A source that began within the last hour is new if series never end; else within the time after which they do.
YOUNG_MS = 3_600_000
K = TypeVar("K")


@dataclass(slots=True)
class _Row:
    """`counted` is the time of the tick that its newest delta was in, NOT_TOLD until there is one.

    `was` is what the last tick says of it, None if it is in none. `sources` feed it. `ended`: it is a row of the metric
    no more. `packed` are its label values as a tick has them, empty until one is made.
    """

    value: Value
    bounds: Bounds
    counted: int = NOT_TOLD
    was: Value | None = None
    sources: int = 0
    ended: bool = False
    packed: bytes = b""


class Family:
    """One metric. `gone` is that of all.

    `dropped` counts readings that changed nothing, by reason; who reads it empties it.
    """

    __slots__ = (
        "_candidates",
        "_ended",
        "_ending",
        "_fresh",
        "_gone",
        "_histories",
        "_known",
        "_limits",
        "_narrow",
        "dropped",
        "folded_late",
        "folds",
        "limiter",
        "metric",
        "moved",
        "rows",
        "shape",
        "sources",
    )

    def __init__(self, metric: str, shape: Shape, limits: Limits, gone: Gone) -> None:
        if shape.open:
            shape = shape._replace(label_names=shape.label_names[:MOST_LABELS])
        self.metric = metric
        self.shape = shape
        self.limiter = limits.limiter(metric, shape)
        self.rows: dict[Labels, _Row] = {}
        self.sources = Sources()
        self._candidates: list[Candidate] = []  # since the last tick
        self.folded_late = 0.0  # observations that the last tick put under other label sets than they came with
        self._narrow = False  # there was no room for a label name since the last tick
        self.dropped: Counter[Reason] = Counter()
        # Label sets of a loaded tick that were renamed, merged or folded here, by the shape that they had.
        self.moved: list[tuple[Shape, Labels]] = []
        self.folds = Folds()
        self._limits, self._gone = limits, gone
        self._fresh: dict[Labels, None] = {}  # rows that began at zero and are in no tick
        self._histories: dict[Labels, Value] = {}  # what other rows that are in no tick began with
        self._ended: dict[Labels, Bounds] = {}  # rows that a tick has and that are no more
        # Rows without a source that are to end but were counted since a tick, and what they had then: one that has more
        # with the next tick goes on.
        self._ending: dict[Labels, Value] = {}
        self._known: dict[tuple[tuple[str, ...], Bounds], KnownRows] = {}  # by label names and bounds of what comes

    # ---- what comes --------------------------------------------------------------------------------------

    def widen(self, names: Sequence[str]) -> None:
        """Take in label names that the open shape lacks, as far as there is room."""
        own = self.shape.label_names
        lacking = [name for name in names if name not in own]
        new = lacking[: max(0, MOST_LABELS - len(own))]
        self._narrow |= len(lacking) > len(new)
        if new:
            more, before, overflow = ("",) * len(new), self.shape, self.limiter.overflow
            self.shape = self.shape._replace(label_names=own + tuple(new))
            self.limiter.widen(self._limits.of_labels(self.metric, new))

            def wide(labels: Labels) -> Labels:
                return self.limiter.overflow if labels == overflow else labels + more

            self._fresh = {wide(labels): None for labels in self._fresh}
            if (folded := self.rows.get(overflow)) is not None:
                self._rename(before, overflow, wide(overflow), folded)
            self.rows = {wide(labels): row for labels, row in self.rows.items()}
            for row in self.rows.values():
                row.packed = b""
            self._ending = {wide(labels): value for labels, value in self._ending.items()}
            self._histories = {wide(labels): value for labels, value in self._histories.items()}
            self._ended = {labels + more: bounds for labels, bounds in self._ended.items()}
            for source in self.sources.values():
                source.labels = wide(source.labels)
            self.sources.unindex()

    def narrow(self) -> None:
        """Right after a tick: give up label names that no row has, if there was no room for others.

        Rows that stand for others have all names, and go on under those that are left.
        """
        wanted, self._narrow = self._narrow, False
        names, identity = self.shape.label_names, self.shape.identity
        unused = {slot for slot in range(identity, len(names)) if not self.limiter.in_use(slot)} if wanted else set()
        coarse = self.limiter.overflow[identity:]
        for labels in self.rows if unused else ():
            if labels[identity:] != coarse:
                unused -= {slot for slot in unused if labels[slot]}
        if not unused:
            return
        kept = [slot for slot in range(len(names)) if slot not in unused]
        before, rows, went = self.shape, self.rows, {}
        self.shape = self.shape._replace(label_names=tuple(names[slot] for slot in kept))
        self.rows = {}
        for labels, row in sorted(rows.items(), key=lambda item: item[0][identity:] == coarse):  # those last
            went[labels] = narrower = tuple(labels[slot] for slot in kept)
            row.packed = b""
            if (other := self.rows.get(narrower)) is not None:  # what this one had is in the ticks before
                self.moved.append((before._replace(bounds=row.bounds), labels))
                other.sources += row.sources
                if self.shape.kind == "sum":
                    other.value = plus(other.value, row.value)
                row.ended = True
                continue
            if labels[identity:] == coarse:
                self._rename(before, labels, narrower, row)
            self.rows[narrower] = row
        self.limiter.narrow(kept)
        self._ending = {went[labels]: self.rows[went[labels]].value for labels in self._ending}
        for source in self.sources.values():
            bounds, source.labels = rows[source.labels].bounds, went[source.labels]
            if self.rows[source.labels].bounds != bounds:
                source.last = in_one_bucket(source.last)
        for slot in unused:
            self.folds.forget(names[slot])

    def _rename(self, shape: Shape, before: Labels, labels: Labels, row: _Row) -> None:
        """A row goes on as another series, which begins at zero and has what no tick has told; the one before ends."""
        if row.was is None:
            return
        self.moved.append((shape._replace(bounds=row.bounds), before))
        since = None if self.shape.kind in UNCOUNTED else minus(row.value, row.was)
        row.was = None
        if since is not None:
            row.value = since
            self._fresh[labels] = None

    def count(self, labels: Labels, value: Value, bounds: Bounds) -> float:
        """Count a delta; returns how many observations went under another label set."""
        if labels in self.rows:
            self._add(labels, value, bounds)
            return 0.0
        within = self.limiter.within_values(labels)
        placed = self._place(within, bounds)
        if placed not in self.rows and self.shape.kind not in LEVELS:
            self._fresh[placed] = None
        self._add(placed, *self._folding(labels, placed, value, bounds))
        return self._folded(labels, within, placed, value)

    def known(self, given: Shape) -> KnownRows:
        """What is known of batches with the label names and bounds of this shape."""
        found = self._known.get((given.label_names, given.bounds))
        return KnownRows() if found is None else found

    def remember(self, known: KnownRows, packed: bytes, placed: tuple[Labels, bool], given: Shape) -> None:
        """Points that are packed so belong to the row of the label set, unless they were folded into another one."""
        labels, squeezed = placed
        row = self.rows.get(labels)
        if row is None or squeezed or row.bounds != given.bounds or self.shape.kind in ("gauge", "info"):
            return
        if sum(map(len, self._known.values())) > SPELLINGS * len(self.rows):
            self._known, known = {}, KnownRows()
        if not row.packed and given.label_names == self.shape.label_names:
            row.packed = packed  # one object for both
        self._known.setdefault((given.label_names, given.bounds), known).remember(packed, row)

    def read(self, reading: Reading, bounds: Bounds, now_ms: int, resources: Resources) -> float:
        """Take in a reading; returns how many observations went under another label set. `now_ms` is append time."""
        key = self._key(reading)
        source = self.sources.get(key)
        if source is None and reading.target and reading.value is not None:
            self._more_or_less_is_told(reading, resources.of(reading.producer))
        target = self._target(reading, key, source)
        if target and (source is None or source.target != target):
            source = self._told_otherwise(key, target, source)
        if source is not None:
            run = source.run
            if source.producer != reading.producer or (run is not None and not run.resource):
                self._belongs(key, source, reading.producer, resources)
        if reading.value is None:
            self._end_reading(reading)
            return 0.0
        if source is None and self.shape.kind in BOUNDED:
            source = self._within_other_bounds(key, target, reading, bounds)
        if source is not None and reading.time_ms <= source.time_ms:
            if self.shape.kind != "info":  # every message of a resource tells it
                self.dropped[Reason.SUPERSEDED] += 1
            return 0.0
        if source is None:
            return self._begin(reading, reading.value, bounds, now_ms, target, resources)
        as_before = source.labels == reading.labels
        own, moves = self.rows[source.labels].bounds, False
        if not as_before:
            relabelled = _relabelled(source.labels, reading.labels)
            moves = not relabelled and self._has_room(source, reading.labels, bounds)
            if relabelled or (moves and (own == bounds or self.shape.kind != "histogram")):
                before = self._end_source(key, ends_row=relabelled or self.shape.kind == "sum", comes_back=True)
                return self._begin(reading, reading.value, bounds, now_ms, target, resources, before)
        value = conformed(reading.value, bounds, own)
        delta, own = self._since(source.last, value, own)
        source.time_ms, source.last, source.counted = _cut(reading.time_ms, now_ms), value, NOT_TOLD
        source.told = bounds
        self._add(source.labels, delta, own)
        if as_before:
            return 0.0
        folded = self._folded(reading.labels, self.limiter.within_values(reading.labels), source.labels, delta)
        if moves:  # what it has counted so far has the buckets of the row that it leaves
            self._end_source(key, ends_row=False, comes_back=True)
            before = reading.value, bounds, reading.time_ms - 1, reading.producer
            folded += self._begin(reading, reading.value, bounds, now_ms, target, resources, before)
        return folded

    def _target(self, reading: Reading, key: Key, source: Source | None) -> int:
        """Who is read; 0 without a start, for then a target says nothing.

        Of two that are told alike, as two pods of a node may be, the second one is known by its number alone.
        """
        if not (reading.target and key[1]):
            return 0
        if source is not None and source.target in (reading.target, key[0]):
            return source.target
        former = self.sources.of_target(reading.target, key[1])
        two = former is not None and _are_two(self.sources[former], reading)
        return key[0] if two or self._gone.knows(self.metric, self.shape.kind, key) else reading.target

    def _more_or_less_is_told(self, reading: Reading, resource: bytes) -> None:
        """The source of a process whose resource had other attributes until now has the target of this one from now on.

        None of those that both have may differ. Of several it is the one that differs least and was silent the longest.
        """
        of_labels, start_ms = reading.target ^ reading.producer, reading.start_ms
        if not resource or not start_ms or start_ms == reading.time_ms:  # if nobody knows it, it may be anybody's
            return
        others = [each for each in self.sources.of_process(resource, start_ms) if each[0] != reading.producer]
        lasting = reading.target, start_ms
        if not others or self.sources.of_target(*lasting) is not None:
            return
        if self._gone.knows(self.metric, self.shape.kind, lasting):
            return
        found: list[tuple[int, int, Key]] = []
        for producer, other in others:
            former = self.sources.of_target(producer ^ of_labels, start_ms)
            if former is None or _are_two(self.sources[former], reading):
                continue
            if (apart := differences(other, resource)) is not None:
                found.append((apart, self.sources[former].time_ms, former))
        if found:
            *_, former = min(found)
            source = self.sources.let_go(former)
            source.target = reading.target
            self.sources.keep(former, source)

    def _told_otherwise(self, key: Key, target: int, source: Source | None) -> Source | None:
        """The source of a target, whatever its number was; a tick of an older worker has none of its target.

        Such a worker may have taken it for two.
        """
        former = self.sources.of_target(target, key[1])
        if source is not None:
            if former is not None and former != key:
                other, own = self.sources[former], self.rows[source.labels].bounds
                if other.time_ms > source.time_ms:
                    source.last = conformed(other.last, self.rows[other.labels].bounds, own)
                    source.time_ms = other.time_ms
                self._end_source(former, ends_row=False)
            former = key
        if former is not None:
            source = self.sources.let_go(former)
            source.target = target
            self.sources.keep(key, source)
        return source

    def _within_other_bounds(self, key: Key, target: int, reading: Reading, bounds: Bounds) -> Source | None:
        """The source of a process that has other bounds, and so another number, from now on.

        What came since its last reading is known by how much it is. Two that are told with one time are two.
        """
        run = reading.producer, key[1]
        if run not in self.sources.runs or reading.labels not in self.rows or reading.value is None:
            return None
        same = list(self.sources.of_run(reading.labels, *run))
        source = self.sources[same[0]] if len(same) == 1 else None
        if source is None or reading.time_ms == source.time_ms or source.told == bounds:
            return None
        if reading.time_ms < source.time_ms:
            return source  # it is late: nothing of it counts, or changes
        if observations(reading.value) < observations(source.last):
            return None
        self.sources.let_go(same[0])
        source.target, source.last = target, in_one_bucket(source.last)
        self.sources.keep(key, source)
        return source

    def _belongs(self, key: Key, source: Source, producer: int, resources: Resources) -> None:
        """Of whom more or less is told is the run that it was. Older workers, and ticks of theirs, say less."""
        resource = resources.of(producer)
        if producer and (producer != source.producer or resource):
            run = source.run
            first_ms = 0 if run is None or run.ended else run.first_ms
            self.sources.let_go(key)
            source.producer = producer
            self.sources.keep(key, source, first_ms, resource)

    def refuse(self, labels: Labels) -> None:
        """There is no room for a gauge's label set."""
        self.dropped[Reason.OVER_LIMIT] += 1
        within = self.limiter.within_values(labels)
        self.folds.add(self.shape.label_names, labels, within, within if within != labels else (), 1)

    def _has_room(self, source: Source, labels: Labels, bounds: Bounds) -> bool:
        """Whether a source that was folded would keep more of its labels by now."""
        if source.tried == self.limiter.changes:
            return False
        source.tried = self.limiter.changes
        within = self.limiter.within_values(labels)
        return within != source.labels and self.limiter.keeps_more(within, source.labels, self._costs(bounds)[0])

    def _begin(
        self,
        reading: Reading,
        value: Value,
        bounds: Bounds,
        now_ms: int,
        target: int,
        resources: Resources,
        before: Had | None = None,
    ) -> float:
        """The first reading of a source, or of one that had `before` in another row."""
        kind, labels, key, given = self.shape.kind, reading.labels, self._key(reading), bounds
        lasting = target or key[0], key[1]
        run = self.sources.runs.get((reading.producer, key[1]))
        moves = before is not None
        comes_back = before is None and (before := self._gone.take(self.metric, kind, lasting)) is not None
        if before is not None and reading.time_ms <= before[2]:
            self._gone.put(self.metric, kind, lasting, before)
            self.dropped[Reason.SUPERSEDED] += 1
            return 0.0
        if len(self.sources) >= self._limits.sources and not moves:
            if before is not None:
                self._gone.put(self.metric, kind, lasting, before)
            if run is not None:
                run.first_ms = 0
            self.dropped[Reason.OVER_LIMIT] += 1
            return 0.0
        if kind in ("gauge", "info"):
            if not self.limiter.admits(labels):
                self.refuse(labels)
                return 0.0
            within = placed = labels
        else:
            within = self.limiter.within_values(labels)
            placed = labels if labels in self.rows else self._place(within, bounds)
            value, bounds = self._folding(labels, placed, value, bounds)
        unknown = reading.start_ms == reading.time_ms and kind not in UNCOUNTED
        young = not unknown and reading.start_ms >= now_ms - (self._limits.idle_ms or YOUNG_MS)
        old = before is None and not (unknown or young or kind in UNCOUNTED)
        later = old and run is not None and run.had_others(reading.time_ms, self._gone)
        if comes_back and run is not None and run.ended:
            run.ended -= 1
        elif before is None and unknown:
            before = self._run_before(reading, value, bounds)
        # What is to end with the next tick is there for Prometheus, and goes on if it comes back before.
        delta, counted, begins_row = value, bounds, placed not in self.rows and placed not in self._ended
        if before is not None:
            last, counted, *_ = before
            delta, counted = self._since(last, conformed(value, bounds, counted), counted)
            if placed not in self.rows:
                self._fresh[placed] = None
                delta, counted = conformed(delta, counted, bounds), bounds
        elif kind in UNCOUNTED or young:
            if kind not in UNCOUNTED and placed not in self.rows:
                self._fresh[placed] = None
        elif not begins_row:
            if unknown and not reading.target:
                self.dropped[Reason.START_UNKNOWN] += 1
            delta = nothing(self.shape._replace(bounds=bounds))
            if isinstance(delta, SummaryValue) and isinstance(value, SummaryValue):
                delta = delta._replace(values=value.values)
        row = self._add(placed, delta, counted)
        row.sources += 1
        if begins_row and kind not in UNCOUNTED and placed not in self._fresh:
            self._histories[placed] = row.value
        last = conformed(value, bounds, row.bounds)
        source = Source(placed, _cut(reading.time_ms, now_ms), last, target, reading.producer, told=given)
        self.sources.keep(key, source, reading.time_ms, resources.of(reading.producer))
        if later:
            self._candidates.append(Candidate(key, source, value, bounds, labels, within, source.time_ms, begins_row))
        return self._folded(labels, within, placed, delta)

    def _count_candidates(self) -> None:
        """Those of runs of which nothing that was there before has fallen silent."""
        candidates, self._candidates, self.folded_late = self._candidates, [], 0.0
        for one in self.sources.that_go_on(candidates):
            placed = one.source.labels
            if not one.begins_row:
                self._add(placed, one.value, one.bounds)
                self.folded_late += self._folded(one.labels, one.within, placed, one.value)
            elif self.rows[placed].was is None:
                self._fresh[placed] = None

    def _leave_out_history(self, labels: Labels) -> None:
        """A row that was counted since it began is told from zero on: else nobody would see that it rose."""
        row, history = self.rows[labels], self._histories.pop(labels, None)
        since = None if history is None or labels in self._fresh else minus(row.value, history)
        if since is not None and observations(since):
            row.value = since
            self._fresh[labels] = None

    def _run_before(self, reading: Reading, value: Value, bounds: Bounds) -> Had | None:
        """What a process told last, under another start, if that is before the reading: in its place from now on.

        Who still reads it under that start goes on from here as well. Of those that are told without an instance nobody
        knows which one it was.
        """
        runs = self.sources.of_number(reading.source) if reading.target else ()
        newest = max(runs, key=lambda key: self.sources[key].time_ms, default=None)
        if newest is None or self.sources[newest].time_ms >= reading.time_ms:
            return None
        source = self.sources[newest]
        own = self.rows[source.labels].bounds
        self._end_source(newest, ends_row=False)
        now = conformed(value, bounds, own), own, reading.time_ms, source.producer
        self._gone.put(self.metric, self.shape.kind, (source.target or newest[0], newest[1]), now)
        return source.last, own, source.time_ms, source.producer

    def _key(self, reading: Reading) -> Key:
        return reading.source, 0 if self.shape.kind in UNCOUNTED else reading.start_ms

    def _since(self, last: Value, value: Value, bounds: Bounds) -> tuple[Value, Bounds]:
        """What a source counted between two of its readings, and within which bounds; of a gauge, the newer one."""
        if self.shape.kind in ("gauge", "info"):
            return value, bounds
        if bounds and isinstance(last, HistogramValue) and len(last.buckets) == 1:
            value, bounds = in_one_bucket(value), ()
        delta = minus(value, last)
        began_anew = delta is None or (self.shape.kind == "counter" and observations(delta) < 0)
        return (value if delta is None or began_anew else delta), bounds

    def _folding(self, labels: Labels, placed: Labels, value: Value, bounds: Bounds) -> tuple[Value, Bounds]:
        """What is counted of a value under another label set: quantiles cannot be merged."""
        folds = placed != labels and self.shape.kind == "summary"
        return (conformed(value, bounds, ()), ()) if folds else (value, bounds)

    # ---- rows --------------------------------------------------------------------------------------------

    def take_over(
        self, labels: Labels, value: Value, bounds: Bounds, counted: int, whole: bool = True, ending: bool = False
    ) -> Labels | None:
        """A loaded row; returns under which label set it goes on, if it does. `ending`: until the next tick.

        One that goes on as another series, because it folds or is not `whole` (it had labels that the shape lacks),
        counts from here on there: what it had is in the ticks before. Of a sum that may fall there is no before.
        """
        placed = labels
        if not (self.shape.open and self.limiter.restore(labels, *self._costs(bounds))):
            if self.shape.kind in ("gauge", "info"):
                return None
            placed = self._place(labels, bounds)
        known = self.rows.get(placed)
        before = NOT_TOLD if known is None else known.counted
        value, bounds = self._folding(labels, placed, value, bounds)
        goes_on = whole and placed == labels
        if goes_on:
            self._fresh.pop(placed, None)
        elif self.shape.kind not in UNCOUNTED:
            value = nothing(self.shape._replace(bounds=bounds))
            if known is None:
                self._fresh[placed] = None
        row = self._add(placed, value, bounds)
        row.counted, row.was = max(before, counted), row.value if goes_on else row.was
        if ending and goes_on:
            self._ending[placed] = row.value
        return placed

    def restore(self, source: SourceState, labels: Labels, last: Value, bounds: Bounds, counted: int) -> None:
        """A loaded source, with the row that it feeds here, and what it had counted within the bounds of another one.

        Where those differ nobody knows in which of the new buckets that lies: how much it was is kept.
        """
        row = self.rows[labels]
        if isinstance(last, HistogramValue) and (row.bounds != bounds or len(last.buckets) != len(bounds) + 1):
            last = in_one_bucket(last)  # ticks once had it within the source's own bounds
        key = source.source, source.start_ms
        restored = Source(labels, source.time_ms, last, source.target, source.producer, counted)
        self.sources.keep(key, restored, source.run_ms, source.resource)
        row.sources, row.counted = row.sources + 1, max(row.counted, counted)  # no row ends before its sources

    def _place(self, labels: Labels, bounds: Bounds) -> Labels:
        return self.limiter.place(labels, *self._costs(bounds)) if self.shape.open else self.limiter.place(labels)

    def _costs(self, bounds: Bounds) -> tuple[int, int]:
        """Prometheus series of a label set with these bounds, and without any."""
        return self.shape._replace(bounds=bounds).series, self.shape._replace(bounds=()).series

    def _add(self, placed: Labels, value: Value, bounds: Bounds) -> _Row:
        row = self.rows.get(placed)
        if row is None:
            own = self._ended.get(placed, bounds)  # what comes back before it was told to end never ended
            if self.shape.open and self.limiter.cost(placed) < self.shape._replace(bounds=own).series:
                own = ()
            row = self.rows[placed] = _Row(conformed(value, bounds, own), own)
            if self._ended.pop(placed, None) is not None:
                row.was = nothing(self.shape._replace(bounds=own))
        elif self.shape.kind in ("gauge", "info"):
            row.value = value
        else:
            row.value = plus(row.value, conformed(value, bounds, row.bounds))
        row.counted = NOT_TOLD
        return row

    def _end_reading(self, reading: Reading) -> None:
        """The source says that it has no value any more; some give that another start time, or no bounds or quantiles.

        So it has none of its runs before. Bounds are part of what a source is: without them it is known by its labels,
        if nobody shares them.
        """
        own, runs = self._key(reading), self.sources.of_number(reading.source)
        ended = [key for key in runs if key <= own or own not in runs]
        if not ended and reading.labels in self.rows and not self.rows[reading.labels].sources:
            self._end_row(reading.labels)
        elif not ended:
            alike = self.sources.of_labels(reading.labels)
            ended = list(alike) if len({number for number, _ in alike}) == 1 else []
        for key in ended:
            if reading.time_ms > self.sources[key].time_ms:
                self._end_source(key, ends_row=True)

    def _end_source(self, key: Key, ends_row: bool, comes_back: bool = False) -> Had | None:
        """What a counter had, which is remembered unless it `comes_back` at once."""
        source, had = self.sources.let_go(key), None
        row = self.rows[source.labels]
        row.sources -= 1
        if self.shape.kind not in UNCOUNTED:
            had = source.last, row.bounds, source.time_ms, source.producer
        if had is not None and not comes_back:
            if source.run is not None:
                source.run.ended += 1
            self._gone.put(self.metric, self.shape.kind, (source.target or key[0], key[1]), had)
        if self.shape.kind == "sum":  # what it had is gone; what others told as deltas is not
            row.value = plus(row.value, -observations(source.last))
            ends_row = ends_row and abs(observations(row.value)) <= ROUNDING * abs(observations(source.last))
        if ends_row and not row.sources:
            self._end_row(source.labels)
        return had

    def _end_row(self, labels: Labels) -> None:
        """At once, unless it has counts that no tick has told: then after the tick that tells them."""
        if self.rows[labels].counted == NOT_TOLD and self.shape.kind not in UNCOUNTED:
            self._leave_out_history(labels)
            self._ending[labels] = self.rows[labels].value
            return
        row = self.rows.pop(labels)
        row.ended = True
        self._ending.pop(labels, None)
        self.limiter.release(labels)
        self._fresh.pop(labels, None)
        self._histories.pop(labels, None)
        if row.was is not None:
            self._ended[labels] = row.bounds

    def end_idle(self, time_ms: int) -> None:
        """Say that what was counted since the last tick is in this one; end what is idle."""
        self._count_candidates()
        for labels in list(self._histories):
            self._leave_out_history(labels)
        ending, self._ending = self._ending, {}
        for labels, value in ending.items():
            row = self.rows[labels]
            if not row.sources and row.value == value:
                self._end_row(labels)
        level = self.shape.kind in LEVELS
        idle_ms = self._limits.level_idle_ms if level else self._limits.idle_ms
        # Of series that never end the sources do: they are the producers' runs, and there is room for so many.
        for key in _idle(self.sources, time_ms, idle_ms or YOUNG_MS):
            self._end_source(key, ends_row=level)
        # A sum that may fall goes with its sources; one of deltas would come back from zero, so it ends as a counter.
        for labels in _idle(self.rows, time_ms, self._limits.idle_ms if self.shape.kind == "sum" else idle_ms):
            if not self.rows[labels].sources:  # of a sum they may be silent for longer
                self._end_row(labels)
        self.sources.forget_runs()
        for labels in self._ending:
            self.rows[labels].counted = time_ms - ENDING  # so that the next owner knows as well

    # ---- what is told ------------------------------------------------------------------------------------

    def told(self, time_ms: int) -> list[SeriesBlock]:
        """Every row and what ended, in the order of admission; rows that began at zero are the last ones."""
        blocks: dict[Bounds, SeriesBlock] = {}

        def block_of(bounds: Bounds) -> SeriesBlock:
            if bounds not in blocks:
                blocks[bounds] = SeriesBlock(self.metric, self.shape._replace(bounds=bounds))
            return blocks[bounds]

        for labels in self._fresh:
            self.rows[labels] = self.rows.pop(labels)
        block, bounds = None, None
        for labels, row in self.rows.items():  # no label is looked at here: they would be most of the memory touched
            if block is None or row.bounds is not bounds:
                bounds = row.bounds
                block = block_of(bounds)
            if not row.packed:
                row.packed = encode_labels(labels)
            block.rows.append((labels, row.value))
            block.packed.append(row.packed)
            block.idle.append(time_ms - row.counted)
            row.was = row.value
        for labels in self._fresh:
            block_of(self.rows[labels].bounds).fresh += 1
        for labels, bounds in self._ended.items():
            block_of(bounds).stale.append(labels)
        said: Run | None = None  # most sources of a run come one after the other
        for (number, start), source in self.sources.items():
            row, idle = self.rows[source.labels], time_ms - source.counted
            last = None if source.last == row.value or self.shape.kind in ("gauge", "info") else source.last
            run = source.run  # of ended ones the next owner does not know what they had told
            run_ms = 0 if run is None or run.ended else run.first_ms
            resource = b"" if run is None or run is said else run.resource
            said = run
            whose = source.target, source.producer, run_ms, resource
            state = SourceState(source.labels, number, start, source.time_ms, idle, last, *whose)
            block_of(row.bounds).sources.append(state)
        for block in blocks.values():
            if not any(block.idle):
                block.idle = []
        found = list(blocks.values())
        if found:
            found[0].limits = self.folds.states(self.shape, self.limiter)
        self._fresh, self._ended = {}, {}
        self.sources.unindex()
        return found

    def _folded(self, labels: Labels, within: Labels, placed: Labels, value: Value) -> float:
        if placed == labels:
            return 0.0
        number = 1.0 if self.shape.kind in UNCOUNTED else observations(value)
        self.folds.add(self.shape.label_names, labels, within, placed, number)
        return number


def _idle(entries: Mapping[K, _Row] | Mapping[K, Source], time_ms: int, idle_ms: int) -> list[K]:
    """What was not counted for so long (0: for ever). What was counted since the last tick is in this one."""
    idle: list[K] = []
    for key, entry in entries.items():
        if entry.counted == NOT_TOLD:
            entry.counted = time_ms
        elif idle_ms and time_ms - entry.counted >= idle_ms:
            idle.append(key)
    return idle


def _are_two(source: Source, reading: Reading) -> bool:
    """Whether a reading under another number is of another source, though the target is the same.

    What one counts under one start is one number at a time, and never falls.
    """
    if reading.value is None:
        return False
    later, more = reading.time_ms - source.time_ms, observations(reading.value) - observations(source.last)
    return later * more < 0 or (not later and more != 0)


def _cut(time_ms: int, now_ms: int) -> int:
    """The time of a reading, as far as it is believed."""
    return min(time_ms, now_ms + AHEAD_MS)


def _relabelled(placed: Labels, given: Labels) -> bool:
    """Whether a label set was counted as `placed` for another reason than that it was folded."""
    return any(own not in (value, OVERFLOW) for own, value in zip(placed, given, strict=True))
