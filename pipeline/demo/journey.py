"""One request on its way through the shop: an Operation becomes the facts of a trace.

Pure: a seeded random generator and the start go in, facts come out. A trace never takes longer than
`LONGEST_SECONDS`, so that whoever waits for it knows how long.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from enum import Enum
from math import exp

from pipeline.demo import shop
from pipeline.demo.facts import (
    CLIENT,
    CONSUMER,
    ERROR,
    OK,
    PRODUCER,
    SERVER,
    UID,
    UNSET,
    LogFact,
    SpanFact,
    TraceFacts,
    Value,
)  # fmt: skip

LONGEST_SECONDS = 1.2
SLOW_MS = (850, 1000)
QUEUE_MS = (80, 300)
NS_PER_MS = 1_000_000
_CALLERS = {SERVER: CLIENT, CONSUMER: PRODUCER}  # the other end of a span between services


class Fault(Enum):
    """What goes wrong in a trace, at one of its operations."""

    NONE = "none"
    SLOW = "slow"
    FAIL = "fail"
    RETRY = "retry"  # the first attempt fails, the second succeeds
    QUIET = "quiet"  # only a log tells


FAULTS: dict[Fault, float] = {Fault.NONE: 88, Fault.SLOW: 4, Fault.FAIL: 4, Fault.RETRY: 2, Fault.QUIET: 2}
"""Per cent of traces. Some faults aim at a step that is then left out, so fewer happen."""


@dataclass(slots=True)
class Journey:
    """A trace in the making. `run` is called once."""

    rng: random.Random
    number: int
    run_id: str
    start_ns: int
    trace_id: bytes = b""
    spans: list[SpanFact] = field(default_factory=list)
    logs: list[LogFact] = field(default_factory=list)
    customer: dict[str, Value] = field(default_factory=dict)
    fault: Fault = Fault.NONE
    countdown: int = 0

    def run(self) -> TraceFacts:
        """Let one random request happen."""
        rng = self.rng
        weights, entrances = zip(*shop.ENTRANCES, strict=True)
        entrance = rng.choices(entrances, weights)[0]
        self.trace_id = _identifier(rng, 16)
        self.customer = {
            shop.CUSTOMER: f"c-{rng.getrandbits(40):010x}",
            shop.TIER: rng.choices(("basic", "silver", "gold"), (80, 15, 5))[0],
        }
        self.fault = rng.choices(list(FAULTS), list(FAULTS.values()))[0]
        self.countdown = rng.randint(1, _size(entrance))
        self._operation(entrance, b"", 0.0)
        return self._fitted()

    def _operation(self, operation: shop.Operation, parent: bytes, begin: float) -> tuple[float, int]:
        """The operation's span and all below it; `begin` in ms after the trace's start. Returns its end and status."""
        rng = self.rng
        span_id = _identifier(rng, 8)
        self.countdown -= 1
        fault = self.fault if self.countdown == 0 else Fault.NONE
        own = operation.ms * exp(rng.gauss(0, 0.35))
        if fault is Fault.SLOW:
            own += rng.uniform(*SLOW_MS)
        now, last, failed = begin + own / 2, begin + own / 2, fault is Fault.FAIL
        for step in operation.steps:
            if rng.random() >= step.share:
                continue
            at = last if step.beside else now
            last = at
            end, status = self._step(operation, step, span_id, at)
            now = max(now, end)
            failed = failed or (status == ERROR and rng.random() < 0.6)
        end = now + own / 2
        status = ERROR if failed else OK if operation.service in shop.EXPLICIT_OK else UNSET
        self._span(operation.service, operation.name, operation.kind, status, span_id, parent, begin, end, operation)
        self._write(operation, fault, status, span_id, begin, end)
        return end, status

    def _step(self, caller: shop.Operation, step: shop.Step, parent: bytes, at: float) -> tuple[float, int]:
        """A step of `caller`: the operation itself, with the caller's own span around or before it."""
        rng, operation = self.rng, step.operation
        retried = self.fault is Fault.RETRY and self.countdown == 1
        if retried:
            failed_at = at + operation.ms * rng.uniform(0.5, 1.0)
            kind = _CALLERS.get(operation.kind, operation.kind)
            attempt = _identifier(rng, 8)
            self._span(caller.service, operation.name, kind, ERROR, attempt, parent, at, failed_at, operation)
            self._log(caller, "WARN", f"{operation.name} failed, trying again", parent, failed_at)
            at = failed_at + rng.uniform(5, 20)
        if step.how == "local":
            return self._operation(operation, parent, at)
        outer = _identifier(rng, 8)
        if step.how == "publish":
            sent = at + rng.uniform(1, 3)
            name = f"publish {operation.name.split()[-1]}"
            self._span(caller.service, name, PRODUCER, UNSET, outer, parent, at, sent, operation)
            self._operation(operation, outer, sent + rng.uniform(*QUEUE_MS))
            return sent, UNSET
        network = rng.uniform(0.2, 1.5)
        end, status = self._operation(operation, outer, at + network)
        end, status = end + network, ERROR if status == ERROR else UNSET
        self._span(caller.service, operation.name, CLIENT, status, outer, parent, at, end, operation)
        return end, status

    def _span(
        self, service: str, name: str, kind: int, status: int, span_id: bytes, parent: bytes,
        begin: float, end: float, operation: shop.Operation,
    ) -> None:  # fmt: skip
        attributes = dict(operation.attributes)
        if operation.customer:
            attributes |= self.customer
        if "http.request.method" in attributes:
            attributes["http.response.status_code"] = 503 if status == ERROR else 200
        start_ns = self.start_ns + int(begin * NS_PER_MS)
        end_ns = self.start_ns + int(end * NS_PER_MS)
        exception = f"{name} is not available" if status == ERROR else ""
        self.spans.append(
            SpanFact(
                self.trace_id, span_id, parent, service, name, kind, status, start_ns, end_ns, attributes, exception
            )
        )

    def _write(
        self, operation: shop.Operation, fault: Fault, status: int, span_id: bytes, begin: float, end: float
    ) -> None:
        """The logs of an operation."""
        if fault is Fault.QUIET:
            self._log(operation, "ERROR", f"{operation.name}: inconsistent data, went on with defaults", span_id, end)
        elif fault is Fault.SLOW:
            self._log(operation, "WARN", f"{operation.name} took {end - begin:.0f} ms", span_id, end)
        elif status == ERROR:
            if self.rng.random() < 0.7:
                self._log(operation, "ERROR", f"{operation.name} failed", span_id, end)
        elif operation.kind == SERVER and self.rng.random() < 0.3:
            self._log(operation, "INFO", f"{operation.name} served", span_id, end)

    def _log(self, operation: shop.Operation, severity: str, body: str, span_id: bytes, at: float) -> None:
        uid = f"{self.run_id}-{self.number}-{len(self.logs)}"
        time_ns = self.start_ns + int(at * NS_PER_MS)
        attributes: dict[str, Value] = {UID: uid, "code.function.name": operation.name}
        self.logs.append(LogFact(uid, operation.service, time_ns, severity, body, self.trace_id, span_id, attributes))

    def _fitted(self) -> TraceFacts:
        """All facts in the order of their ends, squeezed into LONGEST_SECONDS if they took longer."""
        took = max(span.end_ns for span in self.spans) - self.start_ns
        scale = min(1.0, LONGEST_SECONDS * 1e9 / max(took, 1))

        def fit(time_ns: int) -> int:
            return self.start_ns + int((time_ns - self.start_ns) * scale)

        spans = [replace(span, start_ns=fit(span.start_ns), end_ns=fit(span.end_ns)) for span in self.spans]
        spans.sort(key=lambda span: span.end_ns)
        logs = [replace(log, time_ns=fit(log.time_ns)) for log in self.logs]
        return TraceFacts(tuple(spans), tuple(sorted(logs, key=lambda log: log.time_ns)))


def _identifier(rng: random.Random, size: int) -> bytes:
    return (rng.getrandbits(8 * size) or 1).to_bytes(size, "big")


def _size(operation: shop.Operation) -> int:
    """How many operations a request has if no step is left out."""
    return 1 + sum(_size(step.operation) for step in operation.steps)
