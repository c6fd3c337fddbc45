"""`compat: otel` keeps the traces that a real Collector kept: its answers are in bench/results/parity.json."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.measure import load_results
from bench.parity import by_tailrace, fingerprint, kept_of, shown
from bench.parity_cases import TYPES, Case, cases, kinds_of


@pytest.fixture(scope="module")
def given() -> list[Case]:
    return list(cases())


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    found = load_results("parity")
    assert found is not None, "python -m bench.parity writes it"
    return found


def test_the_answers_are_to_these_cases(given: list[Case], answers: dict[str, Any]) -> None:
    assert answers["cases"] == fingerprint(given), (
        "the cases have changed: python -m bench.parity asks the Collector anew"
    )
    assert answers["collector"] == "0.155.0"
    assert len(given) == len(answers["kept"]) >= 200


def test_the_same_traces_are_kept(given: list[Case], answers: dict[str, Any]) -> None:
    differing = [
        (case, trace, trace in kept)
        for case, kept in zip(given, kept_of(answers), strict=True)
        for trace in sorted(by_tailrace(case) ^ kept)
    ]
    smallest = min(differing, key=lambda d: (len(str(d[0].policies)), d[0].traces[d[1]].ByteSize()), default=None)
    assert smallest is None, f"{len(differing)} traces differ; the smallest:\n{shown(*smallest)}"


def test_every_type_is_there_and_values_are_at_the_edges(given: list[Case]) -> None:
    kinds = Counter(kind for case in given for kind in kinds_of(case.policies))
    assert min(kinds[kind] for kind in TYPES) >= 20, kinds
    assert set(kinds) == set(TYPES)
    values = sum((case.values for case in given), Counter())
    assert values["edge"] >= 0.3 * values.total()


def test_conditions_about_spans_and_about_events_are_there(given: list[Case], answers: dict[str, Any]) -> None:
    """Also where nothing but events can tell traces apart."""
    telling = [case for case, kept in zip(given, kept_of(answers), strict=True) if 0 < len(kept) < len(case.traces)]
    for about in ("span", "spanevent"):
        assert sum(f"'{about}':" in str(case.policies) for case in given) >= 20
    assert sum("'span':" not in (told := str(case.policies)) and "'spanevent':" in told for case in telling) >= 5


def test_the_answers_tell_policies_apart(given: list[Case], answers: dict[str, Any]) -> None:
    """A configuration that keeps all or nothing compares little."""
    telling = [case for case, kept in zip(given, kept_of(answers), strict=True) if 0 < len(kept) < len(case.traces)]
    kinds = Counter(kind for case in telling for kind in kinds_of(case.policies))
    assert len(telling) >= 150
    assert min(kinds[kind] for kind in TYPES if kind not in ("always_sample", "bytes_limiting")) >= 5, kinds


def test_conditions_about_messages_and_scopes_tell_traces_apart() -> None:
    """Of `--texts`: whether the Collector keeps the same says `python -m bench.parity --texts --configs 20`."""
    given = list(cases(configs=40, texts=True))
    for field in ("status.message", "scope.name", "scope.version", "span.status.message"):
        assert sum(field in str(case.policies) for case in given) >= 5
    assert sum(0 < len(by_tailrace(case)) < len(case.traces) for case in given) >= 10
