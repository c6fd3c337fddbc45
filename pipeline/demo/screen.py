"""The live table: what flows, what was kept and why, what arrived, and how the budget of series is used.

What was sent comes from the ledger, what arrived from the destinations; only the middle, the roles, is the worker's
own telemetry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline import telemetry
from pipeline.demo.ledger import OVERFLOW, SPAN_METRICS, Holdings
from pipeline.demo.run import Run
from pipeline.demo.settings import DECISION_WAIT_SECONDS, SERIES_PER_METRIC, SLOW_MS
from pipeline.demo.shop import CUSTOMER

WHY: Mapping[str, str] = {
    "errors": "a span says ERROR",
    "error-logs": "only a log says ERROR",
    "slow": f"longer than {SLOW_MS} ms",
    "half-of-gold": "half of the gold customers",
    "baseline": "5 % of the rest",
}


def screen(run: Run, holdings: Holdings, note: str = "") -> RenderableType:
    """The whole picture, as of now."""
    state = "traffic flows" if run.sending else "no more traffic; waiting until all of it has arrived"
    head = Text.assemble(
        ("Tailrace", "bold"), f"  {run.seconds:4.0f} s  {state}", ("   Ctrl-C ends it", "dim") if run.sending else ""
    )
    tables = [_sent(run), _kept(run, holdings), _arrived(run, holdings)]
    lines: list[RenderableType] = [head, Columns(tables, padding=(0, 1)), _series(holdings)]
    if note:
        lines.append(Text(note, style="yellow"))
    return Group(*lines)


def line(run: Run, holdings: Holdings) -> str:
    """The same in one line, for a log or a pipe."""
    ledger = run.ledger
    return (
        f"{run.seconds:5.1f} s  in: {ledger.spans} spans, {len(ledger.logs)} logs  "
        f"kept: {len(holdings.spans)} of {len(ledger.seen())} traces, {len(holdings.logs)} logs  "
        f"series: {len(holdings.series)} of {SPAN_METRICS * SERIES_PER_METRIC}  dead letters: {holdings.dead_letters}"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def _sent(run: Run) -> Table:
    ledger, seconds = run.ledger, max(run.seconds, 1.0)
    table = _table("sent by the shop", "", "total", "per s")
    for name, count in (("spans", ledger.spans), ("logs", len(ledger.logs)), ("traces", len(ledger.seen()))):
        table.add_row(name, f"{count:,}", f"{count / seconds:,.0f}" if run.sending else "")
    table.add_row("broken messages", f"{ledger.dead_letters:,}", "")
    table.add_section()
    read: Counter[str] = Counter()
    for sample in _samples("tailrace_records_read_total"):
        read[sample[0]["role"]] += int(sample[1])
    for role, ready in run.worker.ready().items():
        table.add_row(Text(role, style="" if ready else "dim"), f"{read[role]:,}", "" if ready else "joining")
    return table


def _kept(run: Run, holdings: Holdings) -> Table:
    seen = len(run.ledger.seen())
    table = _table("traces kept, and why", "policy", "traces", "")
    by_policy = Counter(holdings.policies.values())
    for policy, why in WHY.items():
        table.add_row(policy, f"{by_policy.pop(policy, 0):,}", Text(why, style="dim", justify="left"))
    for policy, count in by_policy.items():
        table.add_row(policy or "?", f"{count:,}", "")
    table.add_section()
    share = len(holdings.spans) / seen if seen else 0.0
    table.add_row("kept", f"{len(holdings.spans):,}", Text(f"{share:.0%} of {seen:,}", justify="left"))
    wait = f"each after {DECISION_WAIT_SECONDS} s"
    decided = {labels["verdict"]: int(value) for labels, value in _samples("tailrace_traces_decided_total")}
    table.add_row("decided", f"{sum(decided.values()):,}", Text(wait, style="dim", justify="left"))
    return table


def _arrived(run: Run, holdings: Holdings) -> Table:
    table = _table("arrived", "", "held", "requests")
    requests = run.destinations.local.requests
    correlated = sum(1 for document in holdings.logs.values() if document.sampled)
    rows = (
        ("Jaeger: spans", sum(map(len, holdings.spans.values())), "jaeger"),
        ("Elasticsearch: logs", len(holdings.logs), "elasticsearch"),
        ("  of kept traces", correlated, ""),
        ("Prometheus: series", len(holdings.series), "prometheus"),
        ("dead-letter queue", holdings.dead_letters, ""),
    )
    for name, held, key in rows:
        table.add_row(name, f"{held:,}", f"{requests[key]:,}" if requests[key] else "")
    return table


def _series(holdings: Holdings) -> Panel:
    """How full each metric's budget is, and what was folded."""
    used: Counter[str] = Counter()
    folded: Counter[str] = Counter()
    for labels, value in holdings.series.items():
        by_name = dict(labels)
        name = by_name["__name__"]
        metric = "durations" if "duration" in name else "calls"
        used[metric] += 1
        if OVERFLOW in by_name.values() and name.endswith(("_calls_total", "_count")):
            folded[metric] += round(value)
    table = Table.grid(padding=(0, 2))
    for metric in ("calls", "durations"):
        bar = ProgressBar(total=SERIES_PER_METRIC, completed=used[metric], width=30)
        note = f"{folded[metric]:,} spans counted as {OVERFLOW}" if folded[metric] else ""
        table.add_row(metric, bar, f"{used[metric]:,} of {SERIES_PER_METRIC:,} series", note)
    return Panel(table, title=f"metrics: {CUSTOMER} never stops bringing new values", title_align="left", expand=False)


def _samples(name: telemetry.MetricName) -> list[tuple[dict[str, str], float]]:
    """The worker's own counters by labels."""
    family = name.removesuffix("_total")
    return [
        (sample.labels, sample.value)
        for metric in telemetry.REGISTRY.collect()
        if metric.name == family
        for sample in metric.samples
        if sample.name == name
    ]
