"""Another N: what is decided, kept and counted is as if N had never changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from processors.sampling.decision_log import DECISION_BYTES
from processors.sampling.rekey import Decisions, Rows, follow, join
from processors.stream_time import LEFT_OUT
from schemas.decision import DROPPED, Checkpoint, DecisionRecord
from schemas.envelope import Envelope, RowVerdict
from tests.processors.sampling.pair import LOGS, SETTINGS, SPANS, WAIT, Owner, Pair, key, ms

TRACES = "ABCDE"
SHORT = WAIT // 1000
NAMES = [f"{trace}{number}{outcome}" for trace in TRACES for number in "123" for outcome in ("", "", "", "!")]


class Event(NamedTuple):
    """One transaction of ingest: rows of a topic, `delay` seconds older than the time that it was read."""

    topic: str
    after: float
    names: tuple[str, ...]
    delay: float = 0.0


EVENTS = st.builds(
    Event,
    st.sampled_from([SPANS, SPANS, LOGS]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.lists(st.sampled_from(NAMES), max_size=5).map(tuple),
    st.sampled_from([0.0, 0.0, 3.0]),
)

MOST = 6  # partitions
READ = st.sampled_from([30, 30, 30, 12, 5, 0])  # records


@dataclass
class Pipeline:
    """The partitions of one N and what their owners did."""

    pairs: list[Pair]
    owners: list[Owner]

    @classmethod
    def of(cls, partitions: int) -> Pipeline:
        # Nothing happens at the very moment of a deadline: then the order of records would decide.
        own = replace(SETTINGS, partitions=partitions, decision_wait=WAIT + 250)
        pairs = [Pair(settings=own) for _ in range(partitions)]
        return cls(pairs, [])

    def write(self, event: Event, at: float) -> None:
        """Every partition gets its rows and the mark."""
        for index, pair in enumerate(self.pairs):
            own = [name for name in event.names if key(name) % len(self.pairs) == index]
            pair_write = pair.spans if event.topic == SPANS else pair.logs
            pair_write(at - event.delay, *own, mark=at, append=at)
            topic = pair.topics[event.topic]
            envelope = Envelope.decode(topic[-1][1])
            envelope.partitions = len(self.pairs)
            topic[-1] = (topic[-1][0], envelope.encode())

    def own(self) -> None:
        """Owners take over all partitions."""
        self.owners += [pair.own() for pair in self.pairs]

    def settle(self) -> None:
        """Everything is read and forwarded."""
        self.own()
        for owner in self.owners[-len(self.pairs) :]:
            owner.settle()


def rekeyed(old: Pipeline, partitions: int) -> Pipeline:
    """As pipeline/operating/resize.py does it."""
    new = Pipeline.of(partitions)
    points = []
    for pair in old.pairs:
        point: Checkpoint | None = None
        for record in map(DecisionRecord.decode, pair.decisions[pair.pointer or 0 :]):
            point = follow(point, record.checkpoint)
        points.append(point or Checkpoint(tails={SPANS: 0, LOGS: 0}))
    counted: dict[str, list[int]] = {}
    for topic in (SPANS, LOGS):
        rows = Rows(points, partitions)
        for done in (True, False):
            for index, (append, value) in merged(old, topic, points, done):
                for target, envelope in rows.place(index, append, Envelope.decode(value)):
                    new.pairs[target].topics[topic].append((append, envelope.encode()))
            if done:
                counted[topic] = [len(pair.topics[topic]) for pair in new.pairs]
    decisions = Decisions(partitions)
    records = [
        placed
        for pair in old.pairs
        for record in map(DecisionRecord.decode, pair.decisions[pair.pointer or 0 :])
        for placed in decisions.add(record)
    ]
    for target, record in [*records, *decisions.rest()]:
        at = {topic: counted[topic][target] for topic in (SPANS, LOGS)}
        record.checkpoint = replace(join(points), tails={SPANS: 0, LOGS: 0}, counted=at)
        new.pairs[target].decisions.append(record.encode())
        new.pairs[target].pointer = 0
        new.pairs[target].offsets = {SPANS: 0, LOGS: 0}
    return new


def merged(
    old: Pipeline, topic: str, points: list[Checkpoint], counted: bool
) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """The records from the tails on, those that are counted or the others, by append time."""
    found = [
        (append, index, offset, value)
        for index, (pair, point) in enumerate(zip(old.pairs, points, strict=True))
        for offset, (append, value) in enumerate(pair.topics[topic])
        if offset >= point.tails[topic] and (offset < point.counted.get(topic, 0)) == counted
    ]
    for append, index, _, value in sorted(found):
        yield index, (append, value)


@given(
    st.lists(EVENTS, min_size=2, max_size=30),
    st.integers(0, 30),
    st.sampled_from([(1, 3), (4, 6), (3, 2), (6, 1)]),
    st.lists(st.tuples(READ, READ, st.integers(0, 2)), min_size=MOST, max_size=MOST),
)
@example(
    [
        Event(SPANS, 0.5, ("B2!",), 3.0),
        Event(LOGS, 4.0, ("B1",)),
        *[Event(SPANS, 0.5, ())] * 3,
        Event(LOGS, 4.0, ()),
        Event(SPANS, 0.5, ()),
        Event(SPANS, 0.5, ("B1",)),
    ],
    7,
    (1, 3),
    [(30, 30, 1)] * MOST,
).via("a span beyond the deadline, read ahead of the logs that hold the clock: its name is there or not")
@example(
    [
        Event(SPANS, 0.5, ("E1",)),
        *[Event(SPANS, after, ()) for after in (1.0, 4.0, 4.0)],
        Event(SPANS, 0.5, ("E1!",)),
        Event(LOGS, 1.0, ()),
        Event(LOGS, 0.5, ("E1",)),
    ],
    7,
    (4, 6),
    [(30, 30, 0), (30, 30, 1), *[(30, 30, 0)] * (MOST - 2)],
).via("a log beyond the deadline, read before the mark that lets its trace be decided: it has named its span or not")
def test_a_resize_changes_no_verdict_no_row_and_no_count(
    events: list[Event], cut: int, sizes: tuple[int, int], reads: list[tuple[int, int, int]]
) -> None:
    before, after = sizes
    steady, old = Pipeline.of(before), Pipeline.of(before)
    times, at = [], 0.0
    for event in events:
        at += event.after
        times.append(at)
    ends = [Event(topic, 0, ()) for topic in (SPANS, LOGS)]
    for event, time in zip(events, times, strict=True):
        steady.write(event, time)
    for event, time in zip(events[:cut], times, strict=False):
        old.write(event, time)
    for event in ends:
        steady.write(event, at + 3 * SHORT)
    steady.settle()

    old.own()
    for owner, (spans, logs, bursts) in zip(old.owners, reads, strict=False):  # each has come as far as it has
        owner.read(SPANS, count=spans)
        owner.read(LOGS, count=logs)
        for _ in range(bursts):
            owner.burst()
    new = rekeyed(old, after)
    for event, time in zip(events[cut:], times[cut:], strict=True):
        new.write(event, time)
    for event in ends:
        new.write(event, at + 3 * SHORT)
    new.settle()

    assert verdicts(old, new) == verdicts(steady)
    late = may_be_late(events, times)
    assert kept(late, old, new) == kept(late, steady)
    assert sum(owner.counted for owner in (*old.owners, *new.owners)) == sum(o.counted for o in steady.owners)


def verdicts(*pipelines: Pipeline) -> dict[str, set[str]]:
    """What any record says of each trace."""
    found: dict[str, set[str]] = {}
    for pair in (pair for pipeline in pipelines for pair in pipeline.pairs):
        for trace, policies in pair.verdicts().items():
            found.setdefault(trace, set()).update(policies)
    return found


def may_be_late(events: list[Event], times: list[float]) -> set[str]:
    """Traces with a row that may lie beyond the deadline: whether a span is there, or a log has named it, when the
    decision is made depends on the order of reading, and with it what logs learn, but nothing else
    (processors/correlation.py)."""
    rows = [(name[0], event, time) for event, time in zip(events, times, strict=True) for name in event.names]
    first: dict[str, float] = {}
    for trace, event, time in rows:
        first[trace] = min(first.get(trace, time), time - event.delay)
    return {trace for trace, _, time in rows if time > first[trace] + SHORT}


def kept(late: set[str], *pipelines: Pipeline) -> tuple[Counter[str], Counter[tuple[str, RowVerdict | None]]]:
    """Spans, and logs with what they say, that were forwarded; those of `late` traces without what they learned."""
    owners = [owner for pipeline in pipelines for owner in pipeline.owners]
    spans = Counter(name for owner in owners for name in owner.kept_spans)
    logs = Counter(
        (name, replace(verdict, span=None) if verdict is not None and name[0] in late else verdict)
        for owner in owners
        for name, verdict in owner.kept_logs
    )
    return spans, logs


# ---- the joined checkpoint ---------------------------------------------------------------------------------


def test_a_raw_partition_is_where_the_slowest_reader_has_it() -> None:
    one = Checkpoint(marks={("raw", 0): (ms(5), 7), ("raw", 1): (ms(9), 9)}, raw_topics={"raw": 2}, policy_version="p")
    other = Checkpoint(marks={("raw", 0): (ms(3), 8)}, raw_topics={"raw": 3})
    joined = join([one, other])
    assert joined.marks == {("raw", 0): (ms(3), 8)}, "nobody knows how far raw/1 is everywhere"
    assert joined.raw_topics == {"raw": 3}
    assert joined.policy_version == "p"
    assert joined.full


def test_a_raw_partition_is_left_out_if_all_leave_it_out() -> None:
    out, back = Checkpoint(marks={("raw", 0): (-1, LEFT_OUT)}), Checkpoint(marks={("raw", 0): (ms(1), 4)})
    assert join([out, out]).marks == {("raw", 0): (-1, LEFT_OUT)}
    assert join([out, back]).marks == {}


def test_buckets_of_a_rate_keep_their_sum() -> None:
    """Each holds a share of 1/N, in units of 1/N span: the average for every new one."""
    points = [Checkpoint(limiters={"rate": [(4000, 10)]}), Checkpoint(limiters={"rate": [(1000, 12)]}), Checkpoint()]
    assert join(points).limiters == {"rate": [(2500, 12)]}


def test_records_of_verdicts_stay_small() -> None:
    decisions, many = Decisions(2), DecisionRecord(1)
    for trace in range(200_000):
        many.append(trace, 0, DROPPED)
    many.repeated.extend(range(0, 200_000, 3))
    records = [*decisions.add(many), *decisions.rest()]
    assert max(len(record.encode()) for _, record in records) < 2 * DECISION_BYTES
    assert sorted(k for _, record in records for k in record.keys) == list(range(200_000))
    assert all(k % 2 == target for target, record in records for k in record.keys)
    assert all([k for k in record.keys if k % 3 == 0] == list(record.repeated) for _, record in records)
