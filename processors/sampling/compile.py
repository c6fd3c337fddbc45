"""Policies become one table of span predicates and one short list of conditions per trace.

Equal predicates share a bit, whichever policies ask for them. A span costs one look into a table for its status and
one for each attribute key that any policy names (processors.sampling.predicates), its resource the same, once per
batch; a decision costs one condition per policy.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from processors.sampling.adaptive import Adaptive, Keyed
from processors.sampling.answers import WORD, Term, words_of
from processors.sampling.blocks import (
    REMEMBERED,
    BooleanAttribute,
    BytesLimiting,
    FleetBudget,
    Latency,
    NumericAttribute,
    OttlCondition,
    Probabilistic,
    RateLimiting,
    StringAttribute,
    TraceState,
)
from processors.sampling.budget import Budget
from processors.sampling.conditions import (
    NS_PER_MS,
    AllOf,
    Always,
    AnyOf,
    ByKey,
    Condition,
    Consistent,
    FirstWithin,
    Hashed,
    LongerThan,
    LongerThanMillis,
    NoneOf,
    OfIds,
    Opposite,
    SpanCount,
    WithinBytes,
    WithinRate,
)
from processors.sampling.event_bits import EventBits
from processors.sampling.features import MOST_FEATURES, SPAN_NAME, SPAN_STATUS, Feature, SpanFeatures, feature
from processors.sampling.keyed import Adapting, Dynamic, Rare, Throughput
from processors.sampling.limits import Allowance, Rate
from processors.sampling.ottl import Alternative, Question, alternatives, bounds, holds
from processors.sampling.policies import Composite, Policy, unique_names
from processors.sampling.predicates import KeyPredicates, Lookup, Tests, attribute_bits, expression, met
from processors.sampling.probability import hash_limit_of, salted, threshold_of
from processors.sampling.rare import Rarity
from processors.sampling.shares import Shares, SharesBySecond
from processors.sampling.span_bits import FieldBits, SpanBits
from processors.sampling.trace_state import States
from schemas.otlp_scan import scope_texts
from schemas.severity import HIGHEST as HIGHEST_SEVERITY
from schemas.severity import NUMBERS as SEVERITY_NUMBERS

if TYPE_CHECKING:
    from schemas.envelope import Envelope
    from schemas.otlp_scan import AttributeValue, RawRows, Rows, SpanColumns

Compat = Literal["none", "otel"]

SEMANTICS = 3  # raise it when the same policies come to mean something else: it is part of Plan.version
ROLLOUT_SALT = "tailrace-rollout"  # `ids` and `probabilistic` choose apart from each other
STATUS_NUMBERS = {"UNSET": 0, "OK": 1, "ERROR": 2}
COLLECTOR_STATE_MEMBER = 256  # characters of key and value from which on the Collector ignores the value


@dataclass(frozen=True, slots=True)
class Plan:
    """Compiled policies.

    `keys` maps every attribute key that policies and metric dimensions need to its slot, for `scan_span` and
    `resource_attributes`. `conditions` holds (policy name, condition) in the order of the configuration, `drops` the
    same for policies of type drop, `shadows` for those that vote without effect, of which `shadow_drops` would drop
    and `shadow_limits` have a limit of their own: they are not asked about traces that a drop policy dropped. `rates`
    are what `processors.sampling.limits` keeps buckets for. `version` is a short hash of the policies and of what
    they mean: it names the plan in decisions. Bit sets have `words` 64-bit words: `span_bits` works out what spans
    meet by themselves, `resource_bits` what they meet by their resource, `scopes` are the tests of the name and of the
    version of their scope, and `severity_bits` holds what a log record meets, by its severity number (0 = unspecified
    meets nothing). `samplers` go by keys, which are made of
    `features`; without any there are none. `meanings` maps each policy that has state to a short hash of what this
    means: what goes on with the state of another plan has the same.
    """

    keys: dict[bytes, int]
    conditions: tuple[tuple[str, Condition], ...]
    drops: tuple[tuple[str, Condition], ...]
    rates: tuple[Allowance, ...]
    version: str
    words: int
    severity_bits: array[int]
    span_bits: SpanBits
    resource_lookups: tuple[Lookup, ...]
    scopes: tuple[Tests, Tests] = ([], [])
    shadows: tuple[tuple[str, Condition], ...] = ()
    shadow_drops: frozenset[str] = frozenset()
    shadow_limits: frozenset[str] = frozenset()
    samplers: tuple[Keyed, ...] = ()
    features: SpanFeatures | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)

    def resource_bits(self, values: Sequence[AttributeValue | None]) -> int:
        """The predicates that all spans of a resource meet, by its attributes (in the slots of `keys`)."""
        return attribute_bits(self.resource_lookups, values)

    def answer(self, columns: SpanColumns, rows: Rows | RawRows | Envelope, resource_bits: Sequence[int]) -> None:
        """Have `span_bits` answer for the spans of a batch; `resource_bits` is what its resources meet."""
        if not any(self.scopes):
            self.span_bits.assign(columns, rows.resource, resource_bits)
            return
        names, versions = self.scopes
        met_by = [met(names, name) | met(versions, version) for name, version in map(scope_texts, rows.scopes)]
        self.span_bits.assign(columns, rows.resource, resource_bits, rows.scope, met_by)


def compile_policies(policies: Sequence[Policy], *, compat: Compat = "none", extra_keys: Sequence[str] = ()) -> Plan:
    """The plan of `policies`.

    `compat` is the setting of the same name; `extra_keys` are attribute keys that others want scanned too.
    Raises ValueError when names repeat.
    """
    compiler = _Compiler(compat)
    conditions: list[tuple[str, Condition]] = []
    drops: list[tuple[str, Condition]] = []
    shadows: list[tuple[str, Condition]] = []
    limited: set[str] = set()
    for policy in unique_names(policies):
        compiler.outer = policy.name
        asked = shadows if policy.shadow else drops if policy.type == "drop" else conditions
        before = len(compiler.rates) + len(compiler.samplers)
        asked.append((policy.name, compiler.whole(policy)))
        if len(compiler.rates) + len(compiler.samplers) > before:
            limited.add(policy.name)
    for key in extra_keys:
        compiler.slot(key)
    words = max(1, -(-len(compiler.bits) // WORD))
    states = States(compiler.states, blanks=compat == "none") if compiler.states else None
    return Plan(
        keys=compiler.keys,
        conditions=tuple(conditions),
        drops=tuple(drops),
        rates=tuple(compiler.rates),
        version=_version(policies, compat),
        words=words,
        severity_bits=array("Q", [word for bits in compiler.severity_bits for word in words_of(bits, words)]),
        span_bits=SpanBits(
            words, compiler.fields, compiler.lookups(of_resource=False), states, compiler.terms, compiler.events(words)
        ),
        resource_lookups=compiler.lookups(of_resource=True),
        scopes=compiler.scopes,
        shadows=tuple(shadows),
        shadow_drops=frozenset(policy.name for policy in policies if policy.shadow and policy.type == "drop"),
        shadow_limits=frozenset(policy.name for policy in policies if policy.shadow and policy.name in limited),
        samplers=tuple(compiler.samplers),
        features=SpanFeatures(list(compiler.features), compiler.keys) if compiler.features else None,
        meanings={name: _digest(meaning, 4) for name, meaning in compiler.meanings.items()},
    )


@dataclass(slots=True)
class _Compiler:
    compat: Compat
    keys: dict[bytes, int] = field(default_factory=dict)
    bits: dict[Hashable, int] = field(default_factory=dict)
    fields: FieldBits = field(default_factory=FieldBits)
    severity_bits: list[int] = field(default_factory=lambda: [0] * (HIGHEST_SEVERITY + 1))
    attributes: dict[int, KeyPredicates] = field(default_factory=dict)
    states: dict[bytes, dict[bytes, int]] = field(default_factory=dict)
    scopes: tuple[Tests, Tests] = field(default_factory=lambda: ([], []))
    terms: list[Term] = field(default_factory=list)
    event_keys: dict[bytes, int] = field(default_factory=dict)
    event_attributes: dict[int, KeyPredicates] = field(default_factory=dict)
    event_names: Tests = field(default_factory=list)
    event_terms: list[Term] = field(default_factory=list)
    rates: list[Allowance] = field(default_factory=list)
    samplers: list[Keyed] = field(default_factory=list)
    features: dict[Feature, int] = field(default_factory=dict)
    meanings: dict[str, list[object]] = field(default_factory=dict)
    outer: str = ""  # the policy of the configuration that is being compiled

    def slot(self, key: str) -> int:
        return self.keys.setdefault(key.encode(), len(self.keys))

    def lookups(self, of_resource: bool) -> tuple[Lookup, ...]:
        if self.compat == "otel":
            return tuple(key.lookup_as_collector(slot, of_resource) for slot, key in self.attributes.items())
        return tuple(key.lookup(slot, of_resource) for slot, key in self.attributes.items())

    def events(self, words: int) -> EventBits | None:
        """What is asked about events, if anything is."""
        if not self.event_terms:
            return None
        lookups = [key.lookup(slot) for slot, key in self.event_attributes.items()]
        return EventBits(words, self.event_keys, lookups, self.event_names, self.event_terms)

    def whole(self, policy: Policy) -> Condition:
        """A policy of the configuration, which may be asked about some trace ids only."""
        condition = self.condition(policy)
        if policy.ids is None:
            return condition
        lowest, above = (hash_limit_of(share) + 1 for share in (policy.ids.from_percentage, policy.ids.to_percentage))
        return AllOf((OfIds(salted(ROLLOUT_SALT), lowest, above - 1), condition))

    def condition(self, policy: Policy) -> Condition:
        match policy:
            case Policy(type="always_sample"):
                return Always()
            case Policy(type="status_code", status_code=block) if block:
                return AnyOf(self._status({STATUS_NUMBERS[code] for code in block.status_codes}))
            case Policy(type="log_severity", log_severity=block) if block:
                return AnyOf(self._severity(SEVERITY_NUMBERS[block.min_severity]))
            case Policy(type="string_attribute", string_attribute=block) if block:
                return _match(self._texts(block), block.invert_match)
            case Policy(type="numeric_attribute", numeric_attribute=block) if block:
                return _match(self._range(block), block.invert_match)
            case Policy(type="boolean_attribute", boolean_attribute=block) if block:
                return _match(self._boolean(block), block.invert_match)
            case Policy(type="trace_state", trace_state=block) if block:
                return AnyOf(self._state(block))
            case Policy(type="ottl_condition", ottl_condition=block) if block:
                return AnyOf(self._ottl(block))
            case Policy(type="span_count", span_count=block) if block:
                return SpanCount(block.min_spans, block.max_spans or None)
            case Policy(type="rate_limiting", rate_limiting=block) if block:
                return self._rate(block)
            case Policy(type="bytes_limiting", bytes_limiting=block) if block:
                return self._byte_rate(block)
            case Policy(type="budget", budget=block) if block:
                return self._budget(block)
            case Policy(type="trace_flags"):
                self.fields.sampled |= (bit := self._bit(("sampled",)))
                return AnyOf(bit)
            case Policy(type="latency", latency=block) if block:
                return self._latency(block)
            case Policy(type="probabilistic", probabilistic=block) if block:
                return self._probabilistic(block)
            case Policy(type="dynamic", dynamic=block) if block:
                return self._dynamic(block)
            case Policy(type="throughput", throughput=block) if block:
                return self._throughput(block)
            case Policy(type="rare", rare=block) if block:
                return self._rare(block)
            case Policy(type="and", and_=block) if block:
                return AllOf(tuple(self.condition(part) for part in block.and_sub_policy))
            case Policy(type="not", not_=block) if block:
                return Opposite(self.condition(block.not_sub_policy))
            case Policy(type="composite", composite=block) if block:
                return self._composite(block)
            case Policy(type="drop", drop=block) if block:
                return AllOf(tuple(self.condition(part) for part in block.drop_sub_policy))
        raise AssertionError(f"policy {policy.name!r} of type {policy.type} has no block: it was not validated")

    def _bit(self, predicate: Hashable) -> int:
        return 1 << self.bits.setdefault(predicate, len(self.bits))

    def _status(self, numbers: set[int]) -> int:
        bit = self._bit(("status", frozenset(numbers)))
        for number in numbers:
            self.fields.statuses[number] = self.fields.statuses.get(number, 0) | bit
        return bit

    def _severity(self, lowest: int) -> int:
        bit = self._bit(("severity", lowest))
        for number in range(lowest, HIGHEST_SEVERITY + 1):
            self.severity_bits[number] |= bit
        return bit

    def _key(self, key: str) -> KeyPredicates:
        return self.attributes.setdefault(self.slot(key), KeyPredicates())

    def _texts(self, block: StringAttribute) -> int:
        if block.enabled_regex_matching:
            return self._patterns(block)
        values = frozenset(filter(None, block.values))
        bit = self._bit(("text", block.key, values))
        table = self._key(block.key).texts
        for value in values:
            table[value] = table.get(value, 0) | bit
        return bit

    def _patterns(self, block: StringAttribute) -> int:
        # An empty expression occurs in everything. The Collector takes it at its word; here it is an empty value.
        patterns = tuple(dict.fromkeys(v for v in block.values if v or self.compat == "otel"))
        known = len(self.bits)
        bit = self._bit(("pattern", block.key, frozenset(patterns)))
        key = self._key(block.key)
        if len(self.bits) > known:
            key.patterns.append((bit, tuple(map(expression, patterns))))
        key.remembered = max(key.remembered, block.remembered)
        return bit

    def _range(self, block: NumericAttribute) -> int:
        low, high = block.min_value, block.max_value
        if self.compat == "otel":
            low, high = low or None, high or None  # a bound of 0 counts as unset
        bit = self._bit(("range", block.key, low, high))
        self._key(block.key).ranges.append((low, high, bit))
        return bit

    def _boolean(self, block: BooleanAttribute) -> int:
        bit = self._bit(("boolean", block.key, block.value))
        self._key(block.key).booleans[block.value] |= bit
        return bit

    def _state(self, block: TraceState) -> int:
        values = frozenset(filter(None, block.values))
        if self.compat == "otel":
            values = frozenset(v for v in values if len(block.key) + len(v) < COLLECTOR_STATE_MEMBER)
        bit = self._bit(("state", block.key, values))
        table = self.states.setdefault(block.key.encode(), {})
        for value in values:
            table[value.encode()] = table.get(value.encode(), 0) | bit
        return bit

    def _ottl(self, block: OttlCondition) -> int:
        known = len(self.bits)
        bit = self._bit(("ottl", frozenset(block.span), frozenset(block.spanevent)))
        if len(self.bits) > known:
            self.terms += [self._term(bit, one) for text in block.span for one in alternatives(text)]
            events = [one for text in block.spanevent for one in alternatives(text, "spanevent")]
            self.event_terms += [self._term(bit, one) for one in events]
        return bit

    def _term(self, bit: int, alternative: Alternative) -> Term:
        must, must_not = alternative
        return bit, self._questions(must), self._questions(must_not)

    def _questions(self, questions: frozenset[Question]) -> int:
        bits = 0
        for question in sorted(questions, key=repr):
            bits |= self._question(question)
        return bits

    def _question(self, question: Question) -> int:
        known = len(self.bits)
        bit = self._bit(question)
        if len(self.bits) == known:
            return bit
        match question.field:
            case "attributes" | "resource":
                key = self._key(question.key)
                (key.of_spans if question.field == "attributes" else key.of_resources).append((bit, holds(question)))
                key.remembered = max(key.remembered, REMEMBERED)
            case "event attributes":
                slot = self.event_keys.setdefault(question.key.encode(), len(self.event_keys))
                key = self.event_attributes.setdefault(slot, KeyPredicates())
                key.of_spans.append((bit, holds(question)))
                key.remembered = REMEMBERED
            case "event name":
                self.event_names.append((bit, holds(question)))
            case "name":
                self.fields.names.append((bit, holds(question)))
            case "status message":
                self.fields.messages.append((bit, holds(question)))
            case "scope name":
                self.scopes[0].append((bit, holds(question)))
            case "scope version":
                self.scopes[1].append((bit, holds(question)))
            case "kind" | "status" if isinstance(question.value, int):
                table = self.fields.kinds if question.field == "kind" else self.fields.statuses
                table[question.value] = table.get(question.value, 0) | bit
            case "duration":
                self.fields.durations.append((*bounds(question), bit))
            case _:
                self.fields.root |= bit
        return bit

    def _keeps(self, *meaning: object) -> None:
        """The policy has state: what it is of. Rates, goals and bounds are not: state is gone on with under others."""
        self.meanings.setdefault(self.outer, []).append(meaning)

    def _rate(self, block: RateLimiting) -> Condition:
        self._keeps("rate", "spans")
        self.rates.append(Rate(self.outer, block.spans_per_second, block.burst))
        return WithinRate(len(self.rates) - 1)

    def _byte_rate(self, block: BytesLimiting) -> Condition:
        self._keeps("rate", "bytes")
        self.rates.append(Rate(self.outer, block.bytes_per_second, block.burst))
        return WithinBytes(len(self.rates) - 1)

    def _budget(self, block: FleetBudget) -> Condition:
        self._keeps("budget", "spans" if block.spans_per_second else "bytes")
        self.rates.append(Budget(self.outer, block.spans_per_second or block.bytes_per_second, block.burst))
        return (WithinRate if block.spans_per_second else WithinBytes)(len(self.rates) - 1)

    def _composite(self, block: Composite) -> Condition:
        index, strict = len(self.rates), self.compat == "otel"
        parts = block.composite_sub_policy if strict else block.ordered  # it never reads policy_order (contrib#36955)
        total, names = block.max_total_spans_per_second, [part.name for part in parts]
        percents = {allocation.policy: allocation.percent for allocation in block.rate_allocation}
        shares = _shares_as_collector(total, names, percents) if strict else _shares(total, names, percents)
        self._keeps("shares by second" if strict else "shares", names)
        self.rates.append((SharesBySecond if strict else Shares)(self.outer, total, shares))
        return FirstWithin(index, not strict, tuple(self.condition(part) for part in parts))

    def _dynamic(self, block: Dynamic) -> Condition:
        initial = threshold_of(100 / block.goal_sample_rate)
        return self._adapting(block, 1 / block.goal_sample_rate, 0.0, of_traces=False, initial=initial)

    def _throughput(self, block: Throughput) -> Condition:
        per_second = block.goal_traces_per_second or block.goal_spans_per_second
        initial = threshold_of(block.initial_sampling_percentage)
        return self._adapting(block, 0.0, per_second, of_traces=block.goal_traces_per_second > 0, initial=initial)

    def _adapting(
        self, block: Adapting, share: float, per_second: float, *, of_traces: bool, initial: int
    ) -> Condition:
        allowed = Adaptive(
            self.outer,
            share,
            per_second,
            of_traces,
            initial,
            int(block.adjustment_interval * 1000),
            block.weight,
            block.age_out_value or block.weight,
            block.burst_multiple,
            block.burst_detection_delay,
            block.max_keys,
        )
        unit = "traces" if of_traces else "spans"
        self._keeps("averages", unit, allowed.interval, sorted(block.field_list))
        return self._by_key(allowed, block.field_list)

    def _rare(self, block: Rare) -> Condition:
        rarity = Rarity(self.outer, block.traces, int(block.interval * 1000), block.max_shapes)
        self._keeps("shapes", rarity.interval, sorted(block.field_list))
        return self._by_key(rarity, block.field_list)

    def _by_key(self, sampler: Keyed, names: Sequence[str]) -> Condition:
        mask = 0
        for one in map(feature, names):
            for part in one.parts:
                if part not in (SPAN_NAME, SPAN_STATUS):
                    self.slot(part)
            mask |= 1 << self.features.setdefault(one, len(self.features))
        if len(self.features) > MOST_FEATURES:
            raise ValueError(f"field_list: more than {MOST_FEATURES} different fields in all policies together")
        self.samplers.append(sampler)
        return ByKey(len(self.samplers) - 1, mask)

    def _latency(self, block: Latency) -> Condition:
        upper = block.upper_threshold_ms or None
        if self.compat == "otel":
            return LongerThanMillis(block.threshold_ms, upper)
        return LongerThan(block.threshold_ms * NS_PER_MS, upper and upper * NS_PER_MS)

    def _probabilistic(self, block: Probabilistic) -> Condition:
        share = threshold_of(block.sampling_percentage)
        if self.compat == "otel":
            return Hashed(salted(block.hash_salt), hash_limit_of(block.sampling_percentage), share)
        return Consistent(share)


def _match(mask: int, inverted: bool) -> Condition:
    return NoneOf(mask) if inverted else AnyOf(mask)


def _shares(total: int, names: Sequence[str], percents: Mapping[str, int]) -> tuple[int, ...]:
    """Spans per second of each; who has no percentage has an equal part of what is left. More than 100 % is scaled."""
    given = sum(percents.values())
    others = sum(not percents.get(name) for name in names)
    rest = total * max(0, 100 - given) // (100 * max(1, others))
    return tuple(total * percents[name] // max(100, given) if percents.get(name) else rest for name in names)


def _shares_as_collector(total: int, names: Sequence[str], percents: Mapping[str, int]) -> tuple[int, ...]:
    """The Collector 0.155: who is not listed has none, who is listed with 0 an equal part of all."""
    equal = int(total / len(names))
    return tuple((int(percents[n] / 100 * total) if percents[n] else equal) if n in percents else 0 for n in names)


def _version(policies: Sequence[Policy], compat: Compat) -> str:
    """Twelve hex digits. Defaults are left out, so a field added later changes no version."""
    meaning = [SEMANTICS, compat, [p.model_dump(mode="json", by_alias=True, exclude_defaults=True) for p in policies]]
    return _digest(meaning, 6)


def _digest(meaning: object, size: int) -> str:
    """Two hex digits for each of `size` bytes."""
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(canonical, digest_size=size).hexdigest()
