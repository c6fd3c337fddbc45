"""What the destinations hold against what was made: one row of figures, all of which must be 0."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.deliver import ANSWERS_LIMIT
from tests.end_to_end.truth import Holdings
from tests.faults.ledger import Ledger
from tests.faults.proxy import Passage
from tests.faults.stage import Disturbance

COLUMNS = (
    "kept traces lost",
    "traces split",
    "two verdicts",
    "duplicated in Kafka",
    "duplicated in Jaeger",
    "duplicated in Elasticsearch",
    "logs lost",
    "logs duplicated",
    "span-metric error",
    "otherwise wrong",
)
"""Spans that the internal topics hold twice are `duplicated in Kafka`, logs there `logs duplicated`; `otherwise wrong`
is what none of the others names: a trace that must be dropped and is there, another policy, another document."""

UNANSWERED = "unanswered request"
ROLLED_OVER = "rollover"


@dataclass(slots=True)
class Found:
    """Everything that was asked after a run.

    `verdicts`: (policy, "" when dropped) of each trace in the log of decisions, by the last 16 digits of its id.
    `requests` are those that Jaeger was sent.
    """

    servers: Holdings
    topics: Holdings
    verdicts: Mapping[str, set[str]]
    requests: Sequence[Passage] = ()
    disturbances: Sequence[Disturbance] = ()


@dataclass(slots=True)
class Row:
    """`counts` by column; `allowed` duplicates by column and cause; `examples` are the first of each column."""

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COLUMNS, 0)))
    allowed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not +self.counts

    def add(self, column: str, what: str, count: int = 1) -> None:
        """Something is wrong."""
        self.counts[column] += count
        if len(self.examples[column]) < 5:
            self.examples[column].append(what)

    def lines(self) -> list[str]:
        """The examples, for people."""
        return [f"{column}: {what}" for column in COLUMNS for what in self.examples[column]]


def check(ledger: Ledger, found: Found) -> Row:
    """Compare."""
    row = Row()
    ledger.decided = {
        trace_id: next(iter(verdicts))
        for trace_id in ledger.traces
        if len(verdicts := found.verdicts.get(trace_id[16:], set())) == 1
    }
    kept = ledger.kept
    _traces(row, ledger, kept, found)
    _spans_twice(row, found)
    _logs(row, ledger, kept, found)
    for name, counted in (("calls", found.servers.calls), ("durations", found.servers.durations)):
        for service in counted.keys() | ledger.made.keys():
            if error := abs(counted[service] - ledger.made[service]):
                row.add(
                    "span-metric error", f"{name} of {service}: {counted[service]}, {ledger.made[service]} made", error
                )
    return row


def _traces(row: Row, ledger: Ledger, kept: Mapping[str, str], found: Found) -> None:
    spans = found.servers.spans
    for trace_id, policy in kept.items():
        made, got = ledger.traces[trace_id].spans.keys(), spans.get(trace_id, Counter[str]()).keys()
        if not got:
            row.add("kept traces lost", f"{trace_id} ({policy}), verdicts {found.verdicts.get(trace_id[16:])}")
        elif got != made:
            row.add("traces split", f"{trace_id} ({policy}) has {len(got & made)} of {len(made)} spans")
        elif found.servers.policies[trace_id] != {policy}:
            row.add("otherwise wrong", f"{trace_id} names {found.servers.policies[trace_id]}, not {policy}")
    for trace_id in (spans.keys() | found.topics.spans.keys()) - kept.keys():
        known = "must be dropped" if trace_id in ledger.traces else "was never made"
        row.add("otherwise wrong", f"{trace_id} {known} and is there, verdicts {found.verdicts.get(trace_id[16:])}")
    for key, verdicts in found.verdicts.items():
        if len(verdicts) > 1:
            row.add("two verdicts", f"{key}: {sorted(verdicts)}")


def _spans_twice(row: Row, found: Found) -> None:
    for trace_id, spans in found.topics.spans.items():
        if more := spans.total() - len(spans):
            row.add("duplicated in Kafka", trace_id, more)
    accepted: dict[str, list[Passage]] = defaultdict(list)
    for request in found.requests:
        for key in request.keys if request.accepted else ():
            accepted[key].append(request)
    for key, requests in accepted.items():
        for before, after in pairwise(requests):
            if cause := _cause(before, after, found.disturbances):
                row.allowed["duplicated in Jaeger"][cause] += 1
            else:
                row.add("duplicated in Jaeger", f"{key}, sent at {before.at:.2f} and {after.at:.2f}")
    for trace_id, spans in found.servers.spans.items():
        for span_id, shown in spans.items():
            if shown > max(1, len(accepted.get(f"{trace_id}/{span_id}", ()))):
                row.add("duplicated in Jaeger", f"{trace_id}/{span_id} is shown {shown} times", shown - 1)


def _cause(before: Passage, after: Passage, disturbances: Iterable[Disturbance]) -> str:
    """Why a span was sent again; "" if nothing explains it."""
    if not before.answered or before.seconds > min(ANSWERS_LIMIT, after.at - before.at):
        return UNANSWERED
    return next((d.cause for d in disturbances if d.explains(before.at, after.at)), "")


def _logs(row: Row, ledger: Ledger, kept: Mapping[str, str], found: Found) -> None:
    for uid, documents in found.topics.logs.items():
        if len(documents) > 1:
            row.add("logs duplicated", uid, len(documents) - 1)
    expected, logs, known = ledger.expected_logs(), found.servers.logs, set()
    for log in ledger.logs():
        known.add(log.uid)
        documents = logs.get(log.uid, [])
        if log.uid not in expected:
            if documents:
                row.add("otherwise wrong", f"log {log.uid} of dropped trace {log.trace_id} is there")
            continue
        if not documents:
            row.add("logs lost", f"{log.uid} of trace {log.trace_id or '-'}")
            continue
        wanted = ledger.document(log, kept.get(log.trace_id, ""))
        names = {wanted.span_name}
        if log.trace_id in ledger.late:  # its span may have come after the decision, which names it: then the root does
            roots = [span.name for span in ledger.traces[log.trace_id].spans.values() if not span.parent]
            names.update(("", *roots))
        for document in documents:
            if document.span_name not in names or document._replace(span_name=wanted.span_name) != wanted:
                row.add("otherwise wrong", f"log {log.uid} is {document}, not {wanted}")
        for cause in _again(found.servers.places[log.uid]):
            if cause:
                row.allowed["duplicated in Elasticsearch"][cause] += 1
            else:
                row.add("duplicated in Elasticsearch", f"{log.uid} at {found.servers.places[log.uid]}")
    for uid in logs.keys() - known:
        row.add("otherwise wrong", f"log {uid} was never written")


def _again(places: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Why each further document of a log is there: the same id in another index, or ""."""
    (_, first_id), *others = places
    indices = {places[0][0]}
    for index, document_id in others:
        yield ROLLED_OVER if document_id == first_id and index not in indices else ""
        indices.add(index)
