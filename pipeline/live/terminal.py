"""A view as tables for a terminal: `tailrace top`, and the parts of it that the demo's screen shows too."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.live.snapshot import Limit
from pipeline.live.view import Count, RoleView, View
from pipeline.operating.printable import cell, printable

BAR = 24  # columns
MOST_LINES = 8  # of each table that could be long
MB = 1e6


def screen(view: View) -> RenderableType:
    """Everything, one table beside or below the other as the terminal is wide."""
    tables = [_roles(view), _policies(view), _drops(view), *_retries(view)]
    parts: list[RenderableType] = [_head(view), Columns(tables, padding=(0, 2))]
    if view.services:
        parts.append(_services(view))
    if view.limits:
        parts.append(_limits(view))
    if view.traces:
        parts.append(_traces(view))
    return Group(*parts)


def table(title: str, *columns: str, texts: int = 1) -> Table:
    """An empty one: so many columns of text, then numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for place, name in enumerate(columns):
        made.add_column(name, justify="left" if place < texts else "right")
    return made


def budget(active: float, limit: float, width: int = 30) -> ProgressBar:
    """How full a limit is."""
    return ProgressBar(total=max(1, limit), completed=min(active, limit), width=width)


def per_second(count: Count) -> str:
    """A rate as text; small ones with a decimal."""
    return f"{count.rate:,.1f}" if 0 < count.rate < 10 else f"{count.rate:,.0f}"


def _head(view: View) -> Text:
    decided = view.kept_traces.total + view.dropped_traces.total
    share = f"{view.kept_traces.total / decided:.1%}" if decided else "–"
    text = Text.assemble(
        ("Tailrace", "bold"), f"  {datetime.datetime.fromtimestamp(view.time):%H:%M:%S}",
        f"  spans {per_second(view.spans)}/s  logs {per_second(view.logs)}/s",
        f"  traces {per_second(view.kept_traces + view.dropped_traces)}/s, {share} kept",
        f"  {view.lag:,.1f} s behind",
    )  # fmt: skip
    if view.without_ingest:
        text.append("\nno ingest among these workers: what waits in the raw topics is in none of these numbers", "red")
    for worker in view.workers:
        use = f"{worker.memory / MB:,.0f} MB, {worker.cpu:.2f} cores"
        state = (printable(worker.error), "red") if worker.error else use
        text.append("\n").append(printable(worker.name), "dim").append("  ").append_text(Text.assemble(state))
    return text


def _roles(view: View) -> Table:
    stuck = any(role.stuck for role in view.roles)
    made = table("roles", "", "read", "per s", "unread", "out per s", *[""] * stuck)
    for role in view.roles:
        read = sum(role.read.values(), Count())
        out = _out(view, role)
        name = Text(printable(role.name), style="red" if role.stuck else "" if role.ready else "yellow")
        held = [Text(f"stuck {role.stuck:,.0f} s", style="red")] if role.stuck else []
        made.add_row(name, f"{read.total:,.0f}", per_second(read), f"{role.unread:,.0f}", out, *held)
    return made


def _out(view: View, role: RoleView) -> str:
    """What a role brings forth: spans and logs forwarded, series, or items that the destination has taken."""
    if role.name == "sample":
        return per_second(view.kept_spans + view.kept_logs)
    if role.name == "aggregate":
        return f"{view.series:,.0f} series"
    items = view.delivered.get(role.name.removeprefix("sink."), {})
    return per_second(items["accepted"]) if "accepted" in items else ""


def _policies(view: View) -> Table:
    made = table("traces kept, by policy", "policy", "traces", "per s", "dropped")
    for policy in view.policies:
        dropped = f"{policy.dropped.total:,.0f}" if policy.dropped.total else ""
        made.add_row(cell(policy.name), f"{policy.kept.total:,.0f}", per_second(policy.kept), dropped)
    return made


def _drops(view: View) -> Table:
    made = table("not forwarded, and why", "", "rows", "per s")
    for drop in view.drops[:MOST_LINES]:
        what = f"{'dead letter of ' if drop.dead_letter else ''}{drop.where}: {drop.reason}"
        style = "" if drop.intentional else "red"
        made.add_row(Text(printable(what), style=style), f"{drop.count.total:,.0f}", per_second(drop.count))
    return made


def _retries(view: View) -> Iterator[Table]:
    """What destinations did not take, if there is any; red while it goes on."""
    made = table("sent again, and why", "", "requests", "per s")
    for sink, reasons in view.retries.items():
        for reason, count in reasons.items():
            if count.total:
                what = Text(printable(f"sink.{sink}: {reason}"), style="red" if count.rate else "")
                made.add_row(what, f"{count.total:,.0f}", per_second(count))
    if made.row_count:
        yield made


def _services(view: View) -> Table:
    made = table("requests, before sampling", "service", "calls", "errors", "half within", "95 % within")
    for service in view.services[:MOST_LINES]:
        errors = f"{service.failed / service.calls:.1%}" if service.calls else ""
        times = [f"{ms:,.1f} ms" if ms is not None else "" for ms in (service.p50_ms, service.p95_ms)]
        made.add_row(cell(service.name), f"{service.calls:,}", errors, *times)
    return made


def _limits(view: View) -> Table:
    made = table("limits", "metric", "label", "in use", "", "limit", "demand", "folded", texts=3)
    for limit in sorted(view.limits, key=_fullness, reverse=True)[:MOST_LINES]:
        bar = budget(limit.active, limit.limit, BAR)
        numbers = (f"{limit.limit:,}", f"{limit.demand:,}", f"{limit.folded:,.0f}")
        style = "red" if limit.folded else ""
        names = cell(limit.metric), cell(limit.label or "(series)")
        made.add_row(*names, bar, f"{limit.active:,}", *numbers, style=style)
    return made


def _fullness(limit: Limit) -> tuple[bool, float]:
    return limit.folded > 0, limit.active / max(1, limit.limit)


def _traces(view: View) -> Table:
    made = table("kept traces, a sample", "trace", "policy", "spans", "logs", "took", texts=2)
    for trace in view.traces[:MOST_LINES]:
        what = printable(f"{trace.service}: {trace.name}"), "red" if trace.error else ""
        name = Text.assemble(what, (f"  {printable(trace.trace_id)}", "dim"))
        made.add_row(name, cell(trace.policy), str(trace.spans), str(trace.logs), f"{trace.duration_ms:,.1f} ms")
    return made
