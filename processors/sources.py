"""The sources of one metric: by number and start, by the process and by the run of it that they are of, by labels.

Who ended is remembered apart (`Gone`): a failed scrape is no new beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from processors.resources import WHOSE
from processors.values import Bounds
from schemas.point import Kind, Labels, Value

NOT_TOLD = -1
# Points of one export may be so far apart: some producers look at the clock for each. Between two exports it is longer.
ONE_EXPORT_MS = 500
# Of a process under one start that are looked at for one that goes on, 3 µs each: tables of a database may be many.
MOST_RESOURCES = 32

Key = tuple[int, int]
"""Number and start of a source; levels have none."""
Had = tuple[Value, Bounds, int, int]
"""What a source had told when it ended, within which bounds, as of when, and whose it was."""


@dataclass(slots=True)
class Run:
    """One run of a producer, and when it was read first: 0 if it may have had sources that nobody knows of.

    `sources` are remembered; what `ended` ones had told only `Gone` knows. `resource` is what is told of the producer.
    """

    first_ms: int
    sources: int = 0
    ended: int = 0
    resource: bytes = b""

    def had_others(self, time_ms: int, gone: Gone) -> bool:
        """Whether a new source of that time is none of those that the producer had when it was read first."""
        if not self.first_ms or (self.ended and self.first_ms <= gone.lost_ms):
            return False
        return time_ms > self.first_ms + ONE_EXPORT_MS


@dataclass(slots=True)
class Source:
    """The newest reading of a source within its row's bounds, and the row that it feeds.

    `counted` is the time of the tick that its newest reading was in, NOT_TOLD until there is one. `target` and
    `producer` are those of its readings, 0 if they say nothing. `tried`: there was no better row for it after so many
    changes of the limiter. `run` is that of its producer, if it is known; `told` are the bounds of its newest reading,
    None of one that was loaded.
    """

    labels: Labels
    time_ms: int
    last: Value
    target: int
    producer: int
    counted: int = NOT_TOLD
    tried: int = 0
    run: Run | None = None
    told: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new source of a run that was read before: the next tick shows whether its `value` is new as well.

    `labels` and `within` are what it came with and what its values' limits leave of that.
    """

    key: Key
    source: Source
    value: Value
    bounds: Bounds
    labels: Labels
    within: Labels
    time_ms: int
    begins_row: bool


class _Alike:
    """Keys of sources by number, labels, and labels of a run. Made when asked for: it costs a look at all of them."""

    def __init__(self, sources: Mapping[Key, Source]) -> None:
        self.numbers: dict[int, dict[Key, None]] = {}
        self.labels: dict[Labels, dict[Key, None]] = {}
        self.runs: dict[tuple[Labels, int, int], dict[Key, None]] = {}
        for key, source in sources.items():
            self.add(key, source)

    def add(self, key: Key, source: Source) -> None:
        """One that began."""
        self.numbers.setdefault(key[0], {})[key] = None
        self.labels.setdefault(source.labels, {})[key] = None
        self.runs.setdefault((source.labels, source.producer, key[1]), {})[key] = None

    def remove(self, key: Key, source: Source) -> None:
        """One that ended."""
        del self.numbers[key[0]][key], self.labels[source.labels][key]
        del self.runs[source.labels, source.producer, key[1]][key]


class Sources(dict[Key, Source]):
    """Those that are remembered: they come by `keep` and go by `let_go`, and are looked up as in any dict."""

    __slots__ = ("_alike", "_left", "_processes", "_targets", "runs")

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[Key, Run] = {}  # by producer and start, if both are known
        self._targets: dict[Key, Key] = {}  # by target and start: under which key it is
        self._left: list[Key] = []  # runs that had no source for a while since the last tick
        self._alike: _Alike | None = None
        # Runs of one process and start, by what their resources have in common; made when asked for.
        self._processes: dict[tuple[bytes, int], list[Key]] | None = None

    def keep(self, key: Key, source: Source, first_ms: int = 0, resource: bytes = b"") -> None:
        """Remember a source. `first_ms` is when its run was read first, if it is not known yet; so is `resource`."""
        self[key] = source
        if source.producer and key[1]:
            source.run = self.runs.setdefault((source.producer, key[1]), Run(first_ms))
            source.run.sources += 1
            if resource and not source.run.resource:
                source.run.resource = resource
                if self._processes is not None:
                    self._processes.setdefault((resource[:WHOSE], key[1]), []).append((source.producer, key[1]))
        if source.target:
            self._targets[source.target, key[1]] = key
        if self._alike is not None:
            self._alike.add(key, source)

    def let_go(self, key: Key) -> Source:
        """One that ended, or goes on under another key."""
        source = self.pop(key)
        if source.run is not None:
            source.run.sources -= 1
            if not source.run.sources:
                self._left.append((source.producer, key[1]))
        if self._targets.get((source.target, key[1])) == key:
            del self._targets[source.target, key[1]]
        if self._alike is not None:
            self._alike.remove(key, source)
        return source

    def of_target(self, target: int, start_ms: int) -> Key | None:
        """Under which key a process is known by now."""
        return self._targets.get((target, start_ms))

    def of_process(self, resource: bytes, start_ms: int) -> Collection[tuple[int, bytes]]:
        """The producers of a process that have sources of that start, and what is told of each; none if many have."""
        if self._processes is None:
            self._processes = {}
            for key, run in self.runs.items():
                if run.resource:
                    self._processes.setdefault((run.resource[:WHOSE], key[1]), []).append(key)
        runs = self._processes.get((resource[:WHOSE], start_ms), ())
        if not runs or len(runs) > 2 * MOST_RESOURCES:  # whose sources all go on under another one stays until the tick
            return ()
        found = [(key[0], self.runs[key].resource) for key in runs if self.runs[key].sources]
        return found if len(found) <= MOST_RESOURCES else ()

    def of_number(self, number: int) -> Collection[Key]:
        """All runs of a source."""
        return self._same().numbers.get(number, ())

    def of_labels(self, labels: Labels) -> Collection[Key]:
        """Those that feed this row."""
        return self._same().labels.get(labels, ())

    def of_run(self, labels: Labels, producer: int, start_ms: int) -> Collection[Key]:
        """Those of one run of a producer that feed this row."""
        return self._same().runs.get((labels, producer, start_ms), ())

    def _same(self) -> _Alike:
        if self._alike is None:
            self._alike = _Alike(self)
        return self._alike

    def unindex(self) -> None:
        """Labels have changed, or nobody asks for them until the next source ends."""
        self._alike = None

    def forget_runs(self) -> None:
        """Those of which no source is left."""
        for run in self._left:
            if run in self.runs and not self.runs[run].sources:
                del self.runs[run]
        self._left, self._processes = [], None

    def that_go_on(self, candidates: Collection[Candidate]) -> Iterator[Candidate]:
        """Those of runs of which nothing that was there before has fallen silent."""
        new = {id(one.source) for one in candidates}
        runs = {id(one.source.run) for one in candidates}
        oldest: dict[int, int] = {}
        there: set[int] = set()  # of the new ones, whose number may be another by now
        for source in self.values() if candidates else ():
            if id(source) in new:
                there.add(id(source))
            elif id(source.run) in runs:
                oldest[id(source.run)] = min(source.time_ms, oldest.get(id(source.run), source.time_ms))
        for one in candidates:
            silent_since = oldest.get(id(one.source.run))
            goes_on = silent_since is not None and silent_since >= one.time_ms - ONE_EXPORT_MS
            if goes_on and id(one.source) in there:
                yield one


class Gone:
    """What sources of counters had told when they ended, within which bounds, as of when, and whose they were.

    So many at most, however old: what its row had counted is told no more, so one that comes back must not begin with
    its whole value. `lost_ms` is the newest reading of those that there was no room for. In no tick: after a takeover
    a source that comes back is as new as it says.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # A dict whose first keys went one by one looks at all their places for the next one.
        self._had: OrderedDict[tuple[str, Kind, int, int], Had] = OrderedDict()
        self.lost_ms = 0

    def put(self, metric: str, kind: Kind, key: tuple[int, int], had: Had) -> None:
        """One that ended."""
        self._had[metric, kind, *key] = had
        if len(self._had) > self._most:
            _, (*_, time_ms, _) = self._had.popitem(last=False)
            self.lost_ms = max(self.lost_ms, time_ms)

    def knows(self, metric: str, kind: Kind, key: tuple[int, int]) -> bool:
        """Whether one is remembered."""
        return (metric, kind, *key) in self._had

    def take(self, metric: str, kind: Kind, key: tuple[int, int]) -> Had | None:
        """That of one that comes back."""
        return self._had.pop((metric, kind, *key), None) if self._had else None
