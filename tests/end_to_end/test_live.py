"""The live page of a running `tailrace demo` in a browser: what it shows is what the generator knows to be true."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.end_to_end.begun import DEADLINE_SECONDS, begun
from tests.services import eventually
from tests.services.chromium import Chromium, Tab

WIDTH, PHONE = (1280, 800), (390, 844)
TRACES_OPENED = 6
ROLES = 6  # of the demo
PNG = b"\x89PNG"

ROWS = """
[...document.querySelectorAll('%s')].map((row) => ({...row.dataset, text: row.innerText}))
"""
OPENED = """
(() => {
  const shown = document.getElementById('waterfall');
  return {
    trace: shown.dataset.trace,
    spans: [...shown.querySelectorAll('.span')].map((span) => span.dataset.span).sort(),
    wide: [...shown.querySelectorAll('.span .track i')].every((bar) => bar.getBoundingClientRect().width >= 2),
    logs: shown.querySelectorAll('.log').length,
    text: shown.innerText,
  };
})()
"""


class Demo:
    """The demo as a process, its page and what it says to be true."""

    def __init__(self, process: asyncio.subprocess.Process, page: str, file: Path) -> None:
        self._process, self.page, self._file = process, page, file

    async def truth(self) -> dict[str, Any]:
        """Once everything that was sent has arrived."""

        async def told() -> dict[str, Any] | None:
            if self._process.returncode is not None:
                raise AssertionError((await self._process.communicate())[1].decode())
            if not await asyncio.to_thread(self._file.exists):
                return None
            with contextlib.suppress(json.JSONDecodeError):  # being written
                found: dict[str, Any] = json.loads(await asyncio.to_thread(self._file.read_text))
                return found
            return None

        found = await eventually(told, DEADLINE_SECONDS, "the demo has drained")
        assert found is not None
        assert found["violations"] == []
        return found


@contextlib.asynccontextmanager
async def running_demo(folder: Path) -> AsyncIterator[Demo]:
    file = folder / "truth.json"
    process = await begun(folder, "tests.end_to_end.told_demo", str(file), "--seconds", "14", "--seed", "7", "--json")
    assert process.stderr is not None
    assert process.stdin is not None
    try:
        while True:
            line = (await asyncio.wait_for(process.stderr.readline(), DEADLINE_SECONDS)).decode()
            assert line, "it ended without saying where its page is"
            if found := re.search(r"live page: (http://127\.0\.0\.1:\d+/live)$", line.strip()):
                break
        yield Demo(process, found[1], file)
        process.stdin.close()
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert process.returncode == 0, err.decode()
        assert json.loads(out)["broken_traces"] == 0
    finally:
        if process.returncode is None:
            process.kill()


async def rows(tab: Tab, selector: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = await tab.ask(ROWS % selector)
    return found


async def total(tab: Tab, name: str) -> float:
    return float(await tab.ask(f"document.getElementById('total-{name}').dataset.value"))


async def test_the_page_shows_what_is_true(chromium: Chromium, tmp_path: Path) -> None:
    async with running_demo(tmp_path) as demo, chromium.tab(demo.page, *WIDTH) as tab:

        async def flowing() -> bool:
            """The graph while the traffic flows: every role ready, every arrow moving."""
            roles = await rows(tab, "#graph .role.ready")
            moving = await tab.ask("document.querySelectorAll('#graph path.flows').length")
            arrows = await tab.ask("document.querySelectorAll('#graph path.flow').length")
            return len(roles) == ROLES and int(moving) == int(arrows) >= ROLES

        await eventually(flowing, DEADLINE_SECONDS, "all roles are ready and data flow on every arrow")
        graph = {row["node"]: row["text"] for row in await rows(tab, "#graph .node")}
        assert re.search(r"spans\s*[1-9][\d.]*/s", graph["ingest"])
        assert re.search(r"unread\s*\d", graph["sample"])
        assert re.search(r"behind\s*[\d.]+ s", graph["sample"])
        assert re.search(r"[\d.]+/s", graph["tailrace.kept.spans"])
        assert {"sink.jaeger", "sink.elasticsearch", "sink.prometheus", "otlp_spans"} <= set(graph)

        truth = await demo.truth()
        figures = truth["figures"]

        async def settled() -> bool:
            decided: bool = await total(tab, "decided") == figures["traces_seen"]
            return decided and await total(tab, "kept") == sum(truth["policies"].values())

        await eventually(settled, DEADLINE_SECONDS, "the page has heard of the last trace")
        assert await total(tab, "spans") == figures["spans_in"]
        assert await total(tab, "kept") == figures["traces_kept"]
        assert await total(tab, "logs") == figures["logs_in"]
        assert await total(tab, "dead") == figures["dlq"] > 0
        await check_tables(tab, truth)
        await check_traces(tab, truth)
        await check_sizes(tab, tmp_path)


async def check_tables(tab: Tab, truth: dict[str, Any]) -> None:
    figures = truth["figures"]
    kept = {row["policy"]: int(row["value"]) for row in await rows(tab, "#policies tbody tr")}
    assert list(kept) == ["errors", "error-logs", "slow", "half-of-gold", "baseline"]
    assert {name: count for name, count in kept.items() if count} == truth["policies"]
    drops = await rows(tab, "#drops tbody tr")
    (spans,) = [row for row in drops if "not_sampled" in row["text"]]
    assert int(spans["value"]) == figures["spans_in"] - figures["spans_kept"]
    (letters,) = [row for row in drops if "dead letter of ingest" in row["text"]]
    assert int(letters["value"]) == figures["dlq"]
    services = await rows(tab, "#red tbody tr")
    assert {row["service"]: int(row["value"]) for row in services} == truth["calls"]
    assert {row["service"]: int(row["failed"]) for row in services} == truth["failed"]
    assert await tab.ask("document.querySelectorAll('#red polyline').length") >= len(services)
    await tab.ask("document.getElementById('more-limits').click()")
    limits = {(row["metric"], row["label"]): row for row in await rows(tab, "#limits tbody tr")}
    assert {f"{metric}/{label}": int(row["value"]) for (metric, label), row in limits.items() if label} == truth[
        "values"
    ]
    budgets = {metric: row for (metric, label), row in limits.items() if not label}
    assert {metric: int(row["folded"]) for metric, row in budgets.items()} == truth["folded"]
    assert sum(int(row["value"]) for row in budgets.values()) <= figures["series_active"] <= figures["series_budget"]


async def check_traces(tab: Tab, truth: dict[str, Any]) -> None:
    listed = await rows(tab, "#traces li")
    with_logs = [row["trace"] for row in listed if "log" in row["text"].splitlines()[-1]]
    assert with_logs
    for trace_id in dict.fromkeys(
        [*with_logs[: TRACES_OPENED // 2], *(row["trace"] for row in listed[:TRACES_OPENED])]
    ):
        await tab.ask(f"document.querySelector('[data-trace=\"{trace_id}\"] button').click()")

        async def opened(wanted: str = trace_id) -> dict[str, Any] | None:
            found: dict[str, Any] = await tab.ask(OPENED)
            return found if found["trace"] == wanted else None

        shown = await eventually(opened, DEADLINE_SECONDS, f"the waterfall of {trace_id}")
        assert shown is not None
        assert shown["spans"] == truth["spans"][trace_id]
        assert shown["logs"] == truth["logs"].get(trace_id, 0)
        assert shown["wide"]
        assert "parts are not here" not in shown["text"]


async def check_sizes(tab: Tab, folder: Path) -> None:
    """Nothing is cut off at the side, on a laptop and on a telephone; a picture can be looked at."""
    for width, height in (WIDTH, PHONE):
        await tab.resize(width, height)

        async def fits(width: int = width) -> bool:
            inner, needed = await tab.ask("[innerWidth, document.documentElement.scrollWidth]")
            return bool(inner == width >= needed)

        await eventually(fits, DEADLINE_SECONDS, f"the page fits into {width} pixels")
        picture = await tab.picture(whole=True)
        assert picture.startswith(PNG)
        await asyncio.to_thread((folder / f"live-{width}.png").write_bytes, picture)
    print(f"pictures are in {folder}", file=sys.stderr)
