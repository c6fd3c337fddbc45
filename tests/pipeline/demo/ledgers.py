"""What a demo sends, and destinations that got all of it."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pipeline.demo.ledger import OVERFLOW, Document, Holdings, Labels, Ledger
from pipeline.demo.traffic import Traffic

CALLS = "traces_span_metrics_calls_total"
DURATION = "traces_span_metrics_duration_milliseconds"


def sent(seed: int = 3) -> Ledger:
    ledger = Ledger()
    for message in Traffic(seed, 300, 6.0, 1_700_000_000_000_000_000, 3.0).messages():
        ledger.record(message)
    return ledger


def labels(**values: str) -> Labels:
    return frozenset((("__name__" if key == "name" else key, value) for key, value in values.items()))


def perfect(ledger: Ledger) -> Holdings:
    """What correct destinations hold: error traces and every tenth other, their logs, all counts."""
    holdings = Holdings(dead_letters=ledger.dead_letters)
    for n, (trace_id, trace) in enumerate(ledger.seen().items()):
        if trace.error or n % 10 == 0:
            holdings.spans[trace_id] = sorted(trace.spans)
    for uid, log in ledger.logs.items():
        if not log.trace_id:
            holdings.logs[uid] = Document(b"", None, "email", "")
        elif log.trace_id in holdings.spans:
            holdings.logs[uid] = Document(log.trace_id, True, "web", "GET /")
    folded = 0
    for n, ((service, name, kind, status), count) in enumerate(sorted(ledger.counts.items())):
        if n % 20 == 19:
            folded += count
            continue
        identity = labels(
            name=CALLS, service_name=service, span_name=name,
            span_kind=Span.SpanKind.Name(kind), status_code=Status.StatusCode.Name(status),  # type: ignore[arg-type]
        )  # fmt: skip
        holdings.series[identity] = count
    holdings.series[labels(name=CALLS, service_name=OVERFLOW, span_name=OVERFLOW, span_kind=OVERFLOW)] = folded
    holdings.series[labels(name=f"{DURATION}_count", service_name="web")] = ledger.spans
    holdings.series[labels(name=f"{DURATION}_bucket", service_name="web", le="+Inf")] = ledger.spans
    return holdings
