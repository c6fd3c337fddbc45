"""The check itself: it passes what is right and finds every single corruption."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo.ledger import OVERFLOW, Audit, Document, Figures, Holdings, Ledger
from pipeline.demo.traffic import Traffic
from tests.pipeline.demo.ledgers import CALLS, DURATION, labels, perfect, sent

BUDGET = 400


def audit(ledger: Ledger, holdings: Holdings) -> Audit:
    return ledger.audit(holdings, series_per_metric=BUDGET, seconds=6.04)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_what_is_right_passes(seed: int) -> None:
    ledger = sent(seed)
    figures, violations = audit(ledger, perfect(ledger))
    assert violations == []
    assert figures.spans_in == figures.metric_spans == ledger.spans
    assert figures.error_traces == figures.error_traces_kept > 0
    assert figures.broken_traces == 0
    assert figures.series_active <= figures.series_budget == 2 * BUDGET


def test_the_figures_are_those_of_the_contract() -> None:
    assert " ".join(Figures._fields) == (
        "spans_in spans_kept traces_seen traces_kept broken_traces error_traces error_traces_kept logs_in logs_kept "
        "logs_correlated metric_spans series_active series_budget dlq seconds"
    )


def _trace(ledger: Ledger, holdings: Holdings) -> bytes:
    """A kept trace of several spans."""
    return next(trace_id for trace_id, spans in holdings.spans.items() if len(spans) > 2)


def _drop_span(ledger: Ledger, holdings: Holdings) -> None:
    holdings.spans[_trace(ledger, holdings)].pop()


def _split_trace(ledger: Ledger, holdings: Holdings) -> None:
    """Half of a trace's spans arrive under another trace id."""
    trace_id = _trace(ledger, holdings)
    spans = holdings.spans[trace_id]
    holdings.spans[trace_id], holdings.spans[bytes(15) + b"\x01"] = spans[:1], spans[1:]


def _part_of_dropped_trace(ledger: Ledger, holdings: Holdings) -> None:
    """One owner kept the trace, another dropped its part."""
    trace_id, trace = next(
        (t, trace) for t, trace in ledger.seen().items() if t not in holdings.spans and len(trace.spans) > 2
    )
    holdings.spans[trace_id] = sorted(trace.spans)[:2]


def _mixed_traces(ledger: Ledger, holdings: Holdings) -> None:
    first, second = list(holdings.spans)[:2]
    holdings.spans[first].append(holdings.spans[second][0])


def _duplicate(ledger: Ledger, holdings: Holdings) -> None:
    spans = holdings.spans[_trace(ledger, holdings)]
    spans.append(spans[0])


def _lose_error_by_span(ledger: Ledger, holdings: Holdings) -> None:
    _lose(ledger, holdings, next(t for t in holdings.spans if ledger.traces[t].error_by_span))


def _lose_error_by_log(ledger: Ledger, holdings: Holdings) -> None:
    trace_id = _trace(ledger, holdings)
    ledger.traces[trace_id].error_by_span, ledger.traces[trace_id].error_by_log = False, True
    _lose(ledger, holdings, trace_id)


def _lose(ledger: Ledger, holdings: Holdings, trace_id: bytes) -> None:
    del holdings.spans[trace_id]


def _keep_nothing(ledger: Ledger, holdings: Holdings) -> None:
    holdings.spans.clear()


def _keep_everything(ledger: Ledger, holdings: Holdings) -> None:
    holdings.spans = {t: sorted(trace.spans) for t, trace in ledger.seen().items()}


def _lose_log(ledger: Ledger, holdings: Holdings) -> None:
    holdings.logs.pop(next(uid for uid, log in holdings.logs.items() if log.trace_id))


def _lose_untraced_log(ledger: Ledger, holdings: Holdings) -> None:
    holdings.logs.pop(next(uid for uid, log in holdings.logs.items() if not log.trace_id))


def _uncorrelated(ledger: Ledger, holdings: Holdings) -> None:
    holdings.logs = {uid: log._replace(sampled=None) for uid, log in holdings.logs.items()}


def _duplicate_log(ledger: Ledger, holdings: Holdings) -> None:
    holdings.log_duplicates += 1


def _foreign_log(ledger: Ledger, holdings: Holdings) -> None:
    holdings.logs["nobody's"] = Document(b"", None, "", "")


def _count_short(ledger: Ledger, holdings: Holdings) -> None:
    _add(holdings, CALLS, -1)


def _count_twice(ledger: Ledger, holdings: Holdings) -> None:
    _add(holdings, CALLS, 1)


def _count_under_a_wrong_name(ledger: Ledger, holdings: Holdings) -> None:
    """The total is right, but one span counts for another series."""
    first, second = [s for s in holdings.series if ("__name__", CALLS) in s and OVERFLOW not in dict(s).values()][:2]
    holdings.series[first] -= 1
    holdings.series[second] += 1


def _miscount_durations(ledger: Ledger, holdings: Holdings) -> None:
    _add(holdings, f"{DURATION}_count", -1)


def _add(holdings: Holdings, name: str, amount: int) -> None:
    holdings.series[next(s for s in holdings.series if ("__name__", name) in s)] += amount


def _no_overflow(ledger: Ledger, holdings: Holdings) -> None:
    for series in [s for s in holdings.series if OVERFLOW in dict(s).values()]:
        value = holdings.series.pop(series)
        holdings.series[labels(name=CALLS, service_name="web", span_name="unknown")] = value
        ledger.counts["web", "unknown", 0, 0] = int(value)


def _too_many_series(ledger: Ledger, holdings: Holdings) -> None:
    for n in range(BUDGET):
        holdings.series[labels(name=f"{DURATION}_sum", customer_id=str(n))] = 0.0


def _dead_letters(ledger: Ledger, holdings: Holdings) -> None:
    holdings.dead_letters += 1


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (_drop_span, "lacks 1 of its"),
        (_split_trace, "was never sent"),
        (_split_trace, "lacks"),
        (_part_of_dropped_trace, "lacks"),
        (_mixed_traces, "spans of other traces"),
        (_duplicate, "spans twice"),
        (_lose_error_by_span, "(by span"),
        (_lose_error_by_log, "(by log)"),
        (_keep_nothing, "0.0% of the traces kept"),
        (_keep_everything, "100.0% of the traces kept"),
        (_lose_log, "1 logs of kept traces or without a trace are missing"),
        (_lose_untraced_log, "1 logs of kept traces or without a trace are missing"),
        (_uncorrelated, "no log was correlated"),
        (_duplicate_log, "logs are there twice"),
        (_foreign_log, "never sent"),
        (_count_short, "call counters"),
        (_count_twice, "call counters"),
        (_count_under_a_wrong_name, "is counted"),
        (_miscount_durations, "duration histograms"),
        (_no_overflow, "no series says __overflow__"),
        (_too_many_series, f"its budget is {BUDGET}"),
        (_dead_letters, "dead letters"),
    ],
)
def test_every_corruption_is_found(corrupt: Callable[[Ledger, Holdings], None], words: str) -> None:
    ledger = sent()
    holdings = perfect(ledger)
    corrupt(ledger, holdings)
    violations = audit(ledger, holdings).violations
    assert any(words in violation for violation in violations), violations


def test_duplicates_pass_where_at_least_once_allows_them() -> None:
    ledger = sent()
    holdings = perfect(ledger)
    _duplicate(ledger, holdings)
    _duplicate_log(ledger, holdings)
    allowed = ledger.audit(holdings, series_per_metric=BUDGET, duplicates_allowed=True)
    assert allowed.violations == []
    assert allowed.figures.spans_kept == sum(len(set(spans)) for spans in holdings.spans.values())


def test_no_error_trace_sent_is_a_failure_of_the_test_itself() -> None:
    ledger = sent()
    for trace in ledger.traces.values():
        trace.error_by_span = trace.error_by_log = False
    assert "no error trace was sent" in audit(ledger, perfect(ledger)).violations


def test_recording_counts_spans_by_identity() -> None:
    ledger = Ledger()
    traffic = list(Traffic(5, 300, 4.0, 0, 3.0).messages())
    for message in traffic:
        ledger.record(message)
    spans = [span for message in traffic for span in message.spans]
    assert ledger.spans == len(spans)
    assert ledger.counts == Counter(span.identity for span in spans)
    assert copy.deepcopy(ledger) == ledger
