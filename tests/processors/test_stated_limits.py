"""What docs/reference/limits.md says, with the limits that a configuration has when it says nothing of them."""

from __future__ import annotations

import re
from array import array
from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.config import Config, Limits, Metrics
from pipeline.kafka.topics import INTERNAL_MESSAGE_BYTES, topic_specs
from pipeline.watching.told_limits import limits_of
from processors.cardinality import Limits as SeriesLimits
from processors.family import MOST_LABELS
from processors.regroup import Flush, Regroup
from processors.sampling.forward import encoded
from processors.sampling.window import Burst
from processors.series import SeriesStore
from schemas.envelope import Envelope
from schemas.otlp_build import traces_data
from schemas.point import PointBatch, Shape
from schemas.raw_batch import RawReader
from schemas.reasons import Reason
from tests.pipeline.configs import MINIMAL
from tests.processors.metric_strategies import apply
from tests.processors.points import message, read, timed
from tests.processors.sampling.pair import LOGS, RAW, SETTINGS, SPANS, START, WAIT, Owner, Pair
from tests.repository import COMPILED, ROOT
from tests.schemas.rows import scan_span

PAGE = ROOT / "docs" / "reference" / "limits.md"
LIMITS = Limits()
MB = 1_000_000


def ingest(partitions: int = 4) -> Regroup:
    return Regroup("raw_spans", 0, "traces", "otlp_proto", partitions, LIMITS.max_message_bytes, LIMITS.max_span_bytes)


def span(number: int, **fields: object) -> Span:
    ids = {"trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big")}
    return Span(**ids | {"name": f"op {number}"} | fields)  # type: ignore[arg-type]


def attributes(count: int, size: int) -> list[dict[str, object]]:
    return [{"key": f"k{number}", "value": {"string_value": "v" * size}} for number in range(count)]


def traces(*spans: Span, resource: int = 0) -> bytes:
    """A message; `resource` is the size of its resource in bytes."""
    data = TracesData()
    part = data.resource_spans.add(resource={"attributes": attributes(1, resource)})
    part.scope_spans.add().spans.extend(spans)
    return data.SerializeToString()


def names(flush: Flush) -> list[str]:
    found = [Envelope.decode(value) for values in flush.envelopes.values() for value in values]
    rows = [envelope.row(i) for envelope in found for i in range(len(envelope))]
    return sorted(scan_span(row, 0, len(row), {}).name.decode() for row in rows)


@pytest.mark.parametrize("direct", [False, True])
def test_a_span_of_a_megabyte_is_a_dead_letter_and_its_neighbours_are_not(direct: bool) -> None:
    value = traces(span(1), span(2, attributes=attributes(1, MB)), span(3))
    if direct:
        reader = RawReader("raw", 0, 4, "traces", LIMITS.max_message_bytes, LIMITS.max_span_bytes)
        batch = reader.read([(7, START, value)])
        letters, rows = batch.dead_letters, len(batch.rows)
    else:
        own = ingest()
        own.add(7, START, value)
        flush = own.flush(None, {})
        letters, rows = flush.dead_letters, flush.rows
        assert names(flush) == ["op 1", "op 3"]
    assert [(letter.reason, letter.index) for letter in letters] == [(Reason.SPAN_TOO_LARGE, 1)]
    assert len(letters[0].value) > MB, "whole, and a message that can be sent in again"
    assert rows == 2


def test_ten_thousand_attributes_pass_as_they_are() -> None:
    many = span(1, attributes=attributes(10_000, 30))
    own = ingest()
    own.add(7, START, traces(many))
    flush = own.flush(None, {})
    assert not flush.dead_letters
    found = [Envelope.decode(value) for values in flush.envelopes.values() for value in values]
    (envelope,) = [envelope for envelope in found if len(envelope)]
    assert Span.FromString(envelope.row(0)) == many


def test_a_resource_of_a_megabyte_costs_its_own_spans_in_one_letter() -> None:
    data = traces(*[span(number) for number in range(1, 1001)], resource=MB) + traces(span(2000))
    own = ingest()
    own.add(7, START, data)
    flush = own.flush(None, {})
    assert names(flush) == ["op 2000"]
    (letter,) = flush.dead_letters
    assert (letter.reason, letter.detail) == (Reason.SPAN_TOO_LARGE, "1000 rows")
    assert len(letter.value) < 2 * MB, "with the resource once"


def test_a_resource_below_the_limit_is_written_once_for_each_partition() -> None:
    own = ingest()
    own.add(7, START, traces(*[span(number) for number in range(1, 1001)], resource=800_000))
    flush = own.flush(None, {})
    values = [value for values in flush.envelopes.values() for value in values]
    assert len(names(flush)) == 1000
    assert len(values) == 4
    assert max(map(len, values)) < INTERNAL_MESSAGE_BYTES


def test_the_largest_envelope_fits_into_its_topic() -> None:
    """A resource that is nearly as large as allowed, and beside it as much as other envelopes have."""
    limit, random = 9 * MB, Random(7)
    specs = topic_specs(Config.model_validate(MINIMAL | {"limits": {"max_span_bytes": limit}}))
    data = TracesData()
    part = data.resource_spans.add()
    part.resource.attributes.add(key="blob").value.bytes_value = random.randbytes(limit - 200_000)
    spans = part.scope_spans.add().spans
    spans.extend(span(number, events=[{"name": "x" * 100}]) for number in range(1, 2_001))
    for each in spans[:40]:
        each.attributes.add(key="blob").value.bytes_value = random.randbytes(14_000)
    own = Regroup("raw_spans", 0, "traces", "otlp_proto", 1, 16 * MB, limit)
    own.add(7, START, data.SerializeToString())
    flush = own.flush(None, {})
    assert not flush.dead_letters
    values = flush.envelopes[0]
    kept = [
        encoded(found, array("I", range(len(found))), [None] * len(found)) for found in map(Envelope.decode, values)
    ]
    room = min(int(spec.configs["max.message.bytes"]) for spec in specs)
    assert max(map(len, [*values, *chain.from_iterable(kept)])) < room


class Counting(Owner):
    """Counts what it keeps; a burst is bounded."""

    kept = 0

    def _see(self, burst: Burst) -> None:
        self.stats += burst.stats
        self.kept += sum(len(Envelope.decode(value)) for value in burst.kept_spans)
        assert sum(map(len, burst.kept_spans)) < 2 * self.pair.settings.burst_bytes


def test_a_trace_of_a_million_spans_is_one_trace() -> None:
    """Kept whole, within the memory of its partition: nothing is held for each span, and the tail re-reads."""
    each, messages = 2_000, 500 if COMPILED else 5
    many = span(1, attributes=attributes(1, 50)).SerializeToString()
    failed = span(1, status={"code": 2}).SerializeToString()
    pair, own = Pair(replace(SETTINGS, cache_bytes=4 << 20)), ingest(1)
    for offset in range(messages):
        own.add(offset, START, traces_data([(b"", b"", [many if offset else failed, *[many] * (each - 1)])]))
        for value in own.flush(START, RAW).envelopes[0]:
            pair.topics[SPANS].append((START, value))
    for second in (0, 2 * WAIT // 1000):
        pair.spans(second)
        pair.logs(second)
    owner = Counting(pair, pair.settings)
    owner.window.resume({SPANS: None, LOGS: None}, {SPANS: 0, LOGS: 0})
    owner.settle()
    assert owner.window.held.bytes <= pair.settings.cache_bytes
    assert owner.stats["decided", "kept"] == 1
    assert owner.kept == each * messages


def test_a_metric_point_of_ten_thousand_attributes_is_counted_with_fewer() -> None:
    data, metrics = message()
    total = metrics.add(name="a").sum
    total.is_monotonic, total.aggregation_temporality = True, 1
    timed(total.data_points.add(as_int=5), **{f"k{number}": "v" for number in range(10_000)})
    batches, dead = read(data)
    assert not dead
    store = SeriesStore(SeriesLimits(10_000, 1_000))
    apply(store, batches["a_total"], START)
    (block,) = store.blocks(START)
    assert len(block.shape.label_names) <= MOST_LABELS
    ((labels, value),) = block.rows
    assert value == 5
    assert "__overflow__" in labels


def test_whatever_names_metrics_have_so_many_are_taken_in_and_no_more() -> None:
    store = SeriesStore(limits_of(Metrics()))
    most = Metrics().otlp.names_per_partition
    shape = Shape("counter", ("job",), open=True)
    for number in range(most + 100):
        apply(store, PointBatch(f"m_{number}_total", shape, 0, [(("shop",), 1)]), START)
    assert (len(store), store.dropped()) == (most, {Reason.TOO_MANY_METRICS: 100})
    assert store.without_place == f"m_{most + 99}_total"


def test_the_page_names_tests_that_exist() -> None:
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(found) > 15
    for path, name in found:
        assert f"def {name}(" in Path(ROOT, path).read_text(), f"{path}::{name}"
    keys = re.findall(r"`limits\.(\w+)", PAGE.read_text())
    assert set(Limits.model_fields) <= set(keys)
