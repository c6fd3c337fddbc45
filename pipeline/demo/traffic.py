"""Seeded traffic of the shop: which message reaches Kafka when, and what it truly holds.

Pure generation: `Traffic(...).messages()` yields messages in the order of their arrival on a virtual clock that starts
at 0. Whoever produces them waits for their time (the demo) or not (tests), and may stamp them as it likes.

Spans leave a process when its exporter's interval ends, so the spans of one trace come in several messages, on
several partitions, children before parents, and some out of order. A few come after their trace was decided; those
carry no error. Everything that says "error" arrives within `EVIDENCE_SECONDS` of its trace's start.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.demo import encoding, shop
from pipeline.demo.facts import ERROR, UID, LogFact, Message, SpanFact
from pipeline.demo.journey import LONGEST_SECONDS, Journey

EXPORT_SECONDS = 0.2
NETWORK_SECONDS = 0.08
EVIDENCE_SECONDS = LONGEST_SECONDS + EXPORT_SECONDS + NETWORK_SECONDS
"""The longest time from a trace's start to the arrival of its last error. `decision_wait` must be longer."""

OUT_OF_ORDER_SHARE = 0.02
OUT_OF_ORDER_SECONDS = 0.5
LATE_SHARE = 0.006
LATE_SECONDS = (0.5, 1.5)
"""How long after the decision a late span comes."""

CHORES_PER_SECOND = 4.0
BROKEN_EVERY_SECONDS = 6.0
MESSAGE_ROWS = 500
"""Exporters split larger batches."""

AGENTS = {service: f"agent-{n % 2}" for n, service in enumerate(("cart", "inventory", "catalog", "recommendation"))}
"""Services that send through an agent on their host, so that one message holds several services."""

_JSON, _LOGS, _SPANS = "json", "logs", "spans"


@dataclass(frozen=True, slots=True)
class RawTopics:
    """The raw topics and how many partitions each has."""

    spans: str = "otlp_spans"
    logs: str = "otlp_logs"
    json: str = "app_logs"
    partitions: int = 4


@dataclass(slots=True)
class Traffic:
    """What happens in the shop in `seconds`, at about `rate` spans per second.

    `epoch_ns` is the wall clock (Unix, ns) at virtual time 0. `decision_wait` (seconds) tells when a span is late.
    The same arguments give the same bytes.
    """

    seed: int
    rate: float
    seconds: float
    epoch_ns: int
    decision_wait: float
    topics: RawTopics = field(default_factory=RawTopics)
    _rng: random.Random = field(init=False, repr=False)
    _queue: list[tuple[float, int, tuple[str, str, int]]] = field(init=False, repr=False)
    _pushed: int = field(init=False, repr=False, default=0)
    _batches: dict[tuple[str, str, int], list[SpanFact] | list[LogFact]] = field(init=False, repr=False)
    _phases: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.decision_wait <= EVIDENCE_SECONDS:
            raise ValueError(f"decision_wait must be longer than {EVIDENCE_SECONDS:g} s, or errors come too late")
        self._rng = random.Random(self.seed)
        self._queue, self._batches, self._phases = [], {}, {}

    def messages(self) -> Iterator[Message]:
        """Every message in the order of arrival. Call it once."""
        rng = self._rng
        number, chores, broken = 0, 0, 0
        request_at, chore_at = 0.0, rng.expovariate(CHORES_PER_SECOND)
        broken_at = BROKEN_EVERY_SECONDS / 2
        while True:
            begins = min(request_at, chore_at)
            # Nothing that begins later can arrive earlier.
            if begins < self.seconds and (not self._queue or begins <= self._queue[0][0]):
                if chore_at < request_at:
                    self._log(self._chore(chores, chore_at), chore_at)
                    chores += 1
                    chore_at += rng.expovariate(CHORES_PER_SECOND)
                else:
                    spans = self._request(number, request_at)
                    number += 1
                    request_at += rng.expovariate(self.rate / spans)
            elif self._queue:
                at, _, key = heapq.heappop(self._queue)
                yield from self._encoded(at, key[0], self._batches.pop(key))
                if at >= broken_at:
                    yield self._broken(at, broken)
                    broken += 1
                    broken_at += BROKEN_EVERY_SECONDS
            else:
                return

    def _request(self, number: int, at: float) -> int:
        """One trace that starts at `at`; returns its number of spans."""
        rng = self._rng
        start_ns = self.epoch_ns + int(at * 1e9)
        trace = Journey(rng, number, f"{self.seed:x}", start_ns).run()
        decided_by = at + LONGEST_SECONDS + EXPORT_SECONDS + NETWORK_SECONDS + self.decision_wait
        for span in trace.spans:
            ended = (span.end_ns - self.epoch_ns) / 1e9
            if span.status != ERROR and len(trace.spans) > 1 and rng.random() < LATE_SHARE:
                late = decided_by + rng.uniform(*LATE_SECONDS)
                # The traffic ends in time: the last traces have no late spans.
                ended = late if late < self.seconds else ended
            elif span.status != ERROR and rng.random() < OUT_OF_ORDER_SHARE:
                ended += rng.uniform(0, OUT_OF_ORDER_SECONDS)
            self._batch(_SPANS, AGENTS.get(span.service, span.service), ended).append(span)  # type: ignore[arg-type]
        for log in trace.logs:
            self._log(log, (log.time_ns - self.epoch_ns) / 1e9)
        return len(trace.spans)

    def _chore(self, number: int, at: float) -> LogFact:
        service, severity, body = self._rng.choice(shop.CHORES)
        uid = f"{self.seed:x}-chore-{number}"
        return LogFact(uid, service, self.epoch_ns + int(at * 1e9), severity, body, attributes={UID: uid})

    def _log(self, log: LogFact, at: float) -> None:
        signal = _JSON if log.service in encoding.JSON_SERVICES else _LOGS
        self._batch(signal, log.service, at).append(log)  # type: ignore[arg-type]

    def _batch(self, signal: str, sender: str, ready: float) -> list[SpanFact] | list[LogFact]:
        """The batch that `sender` closes next after `ready`; it is queued when its first fact comes."""
        if sender not in self._phases:
            self._phases[sender] = self._rng.uniform(0, EXPORT_SECONDS)
        turn = int((ready - self._phases[sender]) // EXPORT_SECONDS) + 1
        key = (signal, sender, turn)
        if key not in self._batches:
            self._batches[key] = []
            self._pushed += 1
            at = self._phases[sender] + turn * EXPORT_SECONDS + self._rng.uniform(0, NETWORK_SECONDS)
            heapq.heappush(self._queue, (at, self._pushed, key))
        return self._batches[key]

    def _encoded(self, at: float, signal: str, facts: list[SpanFact] | list[LogFact]) -> Iterator[Message]:
        for first in range(0, len(facts), MESSAGE_ROWS):
            rows = facts[first : first + MESSAGE_ROWS]
            partition = self._rng.randrange(self.topics.partitions)
            if signal == _SPANS:
                spans: list[SpanFact] = rows  # type: ignore[assignment]
                yield Message(at, self.topics.spans, partition, encoding.traces_data(spans), spans=tuple(spans))
                continue
            logs: list[LogFact] = rows  # type: ignore[assignment]
            if signal == _LOGS:
                yield Message(at, self.topics.logs, partition, encoding.logs_data(logs), logs=tuple(logs))
            else:
                yield Message(at, self.topics.json, partition, encoding.json_lines(logs), logs=tuple(logs))

    def _broken(self, at: float, number: int) -> Message:
        """Something that some producer gets wrong: bytes cut off, text among protobuf, a JSON line without its end."""
        partition = self._rng.randrange(self.topics.partitions)
        if number % 2:
            return Message(at, self.topics.json, partition, b'{"level":"ERROR","message":"cut o', dead_letters=1)
        # A ResourceSpans that claims 100 bytes more than there are.
        return Message(at, self.topics.spans, partition, b"\x0a\x7f" + bytes(27), dead_letters=1)
