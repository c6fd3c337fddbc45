"""`tailrace demo` that tells what is true before it ends: `python -m tests.end_to_end.told_demo FILE [ARGUMENT ...]`.

When everything has arrived it writes the truth to FILE as JSON, and goes on once its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from pipeline.demo import command
from pipeline.demo.facts import CONSUMER, ERROR, SERVER
from pipeline.demo.ledger import OVERFLOW, Audit
from pipeline.demo.run import Run


def truth(run: Run, audit: Audit) -> dict[str, object]:
    """What was sent and what arrived: label values and folded calls as the destination of the metrics has them."""
    calls: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for (service, _, kind, status), count in run.ledger.counts.items():
        if kind in (SERVER, CONSUMER):
            calls[service] += count
            failed[service] += count * (status == ERROR)
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    folded: Counter[str] = Counter()
    for series, value in run.latest.series.items():
        labels = dict(series)
        metric = labels.pop("__name__")
        if metric.endswith(("_calls_total", "_count")):
            folded[metric.removesuffix("_count")] += round(value) * (OVERFLOW in labels.values())
            for label, each in labels.items():
                if each != OVERFLOW:
                    values[metric.removesuffix("_count"), label].add(each)
    logs: Counter[str] = Counter(log.trace_id.hex() for log in run.ledger.logs.values() if log.trace_id)
    return {
        "figures": audit.figures._asdict(),
        "violations": audit.violations,
        "policies": Counter(run.latest.policies.values()),
        "calls": calls,
        "failed": failed,
        "spans": {trace_id.hex(): sorted(span.hex() for span in t.spans) for trace_id, t in run.ledger.traces.items()},
        "logs": logs,
        "values": {"/".join(key): len(found) for key, found in values.items()},
        "folded": folded,
    }


def main() -> None:
    """Run the demo with the arguments behind FILE."""
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    drain = Run.drain

    async def told(run: Run) -> Audit:
        audit = await drain(run)
        text = json.dumps(truth(run, audit))
        await asyncio.to_thread(file.write_text, text)
        await asyncio.to_thread(sys.stdin.read)
        return audit

    Run.drain = told  # type: ignore[method-assign, assignment]
    command.main(args=arguments, prog_name="tailrace demo")


if __name__ == "__main__":
    main()
