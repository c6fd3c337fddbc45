"""The policies of a comparison, and which traces of a load they keep: both systems must agree with this module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from bench.load import Load, traces
from bench.shop import MS, Shape
from processors.sampling.probability import DEFAULT_SALT, fnv1a_64, hash_limit_of, salted

SLOW_MS = 500
NEVER_MS = 3_600_000
DIGEST_DIGITS = 12
COMPAT = "otel"  # Tailrace decides as the Collector: the same hash of the trace id, durations in whole milliseconds


@dataclass(frozen=True, slots=True)
class Mix:
    """`percentage` of all traces by the hash of their id; with `failures` also those with an error or slower than
    SLOW_MS; and `unmet` policies that have to look at every span and keep nothing."""

    percentage: float = 5.0
    failures: bool = True
    unmet: int = 0

    def policies(self) -> list[dict[str, Any]]:
        """For either system: Tailrace takes the Collector's blocks as they are."""
        found: list[dict[str, Any]] = []
        if self.failures:
            found.append({"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}})
            found.append({"name": "slow", "type": "latency", "latency": {"threshold_ms": SLOW_MS}})
        found += [{"name": f"unmet-{number}", **_unmet(number)} for number in range(self.unmet)]
        share = {"sampling_percentage": self.percentage, "hash_salt": DEFAULT_SALT}
        return [*found, {"name": "share", "type": "probabilistic", "probabilistic": share}]


def _unmet(number: int) -> dict[str, Any]:
    """One of six kinds, each about something of its own."""
    nothing = f"no-such-value-{number}"
    kinds: list[dict[str, Any]] = [
        {"string_attribute": {"key": "http.route", "values": [f"/{nothing}"]}},
        {"numeric_attribute": {"key": "http.response.status_code", "min_value": 600 + number, "max_value": 700}},
        {
            "string_attribute": {
                "key": "db.collection.name",
                "values": [f"^{nothing}.*$"],
                "enabled_regex_matching": True,
            }
        },
        {"string_attribute": {"key": "k8s.pod.name", "values": [nothing]}},
        {"latency": {"threshold_ms": NEVER_MS + number}},
        {"numeric_attribute": {"key": "app.items", "min_value": 1_000 + number, "max_value": 2_000}},
    ]
    block = kinds[number % len(kinds)]
    return {"type": next(iter(block)), **block}


class Truth(NamedTuple):
    """Trace id and number of spans of every trace that is to be kept, and how many traces there are."""

    kept: dict[bytes, int]
    traces: int

    @property
    def spans(self) -> int:
        """Of the traces that are to be kept."""
        return sum(self.kept.values())


def judged(load: Load, mix: Mix) -> Truth:
    """What the policies keep of a load; when it begins does not matter."""
    state, limit = salted(DEFAULT_SALT), hash_limit_of(mix.percentage)
    failing: dict[tuple[int, int], bool] = {}
    found, seen = {}, 0
    for trace in traces(load):
        seen += 1
        shape = (id(trace.shape), trace.spans)
        if shape not in failing:
            failing[shape] = mix.failures and _failing(trace.shape, trace.spans)
        if failing[shape] or fnv1a_64(trace.trace_id, state) <= limit:
            found[trace.trace_id] = trace.spans
    return Truth(found, seen)


def _failing(shape: Shape, spans: int) -> bool:
    seen = shape.spans[:spans]
    lasts = max(span.end for span in seen) - min(span.start for span in seen)
    return lasts // MS >= SLOW_MS or any(
        Span.FromString(span.tail).status.code == Status.STATUS_CODE_ERROR for span in seen
    )


def difference(truth: Mapping[bytes, int], found: Mapping[bytes, int]) -> tuple[int, int]:
    """Traces that are missing or not whole, and traces that should not be there."""
    missing = sum(found.get(trace, 0) < spans for trace, spans in truth.items())
    return missing, len(found.keys() - truth.keys())


def digest(kept: Iterable[bytes]) -> str:
    """A set of trace ids in a word: the first hex digits of SHA-256 over the ids, sorted."""
    return hashlib.sha256(b"".join(sorted(kept))).hexdigest()[:DIGEST_DIGITS]
