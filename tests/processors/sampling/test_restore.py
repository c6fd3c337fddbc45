"""A dropped trace that is kept after all: what goes out, what it is worth to its logs, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_WARN

from processors.sampling import restore
from processors.sampling.restore import LATE_LOG, LATE_SPAN, LateError, Outcome, Restoration
from schemas.decision import RESTORED, Enrichment
from schemas.envelope import Envelope, RowVerdict
from tests.processors.sampling.pair import LOGS, SETTINGS, SPANS, WAIT, Owner, Pair, key, span_id

WAITED = WAIT / 1000 + 1


def read(owner: Owner, name: str, start: int = 0) -> Restoration:
    """What the log has of a trace up to the tails."""
    found = Restoration(key(name), "by hand", {SPANS: start, LOGS: start}, owner.window.positions(), 1)
    for topic, (position, tail) in found.behind(owner.window.tails()).items():
        for _, value in owner.pair.topics[topic][position:tail]:
            found.add(topic, Envelope.decode(value))
        found.positions[topic] = tail
    return found


def dropped() -> tuple[Pair, Owner]:
    """Trace A of two spans and three logs is decided and behind the tail, its WARN log was forwarded; B waits."""
    pair = Pair()
    pair.spans(0, "A1", "B1!")
    pair.logs(0, "A1", "A2?", "A9")
    pair.spans(1, "A2")
    pair.spans(WAITED)
    pair.logs(WAITED)
    owner = pair.own().settle()
    pair.spans(WAITED, "A3", "C1")
    pair.logs(WAITED, "A3")
    owner.read()
    assert owner.kept_spans == ["B1!"]
    assert [name for name, _ in owner.kept_logs] == ["A2?"]
    return pair, owner


def test_all_that_the_tail_has_passed_and_all_that_follows_goes_out_once() -> None:
    pair, owner = dropped()
    assert owner.window.restore(read(owner, "A")) is Outcome.RESTORED
    pair.spans(2 * WAITED, "A4")
    pair.logs(2 * WAITED, "A4")
    owner.settle()
    assert sorted(owner.kept_spans) == ["A1", "A2", "A3", "A4", "B1!"]
    assert sorted(name for name, _ in owner.kept_logs) == ["A1", "A2?", "A3", "A4", "A9"]
    assert owner.stats["restored", "spans"] == 2
    assert owner.stats["restored", "logs"] == 2


def test_its_logs_learn_from_its_spans() -> None:
    _, owner = dropped()
    owner.window.restore(read(owner, "A"))
    owner.settle()
    found = dict(owner.kept_logs)
    assert found["A1"] == RowVerdict(True, RESTORED, 0, Enrichment("", "A1", 0))
    assert found["A9"] == RowVerdict(True, RESTORED, 0, Enrichment("", "A1", 0)), "the root, which is the first"
    assert found["A2?"] == RowVerdict(False), "was forwarded as that of a dropped trace, and is not sent again"


def test_the_verdict_and_its_reason_are_durable_with_the_rows() -> None:
    pair, owner = dropped()
    owner.window.restore(read(owner, "A"))
    assert pair.own().window.fate(key("A")) is None, "not before the burst"
    burst = owner.burst()
    assert burst is not None
    assert len(burst.kept_spans) == 2
    assert pair.records()[-1].restored == {key("A"): "by hand"}
    assert pair.verdicts()["A"] == ["", RESTORED]
    assert pair.own().window.fate(key("A")) is Outcome.KEPT
    assert owner.window.restore(read(owner, "A")) is Outcome.KEPT


def test_late_errors_are_told_once_and_late_evidence_of_kept_or_forgotten_traces_is_none() -> None:
    pair, _ = dropped()
    owner = pair.own(replace(SETTINGS, late_evidence=SEVERITY_NUMBER_WARN))
    owner.read()
    assert owner.window.late_errors == {}
    pair.spans(WAITED, "A4", "A5!", "A6!", "B2!", "C1!")
    pair.logs(WAITED, "A7!")
    owner.read()
    told = LateError(LATE_SPAN, f"a late span failed (span {span_id('A5').hex()})")
    assert owner.window.late_errors == {key("A"): told}
    owner.window.late_errors = {}
    pair.logs(WAITED, "A8", "A9?", "B9!")
    owner.read()
    told = LateError(LATE_LOG, f"a late log reports an error (span {span_id('A9').hex()})")
    assert owner.window.late_errors == {key("A"): told}
    assert owner.window.restore(read(owner, "A")) is Outcome.RESTORED
    owner.window.late_errors = {}
    pair.spans(WAITED, "A9!")
    owner.settle()
    assert owner.window.late_errors == {}


def test_what_was_in_time_is_not_late_for_the_next_owner() -> None:
    """Its tail stands before rows of a trace that is decided."""
    pair, own = Pair(), replace(SETTINGS, late_evidence=SEVERITY_NUMBER_WARN)
    pair.spans(5, "B1", mark=0, append=5)
    pair.logs(5, "B2", mark=0, append=5)
    pair.spans(0, "A1", append=5)
    pair.logs(0, "A2?", append=5)
    pair.spans(12)
    pair.logs(12)
    owner = pair.own(own)
    owner.read()
    while owner.burst() is not None:
        pass
    assert pair.verdicts() == {"A": [""]}
    owner = pair.own(own)
    owner.read()
    assert owner.window.late_errors == {}
    pair.logs(12, "A3?")
    owner.read()
    assert list(owner.window.late_errors) == [key("A")]


def test_nothing_is_told_unless_it_is_asked_for() -> None:
    pair, owner = dropped()
    pair.spans(WAITED, "A5!")
    owner.read()
    assert owner.window.late_errors == {}


def test_what_cannot_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, owner = dropped()
    assert owner.window.restore(read(owner, "B")) is Outcome.KEPT
    assert owner.window.restore(read(owner, "C")) is Outcome.UNDECIDED
    gone = read(owner, "Z")
    gone.heads = owner.window.tails()
    assert owner.window.restore(gone) is Outcome.GONE
    with pytest.raises(ValueError, match="up to the tails"):
        owner.window.restore(Restoration(key("A"), "", {SPANS: 0, LOGS: 0}, {}, 1))
    monkeypatch.setattr(restore, "MOST_BYTES", 10)
    assert owner.window.restore(read(owner, "A")) is Outcome.TOO_LARGE
    assert owner.window.restore(read(owner, "A", start=1)) is Outcome.TOO_LARGE
    owner.settle()
    assert owner.kept_spans == ["B1!"]
    assert Pair().own().window.fate(key("A")) is Outcome.UNDECIDED, "before there is a clock"


def test_a_trace_that_is_dropped_and_still_ahead_of_the_tail_is_no_reason_to_call_it_gone() -> None:
    pair = Pair()
    pair.spans(0, "A1")
    pair.spans(WAITED)
    pair.logs(WAITED)
    owner = pair.own().read()
    assert owner.window.fate(key("A")) is None, "dropped"
    assert owner.window.restore(read(owner, "A")) is Outcome.RESTORED
    owner.settle()
    assert owner.kept_spans == ["A1"]


def test_records_of_another_n_say_that_more_may_lie_elsewhere() -> None:
    found = Restoration(key("A"), "", {SPANS: 0}, {}, 2)
    assert not found.partial
    found.add(SPANS, Envelope(1, "raw_spans", 0))
    assert found.partial
