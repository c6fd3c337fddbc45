"""Configurations and traces for the comparison with the Collector, drawn from a seed: half of the values at an edge.

Every type of policy has its turn as the first of a configuration; others stand beside it and inside of it. Values of
attributes are drawn around what the policies ask for: equal to it, next to it, empty, missing, or of another type. Left
out is only what docs/how-to/run-beside-your-collector.md names as different by design: limits that run short (theirs go
by the wall clock), timestamps of 0, arrays and maps, and upper latency bounds that a partial trace would meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

SEED = 5
CONFIGS = 425
TRACES = 24
NOON = 1_800_000_000_000_000_000  # ns
MS = 1_000_000
PLENTY = 1_000_000_000  # a second: a limit that never runs short
Block = dict[str, Any]
Value = str | bool | int | float | None

SIMPLE = (
    "latency", "numeric_attribute", "probabilistic", "status_code", "string_attribute", "boolean_attribute",
    "trace_state", "trace_flags", "span_count", "ottl_condition",
)  # fmt: skip
TYPES = (*SIMPLE, "always_sample", "rate_limiting", "bytes_limiting", "and", "not", "drop", "composite")
"""All that the Collector 0.155 has."""
TEXTS = ("checkout", "/api/v1/cart", "grpc.health.v1.HealthCheck", "ERROR", "503", "v")
PATTERNS = ("^/api/v[0-9]+/", "v[0-9]+.HealthCheck$", "(?i)error", "^v?$", "check", "^50[0-9]$")
STATES = ("k=a", "k=b,vendor=1", "vendor=1,k=a", "k=", "K=a", "k=a,k=b", "k=c", "ot=th:8;rv:00000000000001,k=b", "")
ODD: tuple[Value, ...] = ("", None, 0, -1, 503.0, "503", True, False, 0.5)


@dataclass
class Case:
    """One configuration; its traces as messages of their own, whose ids say (case, trace)."""

    number: int
    policies: list[Block]
    traces: list[TracesData] = field(default_factory=list)
    values: Counter[str] = field(default_factory=Counter)  # of attributes, `edge` and `ordinary`


@dataclass
class _Draw:
    """What is drawn for one case; `edges` are the values that matter, by key, `bounds` the durations (ns).

    `event_edges` are those of events, which spans have if a policy asks for them.
    """

    random: Random
    edges: dict[str, list[Value]] = field(default_factory=dict)
    event_edges: dict[str, list[Value]] = field(default_factory=dict)
    bounds: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    whole_first: bool = False
    texts: bool = False  # whether conditions are also about statuses' messages and about scopes, which spans then have

    def key(self, *values: Value) -> str:
        key = self.random.choice(("k", "n", "http.route"))
        self.edges.setdefault(key, list(ODD)).extend(values)
        return key

    def policy(self, kind: str, name: str) -> Block:
        return {"name": name, "type": kind, **({kind: block} if (block := self.block(kind, name)) else {})}

    def block(self, kind: str, name: str) -> Block:
        choose = self.random.choice
        match kind:
            case "latency":
                return self.latency()
            case "numeric_attribute":
                low, width = choose((-5, 0, 1, 400, 500)), choose((0, 1, 99))
                high = low + width
                key = self.key(low, high, low - 1, high + 1, float(low), str(low))
                bounds = choose(({"min_value": low, "max_value": high}, {"min_value": low}, {"max_value": high}))
                if not any(bounds.values()):  # none for the Collector, which starts and panics at the first decision
                    bounds["max_value"] = 9
                return {"key": key, **bounds, **self.inverted()}
            case "probabilistic":
                salt = choose(({}, {"hash_salt": ""}, {"hash_salt": "salt"}))
                return {"sampling_percentage": choose((0, 0.1, 10, 33.3, 50, 90, 99.99, 100, 150, -5)), **salt}
            case "status_code":
                return {"status_codes": self.random.sample(["OK", "ERROR", "UNSET"], choose((1, 1, 2)))}
            case "string_attribute":
                return self.text()
            case "boolean_attribute":
                return {"key": self.key(True, False, "true", 1), "value": choose((True, False)), **self.inverted()}
            case "trace_state":
                return {"key": choose(("k", "vendor")), "values": self.random.sample(["a", "b", "1", ""], 2)}
            case "span_count":
                low = choose((0, 1, 2, 3))
                self.counts += [low - 1, low, low + 1]
                return {"min_spans": low, "max_spans": choose((0, low, low + 1)) if low else choose((0, 2))}
            case "ottl_condition":
                about = choose((("span",), ("spanevent",), ("span", "spanevent")))
                asked = {each: [self.condition(2, each) for _ in range(choose((1, 1, 2)))] for each in about}
                return {"error_mode": "silent", **asked}
            case "rate_limiting":
                burst = choose((1, 2, 3))
                self.counts += [burst - 1, burst, burst + 1]
                return {"spans_per_second": PLENTY, "burst_capacity": burst}
            case "bytes_limiting":
                return {"bytes_per_second": PLENTY, "burst_capacity": choose((1, PLENTY))}
            case "and" | "drop":
                kinds = [choose((*SIMPLE, "not")) for _ in range(choose((1, 2)))]
                return {f"{kind}_sub_policy": [self.policy(one, f"{name}-{i}") for i, one in enumerate(kinds)]}
            case "not":
                return {"not_sub_policy": self.policy(choose(SIMPLE), f"{name}-0")}
            case "composite":
                return self.composite(name)
        return {}

    def inverted(self) -> Block:
        return {"invert_match": True} if self.random.random() < 0.3 else {}

    def latency(self) -> Block:
        low = self.random.choice((0, 1, 5, 100))
        high = self.random.choice((0, 0, low + 1, low + 50))
        self.bounds += [at * MS + off for at in {low, high} for off in (0, -1, 1, MS, MS - 1)]
        self.whole_first |= high > 0
        return {"threshold_ms": low, **({"upper_threshold_ms": high} if high else {})}

    def text(self) -> Block:
        searched = self.random.random() < 0.5
        values = self.random.sample(PATTERNS if searched else TEXTS, self.random.choice((1, 2)))
        near = [change for text in TEXTS for change in (text, text.upper(), f"{text} ", text[:-1])]
        key = self.key(*(near if searched else [v for text in values for v in (text, text.upper(), f" {text}")]))
        if self.random.random() < 0.2:
            values.append("")
        return {"key": key, "values": values, "enabled_regex_matching": searched, **self.inverted()}

    def composite(self, name: str) -> Block:
        choose = self.random.choice
        names = [f"{name}-{i}" for i in range(choose((1, 2, 3)))]
        shares = [{"policy": one, "percent": choose((0, 1, 50, 100))} for one in names if self.random.random() < 0.8]
        return {
            "max_total_spans_per_second": PLENTY,
            "policy_order": self.random.sample(names, len(names)),
            "composite_sub_policy": [self.policy(choose((*SIMPLE, "always_sample", "and")), one) for one in names],
            "rate_allocation": shares,
        }

    def condition(self, depth: int, about: str) -> str:
        choose = self.random.choice
        if depth and self.random.random() < 0.5:
            left, right = self.condition(depth - 1, about), self.condition(depth - 1, about)
            return choose((f"({left} and {right})", f"({left} or {right})", f"not ({left})"))
        if self.texts and self.random.random() < 0.5:
            return self.of_text("" if about == "span" and self.random.random() < 0.5 else "span.")
        if about == "spanevent" and self.random.random() < 0.8:
            return self.of_event()
        equal, order = choose(("==", "!=")), choose(("<", "<=", ">", ">=", "==", "!="))
        number, text, pattern = choose((0, 1, 503, -1, 0.5)), choose(TEXTS), choose(PATTERNS)
        at = choose((0, MS, 5 * MS))
        self.bounds += [at - 1, at, at + 1]
        span = choose(("", "span.")) if about == "span" else "span."
        mine = f'{span}attributes["{self.key(number, text, str(number))}"]'
        theirs = f'resource.attributes["{self.key(text)}"]'
        return choose(
            (
                f'{mine} {equal} "{text}"', f'{theirs} {equal} "{text}"', f"{mine} {order} {number}",
                f'{mine} {order} "{text}"', f"{mine} {equal} nil", f"{theirs} {equal} nil",
                f"{mine} {equal} {choose(('true', 'false'))}", f'IsMatch({mine}, "{pattern}")',
                f'IsMatch({theirs}, "{pattern}")', f'IsMatch({span}name, "{pattern}")', f'{span}name {equal} "{text}"',
                f"{span}kind {equal} SPAN_KIND_{choose(('SERVER', 'CLIENT', 'UNSPECIFIED'))}",
                f'{span}kind.string {equal} "{choose(("Server", "Internal"))}"',
                f"{span}status.code {equal} STATUS_CODE_{choose(('OK', 'ERROR', 'UNSET'))}",
                "IsRootSpan()" if about == "span" else f"{mine} {order} {number}",
                f"{span}end_time_unix_nano - {span}start_time_unix_nano {order} {at}",
                f'{span}end_time - {span}start_time {order} Duration("{at // MS}ms")',
                f"({span}end_time_unix_nano - {span}start_time_unix_nano) {order} {at}", f"IsString({mine})",
                f'HasPrefix({mine}, "{text[:2]}")', f'HasSuffix({mine}, "{text[-2:]}")',
                f'HasPrefix({span}name, "{text[:2]}")', f"Int({mine}) {order} {number}", f"Int({mine}) {equal} nil",
                f"Double({mine}) {order} {number}", f"Double({mine}) {equal} nil",
            )
        )  # fmt: skip

    def of_text(self, span: str) -> str:
        choose = self.random.choice
        scope = choose(("instrumentation_scope", "scope"))
        field, text = choose((f"{span}status.message", f"{scope}.name", f"{scope}.version")), choose((*TEXTS, ""))
        return choose(
            (
                f'{field} {choose(("==", "!=", "<", ">="))} "{text}"', f'IsMatch({field}, "{choose(PATTERNS)}")',
                f'HasPrefix({field}, "{text[:2]}")', f'HasSuffix({field}, "{text[-2:]}")', f"IsString({field})",
            )
        )  # fmt: skip

    def of_event(self) -> str:
        choose, own = self.random.choice, self.random.choice(("", "spanevent."))
        equal, order = choose(("==", "!=")), choose(("<", "<=", ">", ">=", "==", "!="))
        number, text, pattern = choose((0, 1, 503, -1, 0.5)), choose(TEXTS), choose(PATTERNS)
        key = choose(("k", "exception.type"))
        self.event_edges.setdefault(key, list(ODD)).extend((number, text))
        mine = f'{own}attributes["{key}"]'
        return choose(
            (
                f'{mine} {equal} "{text}"', f"{mine} {order} {number}", f'{mine} {order} "{text}"',
                f"{mine} {equal} nil", f"{mine} {equal} {choose(('true', 'false'))}", f'IsMatch({mine}, "{pattern}")',
                f'{own}name {equal} "{text}"', f'{own}name {equal} ""', f'IsMatch({own}name, "{pattern}")',
            )
        )  # fmt: skip

    def trace(self, case: Case, number: int) -> TracesData:
        count = self.random.choice([n for n in (*self.counts, 1, 2, 4) if 1 <= n <= 6])
        trace_id = self.random.randbytes(12) + case.number.to_bytes(2, "big") + number.to_bytes(2, "big")
        length = max(0, self.random.choice([*self.bounds, self.random.randrange(200 * MS)]))
        spans: list[ResourceSpans] = []
        for place in range(count):
            begin = end = 0
            if place and length:
                begin, end = sorted(self.random.randrange(length + 1) for _ in range(2))
            if place == 0 and (self.whole_first or count == 1):
                end = length
            elif place == 1 and not self.whole_first:
                end = length  # the trace is longer than each of its spans
            span = Span(
                trace_id=trace_id, span_id=self.random.randbytes(8), parent_span_id=b"" if not place else b"\x01" * 8,
                name=self.random.choice((*TEXTS, "")), kind=self.random.randrange(6),  # type: ignore[arg-type]
                start_time_unix_nano=NOON + begin, end_time_unix_nano=NOON + end,
                flags=self.random.choice((0, 0, 1, 2, 0x101)), trace_state=self.random.choice(("", *STATES)),
                attributes=self.attributes(case, self.edges), events=self.events(case),
            )  # fmt: skip
            span.status.code = self.random.choice((0, 0, 0, 1, 2))  # type: ignore[assignment]
            if self.texts:
                span.status.message = self.random.choice((*TEXTS, ""))
            if not spans or self.random.random() < 0.6:
                spans.append(ResourceSpans(scope_spans=[ScopeSpans()]))
                if self.texts:
                    name, version = self.random.choices((*TEXTS, ""), k=2)
                    spans[-1].scope_spans[0].scope.CopyFrom(InstrumentationScope(name=name, version=version))
                spans[-1].resource.attributes.extend(self.attributes(case, self.edges))
            spans[-1].scope_spans[0].spans.append(span)
        return TracesData(resource_spans=spans)

    def events(self, case: Case) -> list[Span.Event]:
        count = self.random.choice((0, 1, 1, 2)) if self.event_edges else 0
        return [
            Span.Event(name=self.random.choice((*TEXTS, "")), attributes=self.attributes(case, self.event_edges))
            for _ in range(count)
        ]

    def attributes(self, case: Case, by_key: dict[str, list[Value]]) -> list[KeyValue]:
        found = []
        for key, edges in by_key.items():
            edge = self.random.random() < 0.5
            value = self.random.choice(edges) if edge else self.random.choice((f"x{self.random.random()}", 7, 1_000))
            case.values["edge" if edge else "ordinary"] += 1
            if value is not None:
                found.append(KeyValue(key=key, value=_any(value)))
        return found


def _any(value: str | bool | int | float) -> AnyValue:
    kinds: dict[type, str] = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    content: dict[str, Any] = {kinds[type(value)]: value}
    return AnyValue(**content)


def cases(seed: int = SEED, configs: int = CONFIGS, texts: bool = False) -> Iterator[Case]:
    """The same ones for the same seed; with `texts` others, which ask conditions alone, of messages and scopes too."""
    random = Random(seed)
    for number in range(configs):
        draw = _Draw(random, texts=texts)
        kind = "ottl_condition" if texts else TYPES[number % len(TYPES)]
        kinds = [kind, *random.choices(("and", "not", *SIMPLE), k=random.choice((0, 0, 1, 2)))]
        if kind == "drop":
            kinds.append("always_sample")
        case = Case(number, [draw.policy(one, f"p{place}") for place, one in enumerate(kinds)])
        case.traces = [draw.trace(case, trace) for trace in range(TRACES)]
        yield case


def kinds_of(policies: list[Block]) -> set[str]:
    """The types of policies and of those inside of them."""
    found = set()
    for policy in policies:
        kind = policy["type"]
        inner = policy.get(kind, {}).get(f"{kind}_sub_policy", [])
        found |= {kind} | kinds_of(inner if isinstance(inner, list) else [inner])
    return found
