"""A kept trace as a waterfall: the tree, the offsets, and payloads only where they were asked for."""

from __future__ import annotations

import orjson

from pipeline.live.recent import KeptTrace, Kind, Recent, Row
from pipeline.live.waterfall import waterfall
from schemas.envelope import Envelope
from schemas.otlp_build import varint
from tests.pipeline.live.building import START, kept, log, span, trace_id


def held(*envelopes: tuple[Kind, Envelope]) -> KeptTrace:
    recent = Recent()
    for kind, envelope in envelopes:
        recent.add(kind, envelope, 0.0)
    trace = recent.get(1)
    assert trace is not None
    return trace


def test_the_tree_in_the_order_of_time() -> None:
    spans = [span(1, 3, 1, at=40), span(1, 2, 1, at=5, error=True), span(1, 4, 2, at=6), span(1, 1, at=0, ms=100)]
    found = waterfall(held(("spans", kept(*spans)), ("logs", kept(log(1, 2, at=8)))), payloads=True)
    assert found is not None
    assert [(bar.name, bar.depth, bar.at_ms) for bar in found.bars] == [
        ("span 1", 0, 0), ("span 2", 1, 5), ("span 4", 2, 6), ("span 3", 1, 40)
    ]  # fmt: skip
    summary = found.summary
    assert (summary.service, summary.name, summary.duration_ms) == ("cart", "span 1", 100)
    assert (summary.spans, summary.logs, summary.error, summary.incomplete) == (4, 1, True, False)
    assert summary.trace_id == trace_id(1).hex()
    assert summary.start == START / 1e9
    (line,) = found.lines
    assert (line.at_ms, line.severity, line.service, line.body) == (8, "ERROR", "cart", "secret words")
    assert found.bars[0].attributes == {"http.route": "/secret"}


def test_without_payloads_no_value_that_came_in_is_shown() -> None:
    trace = held(("spans", kept(span(1, 1))), ("logs", kept(log(1, 1))))
    found = waterfall(trace, payloads=False)
    assert found is not None
    assert b"secret" not in orjson.dumps(found)
    assert b"secret" in orjson.dumps(waterfall(trace, payloads=True))


def test_a_trace_without_its_root_says_so() -> None:
    found = waterfall(held(("spans", kept(span(1, 2, 1), span(1, 3, 2)))), payloads=False)
    assert found is not None
    assert found.summary.incomplete
    assert [bar.depth for bar in found.bars] == [0, 1]


def test_spans_that_came_twice_circles_and_foreign_bytes_do_no_harm() -> None:
    trace = held(("spans", kept(span(1, 1), span(1, 1), span(1, 2, 2), span(1, 3, 4), span(1, 4, 3))))
    trace.spans.append(Row(b"\xff", b"\xff\xff", 0))
    found = waterfall(trace, payloads=False)
    assert found is not None
    assert [bar.name for bar in found.bars] == ["span 1", "span 2"]
    assert waterfall(held(("logs", kept(log(1, 1)))), payloads=False) is None


def test_a_kind_that_nobody_knows_is_none() -> None:
    """Kinds are numbers of the producer's, negative ones too."""
    for kind in (-7, 6, 1 << 30):
        strange = span(1, 1)
        strange.MergeFromString(b"\x30" + varint(kind % (1 << 64)))
        found = waterfall(held(("spans", kept(strange))), payloads=False)
        assert found is not None
        assert [bar.kind for bar in found.bars] == [""]
