"""A dropped trace that is brought back: its rows that the tail has passed, gathered from the log, and its verdict.

The tail cannot pass a row twice, so the partition's owner reads from where the trace begins to the tail, beside its
work, and hands over what it found (`Window.restore`) when it has caught up with the tail: then everything before goes
out in one transaction with the verdict that supersedes the drop, and the tail forwards the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from processors.correlation import SPANS_PER_TRACE, enrichment
from processors.feeds import topic_of
from schemas.decision import RESTORED, Enrichment, Verdict
from schemas.envelope import Envelope
from schemas.ids import SPAN_ID_BYTES
from schemas.otlp_scan import NAME, PARENT_SPAN_ID, SPAN_ID, START_NS, STATUS, SpanColumns

MOST_BYTES = 16 << 20  # of a trace's rows: they go into one transaction
BY_HAND, LATE_SPAN, LATE_LOG = "request", "late_span", "late_log"  # what set it off
TRIGGERS = {BY_HAND: "", LATE_SPAN: "a late span failed", LATE_LOG: "a late log reports an error"}


class Outcome(StrEnum):
    """What came of it."""

    RESTORED = "restored"
    KEPT = "kept"
    UNDECIDED = "undecided"
    UNKNOWN = "unknown"
    GONE = "gone"
    TOO_LARGE = "too_large"
    TOO_FAR = "too_far"  # more of the log would have to be read than sampling.late_evidence.max_read_bytes
    LIMITED = "limited"  # sampling.late_evidence.traces_per_second
    FAILED = "failed"  # Kafka did not answer


class LateError(NamedTuple):
    """Evidence that came after its trace was dropped."""

    trigger: str
    why: str


class Restoration:
    """The rows of one trace, read up to `positions` (by feed, the next offset); `why` is recorded with the verdict.

    `heads` are where the heads stood when it was dropped: the rows that counted lie before. `partitions` is N.
    `partial`: some of its rows may be missing, because they were deleted or lie in another partition.
    """

    def __init__(
        self,
        key: int,
        why: str,
        positions: Mapping[str, int],
        heads: Mapping[str, int],
        partitions: int,
        partial: bool = False,
    ) -> None:
        self.key, self.why, self.heads = key, why, heads
        self.partial, self._partitions = partial, partitions
        self.positions = dict(positions)
        self.rows: dict[str, list[Envelope]] = {feed: [] for feed in positions}
        self.bytes = self.read = 0

    def behind(self, tails: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """What is still to be read, by feed: from where, and up to which tail."""
        return {feed: (position, tails[feed]) for feed, position in self.positions.items() if position < tails[feed]}

    def add(self, feed: str, envelope: Envelope) -> None:
        """The next record of a feed. One that was placed by another N says that more may lie elsewhere."""
        self.partial |= envelope.partitions != self._partitions
        if self.key in envelope.keys:
            chosen = [row for row, key in enumerate(envelope.keys) if key == self.key]
            self.rows[feed].append(envelope.select(chosen, []))
            self.bytes += len(self.rows[feed][-1].body)

    @property
    def too_large(self) -> bool:
        """Whether what was found is more than one transaction takes."""
        return self.bytes > MOST_BYTES

    def is_gone(self, tails: Mapping[str, int]) -> bool:
        """Whether nothing of it was found and nothing is to come: all that it was dropped by lies before the tails."""
        return not any(self.rows.values()) and all(tails[f] >= self.heads.get(f, 0) for f in self.rows)

    def count(self, topic: str) -> int:
        """Rows of a topic."""
        return sum(len(each) for feed, found in self.rows.items() if topic_of(feed) == topic for each in found)

    def verdict(self, spans_found: Iterable[Envelope], service: Mapping[bytes, str]) -> Verdict:
        """The verdict that supersedes the drop; its logs learn from the spans that were found.

        `service` has the service's name of every resource in them.
        """
        root: tuple[int, Enrichment] | None = None
        spans: dict[bytes, Enrichment] = {}
        for envelope in spans_found:
            columns = SpanColumns({})
            columns.scan(envelope.body, envelope.ends, envelope.starts)
            for row in range(columns.rows):
                cells = columns.cells[row * columns.width : (row + 1) * columns.width]
                name = envelope.body[cells[NAME] : cells[NAME + 1]]
                named = enrichment(service[envelope.resources[envelope.resource[row]]], name, int(cells[STATUS]))
                if len(spans) < SPANS_PER_TRACE:
                    spans.setdefault(envelope.body[cells[SPAN_ID] : cells[SPAN_ID + 1]], named)
                parent = envelope.body[cells[PARENT_SPAN_ID] : cells[PARENT_SPAN_ID + 1]]
                if parent in (b"", bytes(SPAN_ID_BYTES)) and (root is None or cells[START_NS] < root[0]):
                    root = cells[START_NS], named
        found = {span: named for span, named in spans.items() if len(span) == SPAN_ID_BYTES}
        return Verdict(True, RESTORED, 0, None if root is None else root[1], found)
