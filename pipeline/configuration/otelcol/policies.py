"""A tail_sampling processor as `sampling`: its policies, without what is not known here, and its waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pipeline.config import Sampling
from pipeline.configuration.config_file import told
from pipeline.configuration.otelcol.source import NONE, Source
from pipeline.configuration.yaml_tree import Key
from processors.sampling.ottl import CONTEXTS, Context, alternatives, may_fail
from processors.sampling.policies import Policy
from schemas.settings import format_duration, parse_duration

NOT_NEEDED = {
    "num_traces": "undecided traces are in Kafka, nothing is evicted",
    "expected_new_traces_per_sec": "nothing has to be sized before",
    "block_on_overflow": "overload becomes lag",
    "decision_cache": "verdicts are in Kafka; sampling.late_horizon says for how long",
    "tail_storage": "undecided traces are in Kafka",
    "drop_pending_traces_on_shutdown": "a worker that stops leaves what is undecided to the next",
}
LIMITING = ("rate_limiting", "bytes_limiting", "composite")  # policies whose answer depends on what they were asked
LATE_HORIZON: float = Sampling.model_fields["late_horizon"].default  # seconds
INVERTIBLE = ("string_attribute", "numeric_attribute", "boolean_attribute")
VETO = "a vote like any other; in older Collectors (0.140) it drops what matches: write a `drop` policy if yours does"
SHAPES = ("missing", "model_type", "dict_type", "list_type")  # errors that no ${…} helps: it stands for a scalar
DEFAULTS = (("sampling_strategy", "trace-complete"), ("maximum_trace_size_bytes", 0))  # what others differ from


def sampling(source: Source, path: Key, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The section of that name. What is left out of the policies is in `source.left_out`."""
    found: dict[str, Any] = {"compat": "otel"}
    for key, value in settings.items():
        if key in ("decision_wait", "decision_wait_after_root_received"):
            found[key] = value
        elif key in NOT_NEEDED:
            source.gap((*path, key), f"not needed: {NOT_NEEDED[key]}", matters=False)
        elif key not in ("policies", "sample_on_first_match") and (key, value) not in DEFAULTS:
            source.gap((*path, key), NONE)
    _waits(source, path, found)
    found["policies"] = _policies(source, (*path, "policies"), settings.get("policies"))
    if settings.get("sample_on_first_match"):
        _first_match(source, (*path, "sample_on_first_match"), found["policies"])
    return found


def _waits(source: Source, path: Key, sampling: dict[str, Any]) -> None:
    """Waits that the Collector takes and Tailrace has a rule about."""
    root = "decision_wait_after_root_received"
    try:
        wait = parse_duration(sampling["decision_wait"])
        if root in sampling and parse_duration(sampling[root]) >= wait:
            del sampling[root]
            source.gap((*path, root), "not needed: no shorter than decision_wait", matters=False)
    except (KeyError, ValueError):
        return  # the default, or for `checked` to tell
    if wait >= LATE_HORIZON:
        sampling["late_horizon"] = longer = format_duration(wait + LATE_HORIZON)
        source.gap((*path, "decision_wait"), f"needs a sampling.late_horizon that is longer: {longer}", matters=False)


def _first_match(source: Source, path: Key, policies: Sequence[Mapping[str, Any]]) -> None:
    """Which policies are asked here, and not by a Collector that stops at the first that keeps a trace.

    It asks `drop` policies before all others, wherever they stand, so only what a limit has left differs (its
    processor.go: loadSamplingPolicies and makeDecision).
    """
    for policy in [policy for policy in policies if policy["type"] != "drop"][1:]:
        if _is_limiting(policy):
            why = f"has no counterpart: the limit of {policy['name']!r} is spent by traces that others keep, too"
            source.gap(path, f"{why}; `and` with `not` of the others before it spares it")


def _policies(source: Source, path: Key, given: Any) -> list[dict[str, Any]]:
    taken: list[dict[str, Any]] = []
    for number, whole in enumerate(source.listed(path, given)):
        here: Key = (*path, number)
        name = whole.get("name") if isinstance(whole, dict) else None
        policy = _met_without(source, here, whole)
        try:
            Policy.model_validate(policy)
        except ValidationError as error:
            wrong = [
                details for details in error.errors() if details["type"] in SHAPES or "${" not in str(details["input"])
            ]
            for place, why in (each for details in wrong for each in told(details)):
                source.gap(here + place, f"policy {name!r} is left out: {why}")
            if wrong:
                source.left_out.append(whole)
                continue
            source.gap(here, f"policy {name!r} is taken as it is: what ${{…}} stands for is not known here", False)
        if any(name == other["name"] for other in taken):
            source.gap(here, f"policy {name!r} is left out: there is one of this name already")
            source.left_out.append(whole)
            continue
        taken.append(policy)
        if len(given) > 1 and (inverted := next((key for key in INVERTIBLE if _inverts(policy.get(key))), None)):
            source.gap((*here, inverted, "invert_match"), VETO, matters=False)
    return taken


def _inverts(block: Any) -> bool:
    return isinstance(block, dict) and block.get("invert_match") is True


def _met_without(source: Source, path: Key, policy: Any, inverted: bool = False) -> Any:
    """The same without conditions that are not known here: one of a list is enough, so the others still keep.

    A policy whose conditions are all unknown stays as it is, for its own validation to tell; so does one within `not`,
    which would keep more with fewer of them.
    """
    if isinstance(policy, list):
        return [_met_without(source, (*path, number), part, inverted) for number, part in enumerate(policy)]
    if not isinstance(policy, dict):
        return policy
    block = policy.get("ottl_condition")
    if not isinstance(block, dict):
        return {
            key: _met_without(source, (*path, key), value, inverted or key == "not") for key, value in policy.items()
        }
    kept: dict[str, Any] = dict(block)
    refused: dict[Context, dict[int, str]] = {}
    for context in CONTEXTS:
        conditions = block.get(context)
        if not isinstance(conditions, list) or not all(isinstance(one, str) for one in conditions):
            continue
        wrong = {n: why for n, one in enumerate(conditions) if "${" not in one and (why := _refused(one, context))}
        kept[context] = [one for n, one in enumerate(conditions) if n not in wrong]
        refused |= {context: wrong} if wrong else {}
    if block.get("error_mode") == "propagate" and (failing := list(_failing(kept))):
        rest = "keeps no trace with a span on which it fails before one that meets a condition"
        source.gap(
            (*path, "ottl_condition", "error_mode"), f"has no counterpart: with {failing[0]!r} a Collector {rest}"
        )
    if not refused or inverted or not any(kept.get(context) for context in CONTEXTS):
        return policy
    for context, wrong in refused.items():
        for n, why in wrong.items():
            place: Key = (*path, "ottl_condition", context, n)
            source.gap(place, f"a condition of policy {policy.get('name')!r} is left out: {why}")
    left_out = {context: [block[context][n] for n in wrong] for context, wrong in refused.items()}
    source.left_out.append({**policy, "ottl_condition": left_out})
    return {**policy, "ottl_condition": {key: value for key, value in kept.items() if value != []}}


def _refused(condition: str, context: Context) -> str:
    """Why a condition in OTTL is not known here; nothing if it is."""
    try:
        alternatives(condition, context)
    except ValueError as error:
        return str(error)
    return ""


def _failing(block: Mapping[str, Any]) -> Iterator[str]:
    """The conditions that are known here and fail on some values."""
    for context in CONTEXTS:
        conditions = block.get(context)
        for one in conditions if isinstance(conditions, list) else []:
            if isinstance(one, str) and not _refused(one, context) and may_fail(one, context):
                yield one


def _is_limiting(policy: Any) -> bool:
    """Whether a policy, or one inside it, has a limit."""
    if isinstance(policy, dict):
        return policy.get("type") in LIMITING or any(map(_is_limiting, policy.values()))
    return isinstance(policy, list) and any(map(_is_limiting, policy))
