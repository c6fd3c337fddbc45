"""Which logs go on, and which span a kept log is shown with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.correlation import (
    NAME_CHARACTERS,
    NAMED_PER_TRACE,
    SPANS_PER_TRACE,
    correlate,
    enrichment,
    lowest_severity,
)
from schemas.decision import DROPPED, Enrichment, Verdict
from schemas.envelope import RowVerdict
from schemas.reasons import Reason
from tests.processors.sampling.builders import NOON, Table, span
from tests.schemas.rows import SpanScan

ROOT = Enrichment("shop", "GET /", 0)
CHILD = Enrichment("cart", "add", 2)
KEPT = Verdict(True, "errors", 7, ROOT, {b"c" * 8: CHILD})


def child(number: int, *, status: int = 0, name: bytes | None = None) -> SpanScan:
    return span(span_id=number.to_bytes(8, "big"), parent=b"p" * 8, status=status, name=name or b"span %d" % number)


def ident(number: int) -> bytes:
    return number.to_bytes(8, "big")


# ---- correlate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsampled", ["drop", "warn", "all"])
def test_every_log_of_a_kept_trace_goes_on(unsampled: str) -> None:
    assert correlate(KEPT, 0, b"", unsampled) == RowVerdict(True, "errors", 7, ROOT)


def test_a_log_shows_the_span_it_names_else_the_root() -> None:
    named = correlate(KEPT, 9, b"c" * 8, "warn")
    unknown = correlate(KEPT, 9, b"x" * 8, "warn")
    assert isinstance(named, RowVerdict)
    assert isinstance(unknown, RowVerdict)
    assert (named.span, unknown.span) == (CHILD, ROOT)


def test_without_a_root_a_log_is_kept_bare() -> None:
    assert correlate(Verdict(True, "p"), 9, b"x" * 8, "drop") == RowVerdict(True, "p", 0, None)


@pytest.mark.parametrize(
    ("unsampled", "lowest"),
    [
        ("all", 0),
        ("trace", 1),
        ("debug", 5),
        ("info", 9),
        ("warn", 13),
        ("WARN", 13),
        ("error", 17),
        ("fatal", 21),
        ("drop", None),
    ],
)
def test_logs_of_dropped_traces_follow_the_setting(unsampled: str, lowest: int | None) -> None:
    forwarded = [n for n in range(25) if correlate(DROPPED, n, b"", unsampled) == RowVerdict(False)]
    dropped = [n for n in range(25) if correlate(DROPPED, n, b"", unsampled) is Reason.LOG_OF_DROPPED_TRACE]
    assert forwarded == ([] if lowest is None else list(range(lowest, 25)))
    assert sorted(forwarded + dropped) == list(range(25))


def test_a_log_without_a_verdict_goes_on_without_one() -> None:
    assert correlate(None, 1, b"", "drop") is None


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="unsampled: 'loud' is none of drop, all, trace"):
        lowest_severity("loud")


# ---- names of an undecided trace (processors.sampling.trace_table keeps them) --------------------------------


class SpanNames:
    """What one trace remembers of its spans."""

    def __init__(self, *, logged: bool = True) -> None:
        self._table = Table(logged=logged)

    def add_span(self, scan: SpanScan, service: str) -> None:
        self._table.add_spans([scan], [0], service)

    def add_log(self, span_id: bytes) -> None:
        self._table.add_logs([9], span_id)

    def enrichments(self) -> tuple[Enrichment | None, dict[bytes, Enrichment]]:
        return self._table.enrichments()


def test_logs_may_come_before_or_after_their_spans() -> None:
    names = SpanNames()
    names.add_log(ident(1))
    names.add_span(child(1), "a")
    names.add_span(child(2), "b")
    names.add_span(child(3), "c")
    names.add_log(ident(2))
    assert names.enrichments() == (
        None,
        {ident(1): Enrichment("a", "span 1", 0), ident(2): Enrichment("b", "span 2", 0)},
    )


def test_nothing_is_carried_when_no_log_names_a_span() -> None:
    names = SpanNames()
    names.add_span(span(), "shop")
    names.add_log(b"")
    names.add_log(b"short")
    assert names.enrichments() == (ROOT, {})


def test_where_there_are_no_logs_the_root_alone_is_remembered() -> None:
    for logged in (True, False):
        names = SpanNames(logged=logged)
        for one in (child(1, status=2), span(NOON + 5, name=b"late"), span(), child(2)):
            names.add_span(one, "shop")
        names.add_log(ident(1))
        assert names.enrichments() == (ROOT, {ident(1): Enrichment("shop", "span 1", 2)} if logged else {})


@pytest.mark.parametrize("parent", [b"", bytes(8)])
def test_the_root_is_the_earliest_span_without_a_parent(parent: bytes) -> None:
    late = span(NOON + 5, NOON + 6, parent=parent, span_id=b"a" * 8, name=b"late")
    early = span(NOON, NOON + 1, parent=parent, span_id=b"b" * 8, name=b"early", status=2)
    for order in ([late, early], [early, late]):
        names = SpanNames()
        for one in order:
            names.add_span(one, "shop")
        assert names.enrichments()[0] == Enrichment("shop", "early", 2)


def test_past_the_bound_ordinary_spans_are_forgotten() -> None:
    names = SpanNames()
    for number in range(SPANS_PER_TRACE + 5):
        names.add_span(child(number), "a")
        names.add_log(ident(number))
    assert set(names.enrichments()[1]) <= {ident(number) for number in range(SPANS_PER_TRACE)}


def test_a_failed_span_takes_the_place_of_an_ordinary_one() -> None:
    names = SpanNames()
    for number in range(SPANS_PER_TRACE):
        names.add_span(child(number), "a")
    names.add_span(child(1000, status=2), "a")
    names.add_log(ident(1000))
    names.add_log(ident(SPANS_PER_TRACE - 1))
    names.add_log(ident(0))
    assert set(names.enrichments()[1]) == {ident(1000), ident(0)}


def test_a_named_span_takes_the_place_of_an_unnamed_one() -> None:
    names = SpanNames()
    names.add_log(ident(SPANS_PER_TRACE - 1))
    names.add_log(ident(1000))
    for number in range(SPANS_PER_TRACE):
        names.add_span(child(number), "a")
    names.add_span(child(1000), "a")
    assert set(names.enrichments()[1]) == {ident(SPANS_PER_TRACE - 1), ident(1000)}


def test_a_root_beyond_the_bound_is_still_the_root() -> None:
    names = SpanNames()
    for number in range(SPANS_PER_TRACE):
        names.add_span(child(number, status=2), "a")
    names.add_span(span(), "shop")
    assert names.enrichments()[0] == ROOT


def test_of_repeated_ids_the_failed_one_wins_then_the_first() -> None:
    names = SpanNames()
    names.add_log(ident(1))
    for name, status in ((b"client", 0), (b"server", 2), (b"again", 2)):
        names.add_span(child(1, name=name, status=status), "a")
    assert names.enrichments()[1] == {ident(1): Enrichment("a", "server", 2)}


def test_long_and_broken_names_are_cut_and_repaired() -> None:
    names = SpanNames()
    names.add_log(ident(1))
    names.add_log(ident(2))
    names.add_span(child(1, name="é".encode() * 10_000), "s" * 10_000)
    names.add_span(child(2, name=b"\xffok"), "a")
    spans = names.enrichments()[1]
    assert spans[ident(1)] == Enrichment("s" * NAME_CHARACTERS, "é" * NAME_CHARACTERS, 0)
    assert spans[ident(2)].name == "\N{REPLACEMENT CHARACTER}ok"


def test_equal_names_are_held_once() -> None:
    assert enrichment("shop", b"GET /", 0) is enrichment("shop", bytes(bytearray(b"GET /")), 0)


def test_spans_without_a_proper_id_are_ignored() -> None:
    names = SpanNames()
    names.add_span(span(span_id=b""), "a")
    assert names.enrichments() == (None, {})


events = st.lists(
    st.one_of(
        st.integers(0, 200).map(ident),
        st.builds(child, st.integers(0, 200), status=st.integers(0, 2)),
    ),
    max_size=300,
)


@given(events)
def test_the_verdict_carries_only_true_named_spans_and_stays_bounded(arrived: list[bytes | SpanScan]) -> None:
    names = SpanNames()
    named: set[bytes] = set()
    seen: dict[bytes, set[Enrichment]] = {}
    for event in arrived:
        if isinstance(event, bytes):
            names.add_log(event)
            named.add(event)
        else:
            names.add_span(event, "a")
            seen.setdefault(event.span_id, set()).add(Enrichment("a", event.name.decode(), event.status))
    _, spans = names.enrichments()
    assert len(spans) <= SPANS_PER_TRACE
    assert set(spans) <= named & set(seen)
    assert all(span in seen[span_id] for span_id, span in spans.items())
    if len(named) <= NAMED_PER_TRACE and sum(isinstance(event, SpanScan) for event in arrived) <= SPANS_PER_TRACE:
        assert set(spans) == named & set(seen)
