"""What the run showed, in words."""

from __future__ import annotations

from collections import Counter

from pipeline.demo.ledger import OVERFLOW, Audit, Holdings
from pipeline.demo.run import Run
from pipeline.demo.screen import WHY
from pipeline.demo.settings import SERIES_PER_METRIC
from pipeline.demo.shop import CUSTOMER


def summary(run: Run, holdings: Holdings, audit: Audit) -> str:
    """What was seen, and where to go from here."""
    f = audit.figures
    policies = Counter(holdings.policies.values())
    why = ", ".join(f"{policies[name]} {WHY.get(name, '')}" for name in [*WHY] if policies[name])
    by_log = sum(1 for trace in run.ledger.seen().values() if trace.error_by_log and not trace.error_by_span)
    sent_broken = run.ledger.dead_letters
    traces, logs, metrics, letters = (
        "✓" if right else "✗"
        for right in (
            f.broken_traces == 0 and f.error_traces == f.error_traces_kept,
            f.logs_correlated > 0,
            f.metric_spans == f.spans_in,
            f.dlq == sent_broken,
        )
    )
    lines = [
        f"What you just saw ({f.seconds:.0f} s, seed {run.options.seed})",
        "",
        f"  {traces} traces   {f.traces_seen:,} came in as {f.spans_in:,} spans, in pieces and out "
        f"of order; {f.traces_kept:,} were kept, {f.broken_traces} of them broken.",
        f"             Kept: {why or 'none'}.",
        f"             {f.error_traces_kept} of {f.error_traces} error traces are there; in {by_log} only a log told.",
        f"  {logs} logs     {f.logs_in:,} came in, {f.logs_kept:,} were kept; "
        f"{f.logs_correlated:,} belong to kept traces and carry service, span and verdict.",
        f"  {metrics} metrics  {f.metric_spans:,} spans are in the counters, "
        f"{f.spans_in:,} were sent (all count, kept or not).",
        f"             {f.series_active:,} series, although {CUSTOMER} brings a new value with nearly every request: "
        f"what does not fit into {SERIES_PER_METRIC:,} per metric is {OVERFLOW}.",
        f"  {letters} broken   {sent_broken} broken messages were sent on purpose; "
        f"{f.dlq} are in the dead-letter queue, with reason and bytes.",
        "",
        "The figures of what came in are the generator's, the others what the destinations hold.",
        "",
        *_looking(run),
        "Next",
        "  tailrace demo --help                      more spans per second, real servers",
        "  docs/tutorial.md                          your own policies, your own Kafka",
        "  tailrace check tailrace.yaml --connect    is the configuration right, is everything there",
    ]
    return "\n".join(lines)


def _looking(run: Run) -> list[str]:
    """Where real servers show what arrived."""
    real = run.options.real
    lines = []
    if real.jaeger:
        kept = next((trace_id.hex() for trace_id, trace in run.ledger.seen().items() if trace.error), "")
        lines.append(f"  {real.jaeger.rstrip('/')}/trace/{kept}")
    if real.elasticsearch:
        lines.append(f"  {real.elasticsearch.rstrip('/')}/logs-demo-default/_search?q=trace.sampled:true")
    if real.prometheus:
        lines.append(f"  {real.prometheus.rstrip('/')}/query?g0.expr=sum(traces_span_metrics_calls_total)")
    return ["Look", *lines, ""] if lines else []
