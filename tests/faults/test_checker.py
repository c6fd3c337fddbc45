"""The checker notices: a right end has a row of zeros, and each single corruption is in the column that is its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.deliver import ANSWERS_LIMIT
from tests.end_to_end.traffic import KINDS, Shop
from tests.end_to_end.truth import Holdings
from tests.faults.checker import COLUMNS, ROLLED_OVER, UNANSWERED, Found, check
from tests.faults.ledger import Ledger
from tests.faults.proxy import Passage
from tests.faults.stage import Disturbance

SEEDS = range(5)
REQUESTS = 3  # of each kind
AT = 4_000_000_000.0  # in the future: nothing of it can be late


def made(seed: int) -> Ledger:
    """Requests of each kind, and a log without one."""
    ledger, shop = Ledger(), Shop(seed)
    for kind in [*KINDS] * REQUESTS:
        spans, logs = shop.request(AT, kind)
        ledger.add(*spans, *logs)
    ledger.add(shop.untraced(AT))
    return ledger


def right(ledger: Ledger) -> Found:
    """What is found when all is right."""
    servers = Holdings(calls=Counter(ledger.made), durations=Counter(ledger.made))
    topics = Holdings()
    requests: list[Passage] = []
    for trace_id, policy in ledger.kept.items():
        for span_id in ledger.traces[trace_id].spans:
            servers.add_span(trace_id, span_id, policy)
            topics.add_span(trace_id, span_id, policy)
            requests.append(Passage(len(requests), [f"{trace_id}/{span_id}"], accepted=True, answered=True))
    expected = ledger.expected_logs()
    for log in ledger.logs():
        if log.uid in expected:
            document = ledger.document(log, ledger.kept.get(log.trace_id, ""))
            servers.logs[log.uid], topics.logs[log.uid] = [document], [document]
            servers.places[log.uid] = [("index-1", f"id of {log.uid}")]
    verdicts = {trace_id[16:]: {ledger.kept.get(trace_id, "")} for trace_id in ledger.traces}
    return Found(servers, topics, verdicts, requests)


def lose_trace(ledger: Ledger, found: Found, rng: random.Random) -> None:
    del found.servers.spans[rng.choice(sorted(found.servers.spans))]


def lose_span(ledger: Ledger, found: Found, rng: random.Random) -> None:
    spans = found.servers.spans[rng.choice(sorted(found.servers.spans))]
    del spans[rng.choice(sorted(spans))]


def decide_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    dropped = sorted(trace_id for trace_id in ledger.traces if trace_id not in ledger.kept)
    found.verdicts[rng.choice(dropped)[16:]].add("slow")


def forward_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    spans = found.topics.spans[rng.choice(sorted(found.topics.spans))]
    spans[rng.choice(sorted(spans))] += 1


def show_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    spans = found.servers.spans[rng.choice(sorted(found.servers.spans))]
    spans[rng.choice(sorted(spans))] += 1


def send_again(ledger: Ledger, found: Found, rng: random.Random) -> None:
    """A request whose answer came."""
    request = rng.choice(list(found.requests))
    found.requests = [*found.requests, Passage(request.at + 9, request.keys, accepted=True, answered=True)]


def index_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    """Under another id."""
    uid = rng.choice(sorted(found.servers.logs))
    found.servers.logs[uid] *= 2
    found.servers.places[uid].append((found.servers.places[uid][0][0], "another id"))


def lose_log(ledger: Ledger, found: Found, rng: random.Random) -> None:
    del found.servers.logs[rng.choice(sorted(found.servers.logs))]


def forward_log_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    found.topics.logs[rng.choice(sorted(found.topics.logs))] *= 2


def count_one_more(ledger: Ledger, found: Found, rng: random.Random) -> None:
    found.servers.calls[rng.choice(sorted(ledger.made))] += 1


def count_everything_twice(ledger: Ledger, found: Found, rng: random.Random) -> None:
    found.servers.durations.update(ledger.made)


def keep_dropped(ledger: Ledger, found: Found, rng: random.Random) -> None:
    dropped = rng.choice(sorted(trace_id for trace_id in ledger.traces if trace_id not in ledger.kept))
    for span_id in ledger.traces[dropped].spans:
        found.servers.add_span(dropped, span_id, "errors")


def invent(ledger: Ledger, found: Found, rng: random.Random) -> None:
    """What an aborted transaction held."""
    found.topics.add_span(rng.randbytes(16).hex(), rng.randbytes(8).hex(), "errors")


def name_another_policy(ledger: Ledger, found: Found, rng: random.Random) -> None:
    found.servers.policies[rng.choice(sorted(found.servers.policies))] = {"nobody's"}


def mix_documents_up(ledger: Ledger, found: Found, rng: random.Random) -> None:
    uid = rng.choice(sorted(found.servers.logs))
    found.servers.logs[uid] = [found.servers.logs[uid][0]._replace(body="somebody else's")]


CORRUPTIONS: dict[Callable[[Ledger, Found, random.Random], None], str] = {
    lose_trace: "kept traces lost",
    lose_span: "traces split",
    decide_twice: "two verdicts",
    forward_twice: "duplicated in Kafka",
    show_twice: "duplicated in Jaeger",
    send_again: "duplicated in Jaeger",
    index_twice: "duplicated in Elasticsearch",
    lose_log: "logs lost",
    forward_log_twice: "logs duplicated",
    count_one_more: "span-metric error",
    count_everything_twice: "span-metric error",
    keep_dropped: "otherwise wrong",
    invent: "otherwise wrong",
    name_another_policy: "otherwise wrong",
    mix_documents_up: "otherwise wrong",
}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_right_is_a_row_of_zeros(seed: int) -> None:
    ledger = made(seed)
    row = check(ledger, right(ledger))
    assert row.clean, row.lines()
    assert not row.allowed


def test_every_column_can_be_more_than_zero() -> None:
    assert set(CORRUPTIONS.values()) == set(COLUMNS)


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_one_corruption_is_in_its_column_alone(
    corrupt: Callable[[Ledger, Found, random.Random], None], seed: int
) -> None:
    ledger = made(seed)
    found = right(ledger)
    corrupt(ledger, found, random.Random(1000 + seed))  # not the shop's own numbers
    row = check(ledger, found)
    assert {column for column, count in row.counts.items() if count} == {CORRUPTIONS[corrupt]}
    assert row.lines()


def test_what_was_sent_again_for_want_of_an_answer_is_counted_and_allowed() -> None:
    ledger = made(1)
    found = right(ledger)
    first = found.requests[0]
    first.answered = False
    found.requests = [*found.requests, Passage(9.0, first.keys, accepted=True, answered=True)]
    row = check(ledger, found)
    assert row.clean
    assert row.allowed == {"duplicated in Jaeger": {UNANSWERED: 1}}


def test_what_was_not_answered_while_its_partition_moved_is_counted_and_allowed() -> None:
    """The answer came late, or after another worker had sent it."""
    ledger = made(1)
    for seconds in (ANSWERS_LIMIT + 0.1, 1.0):
        found = right(ledger)
        first = found.requests[0]
        first.seconds = seconds
        found.requests = [*found.requests, Passage(first.at + 0.9, first.keys, accepted=True, answered=True)]
        row = check(ledger, found)
        assert row.clean
        assert row.allowed == {"duplicated in Jaeger": {UNANSWERED: 1}}


@pytest.mark.parametrize(
    ("first", "again", "allowed"),
    [
        (4.0, 9.0, True),  # it could not say that it had sent it
        (9.0, 21.0, True),  # it woke with a request half-way in a socket
        (9.0, 19.0, False),  # while it stood still, two others sent it
        (9.0, 29.0, False),  # it woke, and sent what was queued
        (2.0, 4.0, False),  # before anything had happened
    ],
)
def test_what_the_successor_of_a_dead_sink_sent_again_is_counted_and_allowed(
    first: float, again: float, allowed: bool
) -> None:
    ledger = made(1)
    found = right(ledger)
    keys = found.requests[0].keys
    found.requests = [Passage(at, keys, accepted=True, answered=True) for at in (first, again)]
    found.disturbances = [Disturbance(5.0, "frozen", end=20.0)]
    row = check(ledger, found)
    assert row.counts["duplicated in Jaeger"] == (not allowed)
    assert row.allowed == ({"duplicated in Jaeger": {"frozen": 1}} if allowed else {})


def test_a_document_in_two_indices_is_counted_and_allowed() -> None:
    ledger = made(1)
    found = right(ledger)
    uid = min(found.servers.logs)
    found.servers.logs[uid] *= 2
    found.servers.places[uid].append(("index-2", f"id of {uid}"))
    row = check(ledger, found)
    assert row.clean
    assert row.allowed == {"duplicated in Elasticsearch": {ROLLED_OVER: 1}}


def test_what_came_too_late_is_judged_by_the_verdict_it_got() -> None:
    """It may have been dropped on half the evidence; it may not be there in part."""
    ledger = made(1)
    found = right(ledger)
    late = next(trace_id for trace_id, policy in ledger.kept.items() if policy == "slow")
    ledger.late.add(late)
    found.verdicts[late[16:]].symmetric_difference_update({"", "slow"})
    assert check(ledger, found).counts["otherwise wrong"] > 0, "it was dropped and is there"
    del found.servers.spans[late], found.topics.spans[late]
    for uid in ledger.traces[late].logs:
        found.servers.logs.pop(uid)
    found.requests = [request for request in found.requests if late not in request.keys[0]]
    assert check(ledger, found).clean


def test_a_log_whose_span_came_too_late_may_name_the_root_and_no_other() -> None:
    """What the decision knew of its trace."""
    ledger = made(1)
    found = right(ledger)
    trace_id, trace, log = next(
        (trace_id, trace, log)
        for trace_id, trace in ledger.traces.items()
        for log in trace.logs.values()
        if trace_id in ledger.kept and trace.spans[log.span_id].parent
    )
    root = next(span for span in trace.spans.values() if not span.parent)
    (document,) = found.servers.logs[log.uid]
    assert document.span_name != root.name
    found.servers.logs[log.uid] = [document._replace(span_name=root.name)]
    assert check(ledger, found).counts["otherwise wrong"] == 1, "in time it must name its own"
    ledger.late.add(trace_id)
    ledger.decided = {trace_id: document.policy}
    assert check(ledger, found).clean
    found.servers.logs[log.uid] = [document._replace(span_name="another")]
    assert check(ledger, found).counts["otherwise wrong"] == 1
