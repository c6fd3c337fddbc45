"""The live table: what flows, what was kept and why, what arrived, and how the budget of series is used.

What was sent comes from the ledger, what arrived from the destinations; only the middle, the roles, is the worker's
own telemetry.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline import telemetry
from pipeline.demo.ledger import OVERFLOW, SPAN_METRICS, Holdings
from pipeline.demo.run import Run
from pipeline.demo.settings import DECISION_WAIT_SECONDS, SERIES_PER_METRIC, SLOW_MS
from pipeline.demo.shop import CUSTOMER
from pipeline.live.snapshot import Snapshot, of_registry
from pipeline.live.terminal import budget, table
from pipeline.live.view import Observed, View, view

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
        ("Tailrace", "bold"), f"  {run.seconds:4.0f} s  {state}", ("   Ctrl-C ends it", "dim") if run.sending else "",
        ("   ", ""), (run.page, f"dim link {run.page}"),
    )  # fmt: skip
    roles = _roles()
    tables = [_sent(run, roles), _kept(run, holdings, roles), _arrived(run, holdings)]
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


def _roles() -> View:
    """The worker's own telemetry."""
    now = Snapshot(time.time(), of_registry(telemetry.REGISTRY))
    return view([Observed("", None, now)], now.time)


def _sent(run: Run, roles: View) -> Table:
    ledger, seconds = run.ledger, max(run.seconds, 1.0)
    rows = table("sent by the shop", "", "total", "per s")
    for name, count in (("spans", ledger.spans), ("logs", len(ledger.logs)), ("traces", len(ledger.seen()))):
        rows.add_row(name, f"{count:,}", f"{count / seconds:,.0f}" if run.sending else "")
    rows.add_row("broken messages", f"{ledger.dead_letters:,}", "")
    rows.add_section()
    read = {role.name: sum(count.total for count in role.read.values()) for role in roles.roles}
    for role, ready in run.worker.ready().items():
        rows.add_row(Text(role, style="" if ready else "dim"), f"{read.get(role, 0):,.0f}", "" if ready else "joining")
    return rows


def _kept(run: Run, holdings: Holdings, roles: View) -> Table:
    seen = len(run.ledger.seen())
    rows = table("traces kept, and why", "policy", "traces", "")
    by_policy = Counter(holdings.policies.values())
    for policy, why in WHY.items():
        rows.add_row(policy, f"{by_policy.pop(policy, 0):,}", Text(why, style="dim", justify="left"))
    for policy, count in by_policy.items():
        rows.add_row(policy or "?", f"{count:,}", "")
    rows.add_section()
    share = len(holdings.spans) / seen if seen else 0.0
    rows.add_row("kept", f"{len(holdings.spans):,}", Text(f"{share:.0%} of {seen:,}", justify="left"))
    wait = f"each after {DECISION_WAIT_SECONDS} s"
    decided = roles.kept_traces.total + roles.dropped_traces.total
    rows.add_row("decided", f"{decided:,.0f}", Text(wait, style="dim", justify="left"))
    return rows


def _arrived(run: Run, holdings: Holdings) -> Table:
    rows = table("arrived", "", "held", "requests")
    requests = run.destinations.local.requests
    correlated = sum(1 for document in holdings.logs.values() if document.sampled)
    held_here = (
        ("Jaeger: spans", sum(map(len, holdings.spans.values())), "jaeger"),
        ("Elasticsearch: logs", len(holdings.logs), "elasticsearch"),
        ("  of kept traces", correlated, ""),
        ("Prometheus: series", len(holdings.series), "prometheus"),
        ("dead-letter queue", holdings.dead_letters, ""),
    )
    for name, held, key in held_here:
        rows.add_row(name, f"{held:,}", f"{requests[key]:,}" if requests[key] else "")
    return rows


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
    grid = Table.grid(padding=(0, 2))
    for metric in ("calls", "durations"):
        bar = budget(used[metric], SERIES_PER_METRIC)
        note = f"{folded[metric]:,} spans counted as {OVERFLOW}" if folded[metric] else ""
        grid.add_row(metric, bar, f"{used[metric]:,} of {SERIES_PER_METRIC:,} series", note)
    return Panel(grid, title=f"metrics: {CUSTOMER} never stops bringing new values", title_align="left", expand=False)
