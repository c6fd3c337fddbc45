"""Values of a metric added up and taken apart: deltas to totals, totals of a source to deltas.

Exponential histograms of different scales meet at the smaller one, where each bucket is the union of whole buckets of
the larger (OpenTelemetry metrics data model, "Exponential Histogram: Perfect subsetting"): no count moves to a wrong
bucket. Zero thresholds meet at the larger one.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, log2, nan
from operator import add, sub
from typing import Any

from schemas.point import ExponentialValue, HistogramValue, Shape, SummaryValue, Value

# Prometheus' native histograms have schemas -4 to 8; SDKs begin at scale 20 and have at most 160 buckets.
LOWEST_SCALE, HIGHEST_SCALE = -4, 8
MOST_BUCKETS = 160
# In all, of a histogram or a summary: a point brings 2^53 at most, and what is stored has 64 bits.
MOST_OBSERVATIONS = 1 << 63
ROUNDING = 1e-9  # as a share: what is left of a sum when all of it was taken away again, what a logarithm is off

Bounds = tuple[float, ...]
"""Upper bounds of buckets, or quantiles."""


def plus(a: Value, b: Value) -> Value:
    """Both together. Buckets must be of the same bounds; of summaries the quantiles of `b` stay.

    What would leave 64 bits begins anew with `b`, as after a restart: `rate` and `increase` take it for that.
    """
    if isinstance(a, tuple) and isinstance(b, tuple) and a[0] + b[0] > MOST_OBSERVATIONS:
        return b
    if isinstance(a, HistogramValue) and isinstance(b, HistogramValue):
        return HistogramValue(a[0] + b[0], a[1] + b[1], tuple(map(add, a[2], b[2])))
    if isinstance(a, ExponentialValue) and isinstance(b, ExponentialValue):
        return _exponential(a, b, 1)
    if isinstance(a, SummaryValue) and isinstance(b, SummaryValue):
        return SummaryValue(a[0] + b[0], a[1] + b[1], b[2])
    assert isinstance(a, int | float) and isinstance(b, int | float)  # noqa: PT018
    return a + b


def minus(a: Value, b: Value) -> Value | None:
    """What came to `b` until it was `a`; None if something fell: then it began anew.

    A number may fall; who counts looks at it. A histogram's sum may as well: with negative observations.
    """
    if isinstance(a, HistogramValue) and isinstance(b, HistogramValue):
        buckets = tuple(map(sub, a[2], b[2]))
        return None if a[0] < b[0] or min(buckets) < 0 else HistogramValue(a[0] - b[0], a[1] - b[1], buckets)
    if isinstance(a, ExponentialValue) and isinstance(b, ExponentialValue):
        delta = _exponential(a, b, -1)
        return None if min(delta[0], delta.zero, *delta.positive, *delta.negative, 0) < 0 else delta
    if isinstance(a, SummaryValue) and isinstance(b, SummaryValue):
        return None if a[0] < b[0] else SummaryValue(a[0] - b[0], a[1] - b[1], a[2])
    assert isinstance(a, int | float) and isinstance(b, int | float)  # noqa: PT018
    return a - b


def observations(value: Value) -> float:
    """How many were counted; a number is how much."""
    return value if isinstance(value, int | float) else value.observations


def nothing(shape: Shape) -> Value:
    """What a series of this shape has counted at first."""
    if shape.kind == "histogram":
        return HistogramValue(0, 0.0, (0,) * (len(shape.bounds) + 1))
    if shape.kind == "exponential":
        return ExponentialValue(0, 0.0, HIGHEST_SCALE, 0, 0.0, 0, (), 0, ())
    return SummaryValue(0, 0.0, (nan,) * len(shape.bounds)) if shape.kind == "summary" else 0


def conformed(value: Value, given: Bounds, own: Bounds) -> Value:
    """A value with bounds `given` as one with bounds `own`.

    A bucket is added where its upper bound lies; a summary's quantile that `given` lacks is NaN.
    """
    if given == own:
        return value
    if isinstance(value, HistogramValue):
        buckets = [0] * (len(own) + 1)
        for target, count in zip([*(bisect_left(own, bound) for bound in given), len(own)], value.buckets, strict=True):
            buckets[target] += count
        return value._replace(buckets=tuple(buckets))
    if isinstance(value, SummaryValue):
        quantiles = dict(zip(given, value.values, strict=True))
        return value._replace(values=tuple(quantiles.get(quantile, nan) for quantile in own))
    return value


def in_one_bucket(value: Value) -> Value:
    """A histogram as one without bounds."""
    return value._replace(buckets=(sum(value.buckets),)) if isinstance(value, HistogramValue) else value


def fitted(value: ExponentialValue) -> ExponentialValue:
    """The same at a scale that Prometheus takes, with at most MOST_BUCKETS buckets on each side.

    Raises ValueError if there is no such scale.
    """
    if value.scale < LOWEST_SCALE:
        raise ValueError(f"scale {value.scale}, Prometheus has {LOWEST_SCALE} and above")
    value = _scaled(value, min(value.scale, HIGHEST_SCALE))
    while max(len(value.positive), len(value.negative)) > MOST_BUCKETS and value.scale > LOWEST_SCALE:
        value = _scaled(value, value.scale - 1)
    return value


def _exponential(a: ExponentialValue, b: ExponentialValue, sign: int) -> ExponentialValue:
    scale = min(a.scale, b.scale)
    # Before they meet: far apart they would make one very long row of empty buckets.
    while scale > LOWEST_SCALE and _reach(_scaled(a, scale), _scaled(b, scale)) > MOST_BUCKETS:
        scale -= 1
    threshold = max(a.zero_threshold, b.zero_threshold)
    # Before they are wider: a bucket that would then lie on both sides of the threshold is counted by what is above.
    a, b = _scaled(_zeroed(a, threshold), scale), _scaled(_zeroed(b, threshold), scale)
    positive_offset, positive = _merged(a.positive_offset, a.positive, b.positive_offset, b.positive, sign)
    negative_offset, negative = _merged(a.negative_offset, a.negative, b.negative_offset, b.negative, sign)
    merged = ExponentialValue(
        a.observations + sign * b.observations,
        a.sum + sign * b.sum,
        scale,
        a.zero + sign * b.zero,
        threshold,
        positive_offset,
        positive,
        negative_offset,
        negative,
    )
    return fitted(merged)


def _reach(a: ExponentialValue, b: ExponentialValue) -> int:
    """How many buckets both have together on the side that has more, if both are of one scale."""
    return max(
        max(offset + len(counts), other_offset + len(other)) - min(offset, other_offset) if counts and other else 0
        for offset, counts, other_offset, other in (
            (a.positive_offset, a.positive, b.positive_offset, b.positive),
            (a.negative_offset, a.negative, b.negative_offset, b.negative),
        )
    )


def _scaled(value: ExponentialValue, scale: int) -> ExponentialValue:
    """At a scale that is not larger."""
    shift = value.scale - scale
    positive_offset, positive = _widened(value.positive_offset, value.positive, shift)
    negative_offset, negative = _widened(value.negative_offset, value.negative, shift)
    return value._replace(
        scale=scale,
        positive_offset=positive_offset,
        positive=positive,
        negative_offset=negative_offset,
        negative=negative,
    )


def _widened(offset: int, counts: tuple[int, ...], shift: int) -> tuple[int, tuple[int, ...]]:
    """2^shift buckets to one; without the empty ones at both ends."""
    first, last = 0, len(counts)
    while first < last and not counts[first]:
        first += 1
    while last > first and not counts[last - 1]:
        last -= 1
    if first == last:
        return 0, ()
    if not shift:
        return offset + first, counts[first:last]
    low = (offset + first) >> shift
    wide = [0] * (((offset + last - 1) >> shift) - low + 1)
    for index in range(first, last):
        wide[((offset + index) >> shift) - low] += counts[index]
    return low, tuple(wide)


def _merged(
    offset: int, counts: tuple[int, ...], other_offset: int, other: tuple[int, ...], sign: int
) -> tuple[int, tuple[int, ...]]:
    if not other:
        return offset, counts
    if not counts:
        return other_offset, tuple(sign * count for count in other)
    low = min(offset, other_offset)
    merged = [0] * (max(offset + len(counts), other_offset + len(other)) - low)
    merged[offset - low : offset - low + len(counts)] = counts
    for index, count in enumerate(other, other_offset - low):
        merged[index] += sign * count
    return low, tuple(merged)


def _zeroed(value: ExponentialValue, threshold: float) -> ExponentialValue:
    """With a larger zero threshold: buckets that lie below it, at least in part, are counted as zero."""
    if threshold <= value.zero_threshold or threshold <= 0:
        return value
    index = _bucket_of(threshold, value.scale)
    near: dict[str, Any] = {}
    zero = value.zero
    for side in ("positive", "negative"):
        offset, counts = getattr(value, f"{side}_offset"), getattr(value, side)
        below = max(0, min(len(counts), index - offset + 1))
        zero += sum(counts[:below])
        near |= {f"{side}_offset": offset + below if below < len(counts) else 0, side: counts[below:]}
    return value._replace(zero=zero, zero_threshold=threshold, **near)


def _bucket_of(number: float, scale: int) -> int:
    """The index of the bucket (base^index, base^(index+1)] that holds a positive number.

    A number that is a bound but for rounding is taken for it: thresholds are widened to bounds.
    """
    exact = log2(number) * 2.0**scale
    bound = round(exact)
    return (bound if abs(exact - bound) <= ROUNDING * max(1.0, abs(exact)) else ceil(exact)) - 1
