"""What a log in JSON costs `ingest` to read: µs of process CPU. `python -m bench.micro.json_logs`

Lines of eleven fields as a logger writes them, of which seven have a meaning (time, severity, body, trace, span,
service, logger) and four stay attributes; beside them what the JSON parser alone takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import orjson

from schemas.formats.json_logs import parse

LINES, ROUNDS = 5000, 15


def line(number: int) -> bytes:
    """One log."""
    fields = {
        "@timestamp": "2026-11-26T08:00:00.123Z",
        "level": "INFO",
        "message": f"GET /cart 200 {number}",
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{number + 1:016x}",
        "service.name": "cart",
        "logger": "app.http",
        "http.route": "/cart",
        "http.status": 200,
        "duration_ms": 12.5,
        "host": "h-1",
    }
    return json.dumps(fields).encode()


def fastest(read: Callable[[bytes], Any], lines: list[bytes]) -> float:
    """µs a line of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for one in lines:
            read(one)
        times.append(time.process_time() - began)
    return min(times) / len(lines) * 1e6


def main() -> None:
    """Measure and print."""
    lines = [line(number) for number in range(LINES)]
    whole, parser = fastest(parse, lines), fastest(orjson.loads, lines)
    print(f"µs a log of {len(lines[0])} bytes: {whole:.1f}, orjson alone {parser:.1f}")


if __name__ == "__main__":
    main()
