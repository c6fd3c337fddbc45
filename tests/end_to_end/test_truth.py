"""The checks notice: what is right passes, and each single wrong thing is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.end_to_end.traffic import KINDS, Shop
from tests.end_to_end.truth import Holdings, Truth


def made() -> Truth:
    """One request of each kind, and a log without one."""
    truth, shop = Truth(), Shop(1)
    for kind in KINDS:
        spans, logs = shop.request(1_800_000_000.0, kind)
        truth.add(*spans, *logs)
    truth.add(shop.untraced(1_800_000_000.0))
    return truth


def right(truth: Truth) -> Holdings:
    """What the destinations hold when all is right."""
    holdings = Holdings(calls=Counter(truth.made), durations=Counter(truth.made))
    for trace_id, policy in truth.kept.items():
        for span_id in truth.traces[trace_id].spans:
            holdings.add_span(trace_id, span_id, policy)
    expected = truth.expected_logs()
    for log in truth.logs():
        if log.uid in expected:
            holdings.logs[log.uid] = [truth.document(log, truth.kept.get(log.trace_id, ""))]
    return holdings


def test_each_kind_is_kept_by_its_own_policy() -> None:
    kept = Counter(made().kept.values())
    assert kept == {"errors": 1, "error-logs": 1, "slow": 1, "gold": 1, "canary": 1}


def test_what_is_right_passes() -> None:
    truth = made()
    assert truth.violations(right(truth)) == []


def lose_span(truth: Truth, holdings: Holdings) -> None:
    next(iter(holdings.spans.values())).popitem()


def lose_trace(truth: Truth, holdings: Holdings) -> None:
    holdings.spans.popitem()


def double_span(truth: Truth, holdings: Holdings) -> None:
    next(iter(holdings.spans.values())).update(next(iter(holdings.spans.values())).keys())


def keep_dropped(truth: Truth, holdings: Holdings) -> None:
    dropped = next(trace_id for trace_id in truth.traces if trace_id not in truth.kept)
    holdings.add_span(dropped, next(iter(truth.traces[dropped].spans)), "errors")


def name_another_policy(truth: Truth, holdings: Holdings) -> None:
    next(iter(holdings.policies.values())).add("share")


def lose_log(truth: Truth, holdings: Holdings) -> None:
    holdings.logs.popitem()


def double_log(truth: Truth, holdings: Holdings) -> None:
    documents = next(iter(holdings.logs.values()))
    documents.append(documents[0])


def keep_log_of_dropped(truth: Truth, holdings: Holdings) -> None:
    log = next(log for log in truth.logs() if log.uid not in holdings.logs)
    holdings.logs[log.uid] = [truth.document(log, "")]


def forget_verdict(truth: Truth, holdings: Holdings) -> None:
    uid = next(uid for uid, (document,) in holdings.logs.items() if document.sampled)
    holdings.logs[uid] = [holdings.logs[uid][0]._replace(sampled=None)]


def forget_span_name(truth: Truth, holdings: Holdings) -> None:
    uid = next(uid for uid, (document,) in holdings.logs.items() if document.span_name)
    holdings.logs[uid] = [holdings.logs[uid][0]._replace(span_name="")]


def count_one_less(truth: Truth, holdings: Holdings) -> None:
    holdings.calls["orders"] -= 1


def count_under_another_name(truth: Truth, holdings: Holdings) -> None:
    holdings.durations["orders"] -= 1
    holdings.durations["payments"] += 1


@pytest.mark.parametrize(
    "wrong",
    [
        lose_span,
        lose_trace,
        double_span,
        keep_dropped,
        name_another_policy,
        lose_log,
        double_log,
        keep_log_of_dropped,
        forget_verdict,
        forget_span_name,
        count_one_less,
        count_under_another_name,
    ],
)
def test_one_wrong_thing_is_found(wrong: Callable[[Truth, Holdings], None]) -> None:
    truth = made()
    holdings = right(truth)
    wrong(truth, holdings)
    assert len(truth.violations(holdings)) == 1


def test_a_repeated_request_is_allowed_where_it_is_said() -> None:
    truth = made()
    holdings = right(truth)
    double_span(truth, holdings)
    assert truth.violations(holdings, spans_twice=True) == []
