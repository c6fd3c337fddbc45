"""Rows that go on: those of kept traces, with the verdict, as envelopes that every topic takes."""

from __future__ import annotations

from array import array
from functools import lru_cache

from processors.correlation import correlate
from processors.envelope_builder import ROW_OVERHEAD
from processors.sampling.stats import Stats
from processors.sampling.verdicts import Verdicts
from schemas.columns import totals
from schemas.decision import DROPPED, Verdict
from schemas.envelope import ENVELOPE_BYTES, Envelope, RowVerdict
from schemas.otlp_scan import LOG_CELLS, SEVERITY, SPAN_ID, LogColumns, signed
from schemas.reasons import Reason


class Forward:
    """What the tail sends of records whose traces are decided. `unsampled` as in `logs.unsampled`."""

    def __init__(self, verdicts: Verdicts, logs: LogColumns, unsampled: str, stats: Stats) -> None:
        self._verdicts, self._logs, self._unsampled, self._stats = verdicts, logs, unsampled, stats

    def spans(self, envelope: Envelope) -> list[bytes]:
        """Those of kept traces."""
        rows, which, verdicts = self._verdicts.kept(envelope.keys)
        self._stats["spans_kept", ""] += len(rows)
        self._stats["spans_dropped", Reason.NOT_SAMPLED] += len(envelope) - len(rows)
        for verdict, spans, size in zip(verdicts, *totals(which, envelope.lengths(rows), len(verdicts)), strict=True):
            self._stats["policy_spans", verdict.policy] += spans
            self._stats["policy_bytes", verdict.policy] += size
        told = [_row_verdict(verdict.policy, verdict.threshold) for verdict in verdicts]
        return encoded(envelope, rows, [told[number] for number in which])

    def logs(self, envelope: Envelope) -> list[bytes]:
        """Those of kept traces, with the span that they name, and what `unsampled` lets pass of others."""
        rows, verdicts = array("I"), list[RowVerdict | None]()
        self._logs.scan(envelope.body, envelope.ends, envelope.starts)
        cells, body = self._logs.cells, envelope.body
        for row, key in enumerate(envelope.keys):
            at = row * LOG_CELLS
            outcome = correlate(
                self._verdicts.get(key),
                signed(cells[at + SEVERITY]),
                body[cells[at + SPAN_ID] : cells[at + SPAN_ID + 1]],
                self._unsampled,
            )
            if isinstance(outcome, Reason):
                self._stats["logs_dropped", outcome] += 1
            else:
                rows.append(row)
                verdicts.append(outcome)
        self._stats["logs_kept", ""] += len(rows)
        return encoded(envelope, rows, verdicts)

    def restored_spans(self, envelope: Envelope, verdict: Verdict) -> list[bytes]:
        """Those of a dropped trace that is kept after all, which the tail has passed."""
        rows = array("I", range(len(envelope)))
        self._stats["restored", "spans"] += len(rows)
        return encoded(envelope, rows, [_row_verdict(verdict.policy, verdict.threshold)] * len(rows))

    def restored_logs(self, envelope: Envelope, verdict: Verdict) -> list[bytes]:
        """Likewise, without those that went on although the trace was dropped."""
        self._logs.scan(envelope.body, envelope.ends, envelope.starts)
        rows, verdicts = array("I"), list[RowVerdict | None]()
        cells, unsampled = self._logs.cells, self._unsampled
        for at in range(0, len(envelope) * LOG_CELLS, LOG_CELLS):
            severity = signed(cells[at + SEVERITY])
            span = envelope.body[cells[at + SPAN_ID] : cells[at + SPAN_ID + 1]]
            outcome = correlate(verdict, severity, span, unsampled)
            if isinstance(correlate(DROPPED, severity, span, unsampled), Reason) and isinstance(outcome, RowVerdict):
                rows.append(at // LOG_CELLS)
                verdicts.append(outcome)
        self._stats["restored", "logs"] += len(rows)
        return encoded(envelope, rows, verdicts)


@lru_cache(maxsize=256)
def _row_verdict(policy: str, threshold: int) -> RowVerdict:
    """The one shared verdict of these values."""
    return RowVerdict(True, policy, threshold)


def encoded(envelope: Envelope, rows: array[int], verdicts: list[RowVerdict | None]) -> list[bytes]:
    """These rows as envelopes that every topic takes: a batch of raw records may be larger than they are.

    One whose first row has headers of more than half an envelope may be larger by these, or each row would take a copy.
    """
    found = []
    first = size = allowed = 0
    lengths = envelope.lengths(rows)
    known: set[tuple[bool, int]] = set()
    all_headers = sum(map(len, envelope.resources)) + sum(map(len, envelope.scopes))

    def added(row: int) -> int:
        """Bytes of the headers of a row that no row before it has brought."""
        own = {(False, envelope.resource[row]), (True, envelope.scope[row])} - known
        known.update(own)
        return sum(len((envelope.scopes if scope else envelope.resources)[number]) for scope, number in own)

    total = sum(lengths) + len(rows) * ROW_OVERHEAD + all_headers
    for place, row in enumerate(rows) if total > ENVELOPE_BYTES else ():
        headers, length = added(row), ROW_OVERHEAD + lengths[place]
        if place > first and size + length + headers > ENVELOPE_BYTES + allowed:
            found.append(envelope.select(rows[first:place], verdicts[first:place]).encode())
            first, size, allowed = place, 0, 0
            known.clear()
            headers = added(row)
        if place == first and 2 * headers > ENVELOPE_BYTES:
            allowed = headers
        size += length + headers
    if first < len(rows):
        found.append(envelope.select(rows[first:], verdicts[first:]).encode())
    return found
