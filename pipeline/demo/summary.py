"""What the run showed, in words."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from pipeline.demo.ledger import OVERFLOW, Audit, Holdings
from pipeline.demo.run import Run
from pipeline.demo.screen import WHY
from pipeline.demo.settings import SERIES_PER_METRIC
from pipeline.demo.shop import CUSTOMER

CLONE = Path(__file__).resolve().parents[2]
INDENT = 13  # of a sentence that goes on
COMMANDS = 44  # columns that "Next" has for them


def summary(run: Run, holdings: Holdings, audit: Audit, width: int | None = None) -> str:
    """What was seen, and where to go from here; lines of at most `width` columns, if it is given."""
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
    ]
    following = ["Next", *(f"  {command:<{COMMANDS - 2}}{what}".rstrip() for command, what in _next())]
    # An address is copied whole, whatever the width.
    return "\n".join([*_wrapped(lines, width, INDENT), *_looking(run), *_wrapped(following, width, COMMANDS)])


def _wrapped(lines: list[str], width: int | None, indent: int) -> Iterator[str]:
    """At words; what goes on begins below what it says."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
        else:
            begin = len(line) - len(line.lstrip())
            yield from wrap(
                line,
                width,
                subsequent_indent=" " * (indent if begin else 0),
                break_long_words=False,
                break_on_hyphens=False,
            )


def _next() -> Iterator[tuple[str, str]]:
    """Commands, and what they are for."""
    if (CLONE / "docs" / "tutorial.md").exists():
        if shutil.which("tailrace") is None:
            yield "python3 -m venv .venv", ""
            yield ".venv/bin/pip install '.[demo]'", "the command tailrace, which is not installed yet"
            yield 'export PATH="$PWD/.venv/bin:$PATH"', ""
        yield "docs/tutorial.md", "your own policies, your own Kafka"
    yield "tailrace demo --help", "more spans per second, real servers"
    yield "tailrace check FILE --connect", "is your configuration right, is everything there"


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
