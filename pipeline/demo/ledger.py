"""The ledger of truth: what was really sent, and whether what arrived can be true.

Input figures and the map of traces come from here; what was kept and what is broken from what the destinations
hold (`Holdings`); span counts from the series they received. The worker's own counters are not asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pipeline.demo.facts import ERROR, Message

OVERFLOW = "__overflow__"
KEPT_SHARE = (0.01, 0.60)
"""Fewer kept traces than the first, or more than the second, and the sampling was not seen to work."""

SPAN_METRICS = 2
"""Calls and durations; each has its own budget."""

Labels = frozenset[tuple[str, str]]
"""A series: its labels, `__name__` among them."""


class Document(NamedTuple):
    """A log as a destination holds it. `sampled` is None where it carries no verdict."""

    trace_id: bytes
    sampled: bool | None
    service: str
    span_name: str


@dataclass(slots=True)
class Holdings:
    """What the destinations hold.

    `spans`: span ids by trace id, one entry per span received, so that duplicates show. `policies`: the policy that
    the trace's first span names. `logs` by `log.record.uid`, `log_duplicates` counts second copies. `series`: the
    latest value of every series that is still alive. `dead_letters`: records of the dead-letter queue.
    """

    spans: dict[bytes, list[bytes]] = field(default_factory=dict)
    policies: dict[bytes, str] = field(default_factory=dict)
    logs: dict[str, Document] = field(default_factory=dict)
    log_duplicates: int = 0
    series: dict[Labels, float] = field(default_factory=dict)
    dead_letters: int = 0


class Figures(NamedTuple):
    """The result of a run, in the order in which it is printed."""

    spans_in: int
    spans_kept: int
    traces_seen: int
    traces_kept: int
    broken_traces: int
    error_traces: int
    error_traces_kept: int
    logs_in: int
    logs_kept: int
    logs_correlated: int
    metric_spans: int
    series_active: int
    series_budget: int
    dlq: int
    seconds: float


class Audit(NamedTuple):
    """Figures and every invariant that does not hold, in words."""

    figures: Figures
    violations: list[str]


@dataclass(slots=True)
class SentTrace:
    """A trace as it was sent."""

    spans: set[bytes] = field(default_factory=set)
    error_by_span: bool = False
    error_by_log: bool = False

    @property
    def error(self) -> bool:
        """True if it must be kept."""
        return self.error_by_span or self.error_by_log


class SentLog(NamedTuple):
    """A log as it was sent; `trace_id` is b"" for one without a trace."""

    trace_id: bytes
    error: bool


@dataclass(slots=True)
class Ledger:
    """Everything that was sent. `record` each message when, and only when, Kafka has it."""

    traces: dict[bytes, SentTrace] = field(default_factory=dict)
    logs: dict[str, SentLog] = field(default_factory=dict)
    counts: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)
    dead_letters: int = 0
    spans: int = 0

    def record(self, message: Message) -> None:
        """Enter what a message holds."""
        for span in message.spans:
            trace = self._trace(span.trace_id)
            trace.spans.add(span.span_id)
            trace.error_by_span |= span.status == ERROR
            self.counts[span.identity] += 1
        for log in message.logs:
            self.logs[log.uid] = SentLog(log.trace_id, log.error)
            if log.trace_id:
                self._trace(log.trace_id).error_by_log |= log.error
        self.spans += len(message.spans)
        self.dead_letters += message.dead_letters

    def _trace(self, trace_id: bytes) -> SentTrace:
        if trace_id not in self.traces:
            self.traces[trace_id] = SentTrace()
        return self.traces[trace_id]

    def seen(self) -> dict[bytes, SentTrace]:
        """The traces of which a span was sent (a log alone makes no trace)."""
        return {trace_id: trace for trace_id, trace in self.traces.items() if trace.spans}

    def audit(
        self,
        holdings: Holdings,
        *,
        series_per_metric: int,
        namespace: str = "traces_span_metrics",
        seconds: float = 0.0,
        duplicates_allowed: bool = False,
    ) -> Audit:
        """Hold what arrived against what was sent.

        `series_per_metric` is the budget, `namespace` the first part of the span metrics' names.
        `duplicates_allowed` is for destinations that were sent the same request twice after a failure: at-least-once.
        """
        seen = self.seen()
        broken = dict(self._broken(seen, holdings, duplicates_allowed))
        errors = {trace_id for trace_id, trace in seen.items() if trace.error}
        kept_errors = {trace_id for trace_id in errors if trace_id in holdings.spans}
        kept_logs = {uid: document for uid, document in holdings.logs.items() if uid in self.logs}
        correlated = [
            uid
            for uid, document in kept_logs.items()
            if document.sampled and self.logs[uid].trace_id == document.trace_id and document.trace_id in holdings.spans
        ]
        totals = _Totals.of(holdings.series, namespace)
        figures = Figures(
            spans_in=self.spans,
            spans_kept=sum(len(set(spans)) for spans in holdings.spans.values()),
            traces_seen=len(seen),
            traces_kept=len(holdings.spans),
            broken_traces=len(broken),
            error_traces=len(errors),
            error_traces_kept=len(kept_errors),
            logs_in=len(self.logs),
            logs_kept=len(kept_logs),
            logs_correlated=len(correlated),
            metric_spans=round(totals.calls),
            series_active=sum(totals.series.values()),
            series_budget=series_per_metric * SPAN_METRICS,
            dlq=holdings.dead_letters,
            seconds=round(seconds, 1),
        )
        violations = [
            *self._traces_wrong(figures, broken, errors - kept_errors),
            *self._logs_wrong(figures, holdings, duplicates_allowed),
            *self._metrics_wrong(figures, totals, series_per_metric),
        ]
        if holdings.dead_letters != self.dead_letters:
            violations.append(
                f"{holdings.dead_letters} dead letters, but {self.dead_letters} broken messages were sent"
            )
        return Audit(figures, violations)

    def _broken(
        self, seen: Mapping[bytes, SentTrace], holdings: Holdings, duplicates_allowed: bool
    ) -> Iterator[tuple[bytes, str]]:
        """Kept traces that are not exactly what was sent, and how."""
        for trace_id, spans in holdings.spans.items():
            sent = seen[trace_id].spans if trace_id in seen else set()
            got = set(spans)
            if not sent:
                yield trace_id, "was never sent"
            elif got - sent:
                yield trace_id, f"has {len(got - sent)} spans of other traces"
            elif sent - got:
                yield trace_id, f"lacks {len(sent - got)} of its {len(sent)} spans"
            elif len(got) < len(spans) and not duplicates_allowed:
                yield trace_id, f"has {len(spans) - len(got)} spans twice"

    def _traces_wrong(self, figures: Figures, broken: Mapping[bytes, str], lost: set[bytes]) -> Iterator[str]:
        for trace_id, how in list(broken.items())[:5]:
            yield f"broken trace {trace_id.hex()}: {how}"
        if len(broken) > 5:
            yield f"and {len(broken) - 5} more broken traces"
        share = figures.traces_kept / max(figures.traces_seen, 1)
        if not KEPT_SHARE[0] <= share <= KEPT_SHARE[1]:
            yield f"{share:.1%} of the traces kept; expected {KEPT_SHARE[0]:.0%} to {KEPT_SHARE[1]:.0%}"
        if not figures.error_traces:
            yield "no error trace was sent"
        for trace_id in sorted(lost)[:5]:
            trace = self.traces[trace_id]
            by = " and ".join(("span",) * trace.error_by_span + ("log",) * trace.error_by_log)
            yield f"error trace {trace_id.hex()} (by {by}) was not kept"
        if len(lost) > 5:
            yield f"and {len(lost) - 5} more error traces not kept"

    def _logs_wrong(self, figures: Figures, holdings: Holdings, duplicates_allowed: bool) -> Iterator[str]:
        if not figures.logs_correlated:
            yield "no log was correlated with a kept trace"
        missing = [
            uid
            for uid, log in self.logs.items()
            if uid not in holdings.logs and (not log.trace_id or log.trace_id in holdings.spans)
        ]
        if missing:
            yield f"{len(missing)} logs of kept traces or without a trace are missing, such as {missing[0]}"
        invented = holdings.logs.keys() - self.logs.keys()
        if invented:
            yield f"{len(invented)} logs were never sent, such as {min(invented)}"
        if holdings.log_duplicates and not duplicates_allowed:
            yield f"{holdings.log_duplicates} logs are there twice"

    def _metrics_wrong(self, figures: Figures, totals: _Totals, series_per_metric: int) -> Iterator[str]:
        if round(totals.calls) != figures.spans_in:
            yield f"the call counters say {totals.calls:.0f} spans, {figures.spans_in} were sent"
        if round(totals.durations) != figures.spans_in:
            yield f"the duration histograms hold {totals.durations:.0f} spans, {figures.spans_in} were sent"
        for identity, value in totals.by_identity.items():
            if value > self.counts[identity]:
                yield f"{identity} is counted {value:.0f} times, {self.counts[identity]} were sent"
        if not totals.overflow:
            yield "no series says __overflow__: the cardinality limit was not seen to work"
        for metric, count in totals.series.items():
            if count > series_per_metric:
                yield f"{metric} has {count} series, its budget is {series_per_metric}"


@dataclass(slots=True)
class _Totals:
    """What the series of the span metrics add up to. `series` counts them per metric (a histogram is one)."""

    calls: float = 0.0
    durations: float = 0.0
    overflow: bool = False
    by_identity: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)
    series: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, series: Mapping[Labels, float], namespace: str) -> _Totals:
        totals = cls()
        calls, durations = f"{namespace}_calls_total", f"{namespace}_duration_milliseconds"
        for labels, value in series.items():
            by_name = dict(labels)
            name = by_name.get("__name__", "")
            metric = durations if name.startswith(durations) else name
            totals.series[metric] += 1
            totals.overflow |= OVERFLOW in by_name.values()
            if name == calls:
                totals.calls += value
                identity = _identity(by_name)
                if identity:
                    totals.by_identity[identity] += value  # type: ignore[assignment]
            elif name == f"{durations}_count":
                totals.durations += value
        return totals


def _identity(labels: Mapping[str, str]) -> tuple[str, str, int, int] | None:
    """Service, name, kind and status of a series; None where they were folded away."""
    kind, status = labels.get("span_kind", ""), labels.get("status_code", "STATUS_CODE_UNSET")
    if OVERFLOW in (labels.get("service_name"), kind, status):
        return None
    return (
        labels.get("service_name", ""),
        labels.get("span_name", ""),
        int(Span.SpanKind.Value(kind)) if kind else 0,
        int(Status.StatusCode.Value(status)),
    )
