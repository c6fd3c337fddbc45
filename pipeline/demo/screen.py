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

NARROW_BAR = 10
WIDE = 120  # columns from which on the tables stand side by side; below they would not fit on a terminal's height
WHY: Mapping[str, str] = {
    "errors": "a span says ERROR",
    "error-logs": "only a log says ERROR",
    "slow": f"longer than {SLOW_MS} ms",
    "half-of-gold": "half of the gold customers",
    "baseline": "5 % of the rest",
}


def screen(run: Run, holdings: Holdings, note: str = "", width: int = WIDE) -> RenderableType:
    """The whole picture, as of now, for a terminal of so many columns."""
    state = "traffic flows" if run.sending else "no more traffic; waiting until all of it has arrived"
    head = Text.assemble(
        ("Tailrace", "bold"), f"  {run.seconds:4.0f} s  {state}", ("   Ctrl-C ends it", "dim") if run.sending else "",
        ("   ", ""), (run.page, f"dim link {run.page}"),
    )  # fmt: skip
    roles = _roles()
    lines: list[RenderableType] = [head]
    if width < WIDE:
        lines += [_compact(run, holdings, roles), _series(holdings, NARROW_BAR)]
    else:
        tables = [_sent(run, roles), _kept(run, holdings, roles), _arrived(run, holdings)]
        lines += [Columns(tables, padding=(0, 1)), _series(holdings)]
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


def _compact(run: Run, holdings: Holdings, roles: View) -> Table:
    """The three tables in a few lines."""
    ledger, seen, policies = run.ledger, len(run.ledger.seen()), Counter(holdings.policies.values())
    read = {role.name: sum(count.total for count in role.read.values()) for role in roles.roles}
    share = len(holdings.spans) / seen if seen else 0.0
    grid = Table.grid(padding=(0, 2))
    grid.add_row("")
    sent = f"{ledger.spans:,} spans and {len(ledger.logs):,} logs of {seen:,} traces"
    grid.add_row("sent", f"{sent}, {ledger.dead_letters} broken messages")
    ready = run.worker.ready().items()
    grid.add_row(
        "read", ", ".join(f"{role} {read.get(role, 0):,.0f}" if up else f"{role} joining" for role, up in ready)
    )
    kept = ", ".join(f"{count:,} {policy or '?'}" for policy, count in policies.most_common())
    grid.add_row("kept", f"{len(holdings.spans):,} traces, {share:.0%}{f': {kept}' if kept else ''}")
    correlated = sum(1 for document in holdings.logs.values() if document.sampled)
    held = (
        f"{sum(map(len, holdings.spans.values())):,} spans in Jaeger",
        f"{len(holdings.logs):,} logs in Elasticsearch ({correlated:,} of kept traces)",
        f"{len(holdings.series):,} series in Prometheus",
        f"{holdings.dead_letters} dead letters",
    )
    grid.add_row("arrived", ", ".join(held))
    grid.add_row("")
    return grid


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


def _series(holdings: Holdings, width: int = 30) -> Panel:
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
        bar = budget(used[metric], SERIES_PER_METRIC, width)
        note = f"{folded[metric]:,} spans counted as {OVERFLOW}" if folded[metric] else ""
        grid.add_row(metric, bar, f"{used[metric]:,} of {SERIES_PER_METRIC:,} series", note)
    return Panel(grid, title=f"metrics: {CUSTOMER} never stops bringing new values", title_align="left", expand=False)
