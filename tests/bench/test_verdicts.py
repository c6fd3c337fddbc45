"""What a comparison's policies keep, against Tailrace's own windowless evaluation of the same spans."""

from __future__ import annotations

from collections import defaultdict

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from bench.load import Load, messages
from bench.verdicts import SLOW_MS, Mix, difference, digest, judged
from processors.sampling.policies import Policy
from processors.sampling.probability import DEFAULT_SALT, fnv1a_64, hash_limit_of, salted

LOAD = Load(8_000, 1_700_000_000_000, logs_per_span=0, seed=5)


def spans_by_trace(load: Load) -> dict[bytes, list[Span]]:
    found: dict[bytes, list[Span]] = defaultdict(list)
    for message in messages(load):
        for resource in TracesData.FromString(message.value).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found[span.trace_id].append(span)
    return found


@pytest.mark.parametrize("keyed", [0, 4])
def test_the_truth_is_what_the_messages_hold(keyed: int) -> None:
    """Computed again from the bytes: errors, whole milliseconds, the salted hash."""
    load = Load(8_000, 1_700_000_000_000, logs_per_span=0, keyed=keyed, seed=5)
    expected = {}
    for trace_id, spans in spans_by_trace(load).items():
        failed = any(span.status.code == Status.STATUS_CODE_ERROR for span in spans)
        lasts = max(span.end_time_unix_nano for span in spans) - min(span.start_time_unix_nano for span in spans)
        chosen = fnv1a_64(trace_id, salted(DEFAULT_SALT)) <= hash_limit_of(5)
        if failed or lasts // 1_000_000 >= SLOW_MS or chosen:
            expected[trace_id] = len(spans)
    truth = judged(load, Mix())
    assert truth.kept == expected
    assert truth.spans == sum(expected.values())
    assert truth.traces == len(spans_by_trace(load))
    assert 0.05 < len(expected) / len(spans_by_trace(load)) < 0.12


def test_a_share_alone() -> None:
    traces = len(spans_by_trace(LOAD))
    assert 0.4 < len(judged(LOAD, Mix(percentage=50, failures=False)).kept) / traces < 0.6
    assert len(judged(LOAD, Mix(percentage=1, failures=False)).kept) < 0.02 * traces


def test_policies_that_keep_nothing_are_valid_and_differ() -> None:
    policies = Mix(unmet=27).policies()
    assert len(policies) == 30
    assert len({Policy.model_validate(policy).model_dump_json(exclude={"name"}) for policy in policies}) == 30


def test_a_digest_is_of_the_ids_whatever_their_order() -> None:
    assert digest({b"b" * 16: 3, b"a" * 16: 1}) == digest([b"a" * 16, b"b" * 16]) == "abf8fedeb2a9"
    assert digest([b"a" * 16]) != digest([b"a" * 16, b"c" * 16]) != digest([b"a" * 16, b"b" * 16])


def test_differences_are_counted_by_trace() -> None:
    truth = {b"whole": 3, b"cut": 2, b"lost": 1}
    assert difference(truth, {b"whole": 3, b"cut": 1, b"more": 9}) == (2, 1)
    assert difference(truth, truth) == (0, 0)
