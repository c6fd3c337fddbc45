"""What the tests of points, series and ticks draw from: small label alphabets, so that label sets collide."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import strategies as st

from processors.series import SeriesStore
from processors.values import observations
from schemas.point import HistogramValue, Labels, PackedBatch, PointBatch, Shape, Value
from schemas.sample import SeriesBlock

NAMES = ("service_name", "span_name", "tenant", "path")
COUNTER = Shape("counter", NAMES, (), 2)
HISTOGRAM = Shape("histogram", NAMES, (1.0, 5.0, 25.0), 2)

text = st.sampled_from(["", "a", "b", "c", "ä", "__overflow__"])
wide = st.one_of(text, st.integers(0, 60).map(str))
labels: st.SearchStrategy[Labels] = st.tuples(text, text, wide, wide)
# Multiples of 1/8 add up exactly in any order, so equality can be asserted.
sums = st.integers(-8_000, 8_000).map(lambda eighths: eighths / 8)


@st.composite
def histogram_values(draw: st.DrawFn, buckets: int) -> HistogramValue:
    counts = tuple(draw(st.lists(st.integers(0, 1000), min_size=buckets, max_size=buckets)))
    return HistogramValue(sum(counts), draw(sums), counts)


def values(shape: Shape) -> st.SearchStrategy[Value]:
    """A value of the shape's kind."""
    return st.integers(0, 1000) if shape.kind == "counter" else histogram_values(len(shape.bounds) + 1)


@st.composite
def batches(draw: st.DrawFn) -> PointBatch:
    """A batch of one of the metrics."""
    metrics = {"calls_total": COUNTER, "duration": HISTOGRAM}
    metric = draw(st.sampled_from(sorted(metrics)))
    shape = metrics[metric]
    rows = draw(st.lists(st.tuples(labels, values(shape)), max_size=12))
    return PointBatch(metric, shape, draw(st.integers(0, 1 << 41)), rows)


def total(rows: list[tuple[Labels, Value]]) -> list[float]:
    """The sum over all rows: [count] of a counter, [observations, sum, ...] of a histogram."""
    columns = [[v.observations, v.sum, *v.buckets] if isinstance(v, HistogramValue) else [v] for _, v in rows]
    return [sum(column) for column in zip(*columns, strict=True)]


def apply(store: SeriesStore, batch: PointBatch, now_ms: int = 0) -> float:
    """Add it as it comes through Kafka."""
    return store.apply(PackedBatch.decode(batch.encode()), now_ms)


@dataclass
class Seen:
    """What Prometheus has of the ticks: the samples of each series, None for a staleness marker."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], dict[int, float | None]] = field(default_factory=dict)

    def take(self, blocks: list[SeriesBlock], since_ms: int, time_ms: int) -> None:
        for block in blocks:
            for place, (labels, value) in enumerate(block.rows):
                if place >= len(block.rows) - block.fresh:
                    self._sample(block, labels, since_ms + 1, 0.0)
                self._sample(block, labels, time_ms, float(observations(value)))
            for labels in block.stale:
                self._sample(block, labels, time_ms, None)

    def _sample(self, block: SeriesBlock, labels: Labels, time_ms: int, value: float | None) -> None:
        pairs = frozenset((name, text) for name, text in zip(block.shape.label_names, labels, strict=True) if text)
        series = self.samples.setdefault((block.metric, pairs), {})
        assert time_ms > max(series, default=0)
        series[time_ms] = value

    def increase(self, metric: str = "m") -> float:
        """Over all of the time, of all series together; before its first sample nobody knows what a series had."""
        found = 0.0
        for series in [series for (name, _), series in self.samples.items() if name == metric]:
            values = [value for value in series.values() if value is not None]
            found += sum(now - before if now >= before else now for before, now in itertools.pairwise(values))
        return found

    def live(self) -> int:
        return sum(next(reversed(series.values())) is not None for series in self.samples.values())
