"""Policies become one table of span predicates and one short list of conditions per trace.

Equal predicates share a bit, whichever policies ask for them. A span costs one look into a table for its status and
one for each attribute key that any policy names; a decision costs one condition per policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from processors.sampling.conditions import (
    NS_PER_MS,
    AllOf,
    Always,
    AnyOf,
    Condition,
    Consistent,
    Hashed,
    LongerThan,
    LongerThanMillis,
    NoneOf,
)
from processors.sampling.policies import Latency, Policy, Probabilistic, StringAttribute, unique_names
from processors.sampling.probability import hash_limit_of, salted, threshold_of
from schemas.severity import HIGHEST as HIGHEST_SEVERITY
from schemas.severity import NUMBERS as SEVERITY_NUMBERS

if TYPE_CHECKING:
    from schemas.otlp_scan import AttributeValue, SpanScan

Compat = Literal["none", "otel"]

SEMANTICS = 1  # raise it when the same policies come to mean something else: it is part of Plan.version
STATUS_NUMBERS = {"UNSET": 0, "OK": 1, "ERROR": 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """Compiled policies.

    `keys` maps every attribute key that policies and metric dimensions need to its slot, for `scan_span` and
    `resource_attributes`. `conditions` holds (policy name, condition) in the order of the configuration.
    `version` is a short hash of the policies and of what they mean: it names the plan in decisions.
    """

    keys: dict[bytes, int]
    conditions: tuple[tuple[str, Condition], ...]
    version: str
    status_bits: dict[int, int]
    severity_bits: tuple[int, ...]
    attribute_bits: tuple[tuple[int, dict[str, int]], ...]
    strings_only: bool

    def span_bits(self, scan: SpanScan, resource: Sequence[AttributeValue | None]) -> int:
        """The predicates that a span, or the resource it belongs to, meets.

        `resource` has the slots of `keys`. Spans that share a resource may share `attributes_bits(resource)`.
        """
        bits = self.status_bits.get(scan.status, 0)
        if self.attribute_bits:
            bits |= self.attributes_bits(scan.attributes) | self.attributes_bits(resource)
        return bits

    def attributes_bits(self, values: Sequence[AttributeValue | None]) -> int:
        """The predicates met by attributes of a span or of a resource, by slot."""
        bits = 0
        for slot, table in self.attribute_bits:
            value = values[slot]
            if value is None:
                continue
            if not isinstance(value, str):
                if self.strings_only:
                    continue
                value = text_of(value)
            bits |= table.get(value, 0)
        return bits

    def log_bits(self, severity_number: int) -> int:
        """The predicates that a log record meets; `severity_number` is OTLP's, 0 = unspecified meets none."""
        if severity_number <= 0:
            return 0
        return self.severity_bits[min(severity_number, HIGHEST_SEVERITY)]


def compile_policies(policies: Sequence[Policy], *, compat: Compat = "none", extra_keys: Sequence[str] = ()) -> Plan:
    """The plan of `policies`.

    `compat` is the setting of the same name; `extra_keys` are attribute keys that others want scanned too.
    Raises ValueError when names repeat.
    """
    compiler = _Compiler(compat)
    conditions = tuple((policy.name, compiler.condition(policy)) for policy in unique_names(policies))
    for key in extra_keys:
        compiler.slot(key)
    return Plan(
        keys=compiler.keys,
        conditions=conditions,
        version=_version(policies, compat),
        status_bits=compiler.status_bits,
        severity_bits=tuple(compiler.severity_bits),
        attribute_bits=tuple(compiler.attribute_bits.items()),
        strings_only=compat == "otel",
    )


@dataclass(slots=True)
class _Compiler:
    compat: Compat
    keys: dict[bytes, int] = field(default_factory=dict)
    bits: dict[Hashable, int] = field(default_factory=dict)
    status_bits: dict[int, int] = field(default_factory=dict)
    severity_bits: list[int] = field(default_factory=lambda: [0] * (HIGHEST_SEVERITY + 1))
    attribute_bits: dict[int, dict[str, int]] = field(default_factory=dict)

    def slot(self, key: str) -> int:
        return self.keys.setdefault(key.encode(), len(self.keys))

    def condition(self, policy: Policy) -> Condition:
        match policy:
            case Policy(type="always_sample"):
                return Always()
            case Policy(type="status_code", status_code=block) if block:
                return AnyOf(self._status({STATUS_NUMBERS[code] for code in block.status_codes}))
            case Policy(type="log_severity", log_severity=block) if block:
                return AnyOf(self._severity(SEVERITY_NUMBERS[block.min_severity]))
            case Policy(type="string_attribute", string_attribute=block) if block:
                mask = self._attribute(block)
                return NoneOf(mask) if block.invert_match else AnyOf(mask)
            case Policy(type="latency", latency=block) if block:
                return self._latency(block)
            case Policy(type="probabilistic", probabilistic=block) if block:
                return self._probabilistic(block)
            case Policy(type="and", and_=block) if block:
                return AllOf(tuple(self.condition(part) for part in block.and_sub_policy))
        raise AssertionError(f"policy {policy.name!r} of type {policy.type} has no block: it was not validated")

    def _bit(self, predicate: Hashable) -> int:
        return 1 << self.bits.setdefault(predicate, len(self.bits))

    def _status(self, numbers: set[int]) -> int:
        bit = self._bit(("status", frozenset(numbers)))
        for number in numbers:
            self.status_bits[number] = self.status_bits.get(number, 0) | bit
        return bit

    def _severity(self, lowest: int) -> int:
        bit = self._bit(("severity", lowest))
        for number in range(lowest, HIGHEST_SEVERITY + 1):
            self.severity_bits[number] |= bit
        return bit

    def _attribute(self, block: StringAttribute) -> int:
        values = frozenset(filter(None, block.values))
        bit = self._bit(("attribute", block.key, values))
        table = self.attribute_bits.setdefault(self.slot(block.key), {})
        for value in values:
            table[value] = table.get(value, 0) | bit
        return bit

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


def text_of(value: AttributeValue) -> str:
    """A scalar attribute as text, as the Collector prints it; bytes have none that a policy could name ("").

    >>> text_of(503), text_of(503.0), text_of(0.5), text_of(True)
    ('503', '503', '0.5', 'true')
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if value == 0 or 1e-6 <= abs(value) < 1e21:  # Go's JSON: exponents only outside this range
                text = format(Decimal(repr(value)), "f")
                return text.rstrip("0").rstrip(".") if "." in text else text
            return repr(value)
        case _:
            return ""


def _version(policies: Sequence[Policy], compat: Compat) -> str:
    """Twelve hex digits. Defaults are left out, so a field added later changes no version."""
    meaning = [SEMANTICS, compat, [p.model_dump(mode="json", by_alias=True, exclude_defaults=True) for p in policies]]
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(canonical, digest_size=6).hexdigest()
