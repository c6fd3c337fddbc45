"""Delivering to a destination that answers as the test says: what is sent again, buried, settled, held back."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import DeadLetters
from pipeline.kafka.pace import Turns
from pipeline.sending.delivery import SAID_CHARACTERS, Delivery
from pipeline.sending.settled import Settled
from pipeline.sending.settlement import Account
from pipeline.telemetry import REGISTRY
from pipeline.watching.dead_letter_share import DeadLetterShare
from pipeline.watching.logs import JsonLines
from schemas.errors import Retryable, TooManyDeadLetters, Unavailable
from schemas.reasons import Reason
from sinks.contract import Coordinates, Destination, Item, Outcome, Refusal, Request, SourceRecord, always
from sinks.http import Rejected, bisect
from tests.pipeline.kafka import fresh
from tests.services import eventually
from tests.sinks.building import sink

DEADLINE = 10.0


class Word(Item):
    """An item of the script: one word of a record's value. Words that begin with `#` cannot be encoded.

    A word with hyphens is an item of several rows.
    """

    word: str

    def dead_letter(self, *others: Word) -> bytes:
        return " ".join(item.word for item in (self, *others)).encode()

    def singles(self) -> list[Word]:
        return [word(text, self.origin, self.lane, self.defect) for text in self.word.split("-")]


def word(text: str, origin: Coordinates, lane: int = 0, defect: str = "") -> Word:
    made = Word(origin=origin, size=len(text), rows=1 + text.count("-"), lane=lane, defect=defect)
    made.word = text
    return made


Answer = Callable[[Request[Word]], Awaitable[Outcome] | Outcome]


class Scripted(Destination[Word]):
    """Splits a record into words and answers as `answer` says; `+word` goes to lane 1 if there is one."""

    def __init__(self, answer: Answer, lanes: int = 1, requests_per_lane: int = 1) -> None:
        self.lanes, self.requests_per_lane = lanes, requests_per_lane
        self.answer = answer
        self.sent: list[list[str]] = []
        self.redelivered: list[str] = []
        self.started = self.closed = 0
        self.refuse_starts = 0
        self.forgotten: list[tuple[str, int]] = []

    async def start(self) -> None:
        self.started += 1
        if self.started <= self.refuse_starts:
            raise Unavailable("not yet")

    async def close(self) -> None:
        self.closed += 1

    def encode(self, record: SourceRecord) -> list[Word] | None:
        if record.value == b"hold":
            return None
        items = []
        for index, text in enumerate(record.value.decode().split()):
            place = Coordinates(record.topic, record.partition, record.offset, 0, index)
            lane = 1 if self.lanes > 1 and text.startswith("+") else 0
            items.append(word(text, place, lane, "bad" if text.startswith("#") else ""))
        return items

    def forget(self, topic: str, partition: int) -> None:
        self.forgotten.append((topic, partition))

    def request(self, items: Sequence[Word]) -> Request[Word]:
        return Request(items, b"")

    async def send(self, request: Request[Word]) -> Outcome:
        self.sent.append([item.word for item in request.items])
        self.redelivered.append(" ".join(item.word for item in request.items if item.redelivered))
        outcome = self.answer(request)
        return outcome if isinstance(outcome, Outcome) else await outcome


def accept(request: Request[Word]) -> Outcome:
    return Outcome(accepted=sum(item.rows for item in request.items))


class Script:
    """Answers the n-th request with the n-th outcome, then accepts."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self._outcomes = list(outcomes)

    def __call__(self, request: Request[Word]) -> Outcome:
        if not self._outcomes:
            return accept(request)
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Grave:
    """A dead-letter queue; fails as often as `failures` says, and calls `asked` each time."""

    def __init__(self, failures: int = 0, asked: Callable[[], None] = lambda: None) -> None:
        self.letters: list[tuple[str, str, Reason]] = []
        self.failures, self.asked = failures, asked

    async def __call__(self, items: Sequence[Item], refusal: Refusal) -> None:
        self.asked()
        if self.failures:
            self.failures -= 1
            raise Retryable("no broker")
        self.letters.append((items[0].dead_letter(*items[1:]).decode(), refusal.detail, refusal.reason))


class Bench:
    """A delivery, its destination and one partition."""

    def __init__(
        self,
        destination: Scripted,
        grave: Grave,
        share: DeadLetterShare | None = None,
        clock: Callable[[], float] = time.monotonic,
        turns: Turns | None = None,
        confirmed: Callable[[], Awaitable[bool]] = always,
        url: str = "http://unused",
        **batch: Any,
    ) -> None:
        self.name = fresh("sink")
        settings = sink(
            url,
            batch={"max_age": "10ms"} | batch,
            retry={"initial_interval": "1ms", "max_interval": "2ms"},
        )
        self.destination, self.grave = destination, grave
        self.delivery = Delivery(self.name, destination, settings, grave, share, turns, confirmed, clock=clock)
        self.account = Account(0)
        self._offset = 0

    async def add(self, *values: str) -> None:
        for value in values:
            offset, self._offset = self._offset, self._offset + 1
            await self.delivery.add(self.account, SourceRecord("topic", 3, offset, 0, value.encode(), "logs"))

    async def reaches(self, position: int) -> None:
        async def there() -> bool:
            if self.delivery.failed.done():
                self.delivery.failed.result()
            return self.account.position >= position

        await eventually(there, DEADLINE, f"position {position}")
        assert self.account.position == position

    def requests(self, outcome: str) -> float:
        labels = {"sink": self.name, "outcome": outcome}
        return REGISTRY.get_sample_value("tailrace_sink_requests_total", labels) or 0.0

    def counted(self, outcome: str) -> float:
        labels = {"sink": self.name, "outcome": outcome}
        return REGISTRY.get_sample_value("tailrace_sink_items_total", labels) or 0.0


@asynccontextmanager
async def bench(destination: Scripted, grave: Grave | None = None, **options: Any) -> AsyncIterator[Bench]:
    made = Bench(destination, grave or Grave(), **options)
    await made.delivery.open()
    try:
        yield made
    finally:
        await made.delivery.close()
        assert destination.closed


async def test_accepted_items_settle_their_offsets() -> None:
    async with bench(Scripted(accept)) as b:
        await b.add("a b", "", "c")
        await b.reaches(3)
        assert b.destination.sent == [["a", "b", "c"]]
        assert b.counted("accepted") == 3


async def test_encoding_waits_for_transactions_that_have_waited_for_work() -> None:
    """What a sink makes of records and items is work like any other in its worker (pipeline/kafka/pace.py)."""
    turns = Turns(beside=0.0)
    async with bench(Scripted(accept), turns=turns) as b:
        with turns.transaction():
            adding = asyncio.create_task(b.add("a"))
            await asyncio.sleep(0.05)
            assert not adding.done()
        await adding
        await b.reaches(1)
        await b.add("b")
        with turns.transaction():  # what is queued waits before it becomes a request
            await asyncio.sleep(0.05)
            assert b.destination.sent == [["a"]]
        await b.reaches(2)


async def test_records_without_items_settle_at_once_but_not_before_others() -> None:
    release = asyncio.Event()

    async def later(request: Request[Word]) -> Outcome:
        await release.wait()
        return accept(request)

    async with bench(Scripted(later)) as b:
        await b.add("", "")
        assert b.account.position == 2
        await b.add("a", "")
        assert b.account.position == 2
        release.set()
        await b.reaches(4)


async def test_a_held_record_waits_for_those_that_complete_it() -> None:
    async with bench(Scripted(accept)) as b:
        await b.add("hold", "hold")
        assert b.account.position == 0
        await b.add("a")
        await b.reaches(3)


async def test_everything_is_sent_again_until_it_is_accepted() -> None:
    outcomes: list[Outcome | Exception] = [
        Unavailable("Connect refused", asked=False),
        Outcome.retry_all(2, "429", "busy", 0.001),
        Outcome.retry_all(2, "503", "busy", lost=True),
        Unavailable("reset"),
        Outcome.retry_all(2, "429", "busy"),
    ]
    async with bench(Scripted(Script(*outcomes))) as b:
        await b.add("a", "b")
        await b.reaches(2)
        assert b.destination.sent == [["a", "b"]] * 6
        assert b.destination.redelivered == ["", "", "", "a b", "a b", "a b"], "what may have been taken"
        retries = {
            reason: REGISTRY.get_sample_value("tailrace_sink_retries_total", {"sink": b.name, "reason": reason})
            for reason in ("no_answer", "503", "429")
        }
        assert retries == {"no_answer": 2, "503": 1, "429": 2}


async def test_of_an_item_the_rows_that_may_have_been_taken_are_told_apart() -> None:
    destination = Scripted(Script(replace(Outcome.retry_all(4, "503", ""), lost=(1,))))
    async with bench(destination) as b:
        await b.add("a-b-c d")
        await b.reaches(1)
        assert destination.sent == [["a-b-c", "d"], ["a", "b", "c", "d"]]
        assert destination.redelivered == ["", "b"]


async def test_only_what_was_not_settled_is_sent_again() -> None:
    first = Outcome(accepted=1, already_delivered=1, refused=(Refusal(1, "bad"),), retry=(2, 4), reason="item_429")
    async with bench(Scripted(Script(first))) as b:
        await b.add("a b c d e")
        await b.reaches(1)
        assert b.destination.sent == [["a", "b", "c", "d", "e"], ["c", "e"]]
        assert b.grave.letters == [("b", "bad", Reason.REFUSED_BY_SINK)]
        assert [b.counted(o) for o in ("accepted", "already_delivered", "refused")] == [3, 1, 1]


async def test_items_of_several_rows_are_counted_and_settled_by_their_rows() -> None:
    async with bench(Scripted(accept), max_items=3, max_bytes=8) as b:
        await b.add("a-b c d-e", "", "f-g-h-i-j")
        await b.reaches(3)
        assert b.destination.sent == [["a-b", "c"], ["d-e"], ["f-g-h-i-j"]]
        assert b.counted("accepted") == 10


async def test_a_row_of_an_item_is_refused_alone_and_another_one_sent_again_alone() -> None:
    first = Outcome(accepted=2, refused=(Refusal(1, "bad"),), retry=(3, 4), reason="503")
    destination = Scripted(Script(first, Outcome.retry_all(2, "503", "")))
    async with bench(destination) as b:
        await b.add("a-b-c d-e")
        await b.reaches(1)
        assert destination.sent == [["a-b-c", "d-e"], ["d", "e"], ["d", "e"]]
        assert b.grave.letters == [("b", "bad", Reason.REFUSED_BY_SINK)]
        assert [b.counted(o) for o in ("accepted", "already_delivered", "refused")] == [4, 0, 1]


async def test_what_is_sent_again_as_a_whole_stays_whole() -> None:
    destination = Scripted(Script(Outcome.retry_all(3, "503", ""), Unavailable("reset")))
    async with bench(destination) as b:
        await b.add("a-b c")
        await b.reaches(1)
        assert destination.sent == [["a-b", "c"]] * 3
        assert b.counted("accepted") == 3


async def test_every_row_of_what_cannot_be_encoded_is_buried() -> None:
    async with bench(Scripted(accept)) as b:
        await b.add("a-b #c-d")
        await b.reaches(1)
        assert b.grave.letters == [("#c", "bad", Reason.MALFORMED), ("d", "bad", Reason.MALFORMED)]
        assert [b.counted(o) for o in ("accepted", "refused")] == [2, 2]


async def test_a_refusal_settles_only_once_its_letter_is_stored() -> None:
    grave = Grave(failures=3)
    async with bench(Scripted(Script(Outcome(refused=(Refusal(0, "bad"),)))), grave) as b:
        await b.add("a")
        await b.reaches(1)
        labels = {"sink": b.name, "reason": "dead_letters"}
        assert REGISTRY.get_sample_value("tailrace_sink_retries_total", labels) == 3
    assert grave.failures == 0
    assert len(grave.letters) == 1


async def test_a_letter_that_is_stored_is_settled_although_the_worker_stops_before_the_next() -> None:
    """Or it would be written once more."""
    failing = asyncio.Event()

    class Full(Grave):
        async def __call__(self, items: Sequence[Item], refusal: Refusal) -> None:
            if self.letters:
                failing.set()
                raise Retryable("no broker")
            await super().__call__(items, refusal)

    outcome = Outcome(refused=(Refusal(0, "bad"), Refusal(1, "bad")))
    async with bench(Scripted(Script(outcome)), Full(), max_items=2) as b:
        await b.add("a", "b")
        await failing.wait()
        await b.delivery.drain(0.0)
        await b.reaches(1)
        assert b.counted("refused") == len(b.grave.letters) == 1


async def test_a_dead_letter_that_is_not_taken_is_work_under_way() -> None:
    """Else the watchdog stops the worker: nothing is queued, and nothing moves."""
    busy: list[bool] = []
    grave = Grave(failures=3, asked=lambda: busy.append(it.delivery.busy))
    async with bench(Scripted(accept), grave) as it:
        assert not it.delivery.busy
        await it.add("#a")
        await it.reaches(1)
        assert not it.delivery.busy
    assert busy == [True] * 4


async def test_more_letters_than_refusals_when_nobody_says_which() -> None:
    vague = Outcome(accepted=2, refused=tuple(Refusal(n, "1 of 3") for n in range(3)))
    async with bench(Scripted(Script(vague))) as b:
        await b.add("a b c")
        await b.reaches(1)
        assert len(b.grave.letters) == 3
        assert (b.counted("accepted"), b.counted("refused")) == (2, 1)


async def test_what_cannot_be_encoded_is_buried_and_the_rest_sent() -> None:
    async with bench(Scripted(accept)) as b:
        await b.add("a #b c", "#d")
        await b.reaches(2)
        assert b.destination.sent == [["a", "c"]]
        assert b.grave.letters == [("#b", "bad", Reason.MALFORMED), ("#d", "bad", Reason.MALFORMED)]


async def test_a_destination_that_refuses_everything_stops_the_sink_and_not_one_letter_is_written() -> None:
    grave = Grave()
    share = DeadLetterShare("sink.x", "x", DeadLetters(min_records=4))
    some = Outcome(accepted=2, refused=(Refusal(2, "no"),))
    everything = Outcome(refused=(Refusal(0, "no"), Refusal(1, "no")))
    async with bench(Scripted(Script(some, everything)), grave, max_items=3, share=share) as it:
        await it.add("a b c")
        await it.reaches(1)
        await it.add("d e")
        with pytest.raises(TooManyDeadLetters, match="x: 3 of the last 5 records would become dead letters"):
            await asyncio.wait_for(it.delivery.failed, DEADLINE)
        assert it.account.position == 1
    assert [word for word, *_ in grave.letters] == ["c"]


async def test_what_a_destination_that_refuses_everything_says_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """There may be no dead letter with its words."""
    caplog.set_level(logging.WARNING, "pipeline.sending.delivery")
    share = DeadLetterShare("sink.x", "x", DeadLetters(min_records=2))
    outcome = Outcome(refused=(Refusal(0, "over its quota"), Refusal(1, "no")))
    async with bench(Scripted(Script(outcome)), Grave(), max_items=2, share=share) as it:
        await it.add("a", "b")
        with pytest.raises(TooManyDeadLetters):
            await asyncio.wait_for(it.delivery.failed, DEADLINE)
    assert [vars(record)["answer"] for record in caplog.records] == ["over its quota"]


async def test_what_was_accepted_is_settled_although_the_rest_of_the_request_stops_the_sink() -> None:
    """Or it would be delivered once more at every restart."""
    share = DeadLetterShare("sink.x", "x", DeadLetters(min_records=2))
    outcome = Outcome(accepted=1, refused=(Refusal(1, "no"), Refusal(2, "no")))
    async with bench(Scripted(Script(outcome)), Grave(), max_items=3, share=share) as it:
        await it.add("a", "b", "c")
        with pytest.raises(TooManyDeadLetters):
            await asyncio.wait_for(it.delivery.failed, DEADLINE)
        assert it.account.position == 1
        assert [it.counted(outcome) for outcome in ("accepted", "refused")] == [1, 0]


async def test_one_message_never_stops_a_sink() -> None:
    """However many rows it has: after a restart it would be there again, and so for ever."""
    share = DeadLetterShare("sink.x", "x", DeadLetters(min_records=4))
    refusals = tuple(Refusal(number, "no") for number in range(6))
    async with bench(Scripted(Script(Outcome(refused=refusals))), max_items=6, share=share) as it:
        words = " ".join(f"#{number}" for number in range(20))
        await it.add(words)
        assert it.grave.letters == [(words, "20 rows; the first: bad", Reason.MALFORMED)]
        with pytest.raises(TooManyDeadLetters, match="x: 21 of the last 21"):
            await it.add("#other")
    async with bench(Scripted(Script(Outcome(refused=refusals))), max_items=6, share=share) as it:
        await it.add("a b c d e f")
        await it.reaches(1)
        assert len(it.grave.letters) == 6


async def test_defects_are_no_larger_a_share_while_the_destination_is_away() -> None:
    share = DeadLetterShare("sink.x", "x", DeadLetters(min_records=4))
    away = Scripted(lambda request: Outcome.retry_all(len(request.items), "503", "", 60.0))
    async with bench(away, max_items=100, share=share) as it:
        for number in range(10):
            await it.add(f"a b #{number}")
        assert len(it.grave.letters) == 10
        with pytest.raises(TooManyDeadLetters, match="x: 31 of the last 51"):
            await it.add(" ".join(f"#{number}" for number in range(21)))


async def test_requests_are_bounded() -> None:
    async with bench(Scripted(accept), max_items=3, max_bytes=4) as b:
        await b.add("a a a a a bbb c dddddd e")
        await b.reaches(1)
        assert b.destination.sent[0] == ["a", "a", "a"]
        assert ["dddddd"] in b.destination.sent
        assert max(map(len, b.destination.sent)) <= 3


async def test_a_lane_has_one_request_under_way_and_keeps_its_order_through_retries() -> None:
    under_way = 0

    async def answer(request: Request[Word]) -> Outcome:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        if len(destination.sent) % 3 == 0:
            return Outcome.retry_all(len(request.items), "503", "")
        return accept(request)

    destination = Scripted(answer)
    words = [str(n) for n in range(40)]
    async with bench(destination, max_items=3) as b:
        await b.add(*words)
        await b.reaches(40)
    arrived: list[str] = []
    for number, request in enumerate(destination.sent, 1):
        if number % 3:
            arrived += request
    assert arrived == words


def one_lane_stuck() -> tuple[Scripted, asyncio.Event]:
    """Of two, until the event is set."""
    release = asyncio.Event()

    async def answer(request: Request[Word]) -> Outcome:
        if request.items[0].word.startswith("+"):
            await release.wait()
        return accept(request)

    return Scripted(answer, lanes=2), release


async def test_a_stuck_lane_does_not_hold_the_others() -> None:
    destination, release = one_lane_stuck()
    async with bench(destination) as b:
        await b.add("a", "+b", "c")
        await b.reaches(1)

        async def sent() -> bool:
            return ["c"] in destination.sent or ["a", "c"] in destination.sent

        await eventually(sent, DEADLINE, "c is sent")
        assert b.account.position == 1
        release.set()
        await b.reaches(3)


async def test_a_stuck_lane_takes_no_room_from_the_others() -> None:
    """Of OTLP, say: a backend that accepts no logs gets all spans."""
    destination, release = one_lane_stuck()
    async with bench(destination, max_items=1) as b:
        stuck, free = Account(0), Account(0)

        async def feed(account: Account, partition: int, text: bytes) -> None:
            for offset in range(50):
                await b.delivery.add(account, SourceRecord("topic", partition, offset, 0, text, "logs"))

        feeding = asyncio.create_task(feed(stuck, 1, b"+b"))
        await asyncio.wait_for(feed(free, 2, b"a"), DEADLINE)

        async def through() -> bool:
            return free.position == 50

        await eventually(through, DEADLINE, "one lane is through")
        assert (stuck.position, feeding.done()) == (0, False)
        release.set()
        await feeding


async def test_unordered_requests_run_side_by_side() -> None:
    arrived = asyncio.Barrier(3)

    async def answer(request: Request[Word]) -> Outcome:
        await arrived.wait()
        return accept(request)

    async with bench(Scripted(answer, requests_per_lane=3), max_items=1) as b:
        await b.add("a", "b", "c")
        await b.reaches(3)


async def test_back_pressure() -> None:
    release = asyncio.Event()

    async def later(request: Request[Word]) -> Outcome:
        await release.wait()
        return accept(request)

    async with bench(Scripted(later), max_items=2) as b:
        await b.add("a", "b", "c", "d")  # two batches: one under way, one queued
        blocked = asyncio.create_task(b.add("e"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not blocked.done()
        release.set()
        await blocked
        await b.reaches(5)


async def test_a_destination_that_is_down_at_first() -> None:
    destination = Scripted(accept)
    destination.refuse_starts = 3
    async with bench(destination) as b:
        assert destination.started == 4
        await b.add("a")
        await b.reaches(1)


@asynccontextmanager
async def held_up(hold: Callable[[Delivery], Coroutine[Any, Any, None]]) -> AsyncIterator[Bench]:
    """Of two requests one is under way when `hold` begins: that waits for its answer, and the other one is not sent."""
    release, begun = asyncio.Event(), asyncio.Event()

    async def later(request: Request[Word]) -> Outcome:
        begun.set()
        await release.wait()
        return accept(request)

    async with bench(Scripted(later), max_items=1) as b:
        await b.add("a", "b")
        await begun.wait()
        holding = asyncio.create_task(hold(b.delivery))
        await asyncio.sleep(0)
        assert not holding.done()
        release.set()
        await holding
        assert b.account.position == 1
        assert b.destination.sent == [["a"]]
        yield b


async def test_stopping_waits_for_answers_and_begins_nothing() -> None:
    async with held_up(lambda delivery: delivery.drain(DEADLINE)) as b:
        await b.delivery.drain(DEADLINE)  # every partition asks


async def test_a_pause_waits_for_answers_and_begins_nothing() -> None:
    async with held_up(lambda delivery: delivery.pause("one")) as b:
        other = Account(10)
        await b.delivery.add(other, SourceRecord("topic", 4, 10, 0, b"c", "logs"))
        b.delivery.drop(b.account, "topic", 3)
        b.delivery.resume("one")

        async def settled() -> bool:
            return other.position == 11

        await eventually(settled, DEADLINE, "what stays goes on")
        assert b.destination.sent == [["a"], ["c"]]


async def test_all_who_paused_must_resume() -> None:
    """In a rebalance one partition's lease must not begin what another one still waits for."""
    destination = Scripted(accept)
    async with bench(destination) as b:
        for whose in ("one", "two"):
            await b.delivery.pause(whose)
        await b.add("a")
        b.delivery.resume("one")
        await asyncio.sleep(0.05)
        assert destination.sent == []
        b.delivery.resume("two")
        await b.reaches(1)


async def test_rows_that_a_predecessor_has_delivered_are_not_sent() -> None:
    """An item of several rows is taken apart for that."""
    destination = Scripted(Script(Outcome.retry_all(1, "503", "")))
    async with bench(destination, max_items=10) as b:
        b.account = Account(0, Settled.unpack("1 1-3 3:0-2", 0))
        await b.add("a", "b c", "d", "e f-g h-i-j", "k")
        await b.reaches(5)
        assert {row for request in destination.sent for row in request} == {"a", "g", "h-i-j", "k"}


async def test_what_is_settled_behind_what_waits_is_known() -> None:
    """The first request is not answered until the end; of a record that two requests share, one half is settled."""
    release = asyncio.Event()

    async def answer(request: Request[Word]) -> Outcome:
        if request.items[0].word == "a":
            await release.wait()
        return accept(request)

    destination = Scripted(answer, requests_per_lane=2)
    async with bench(destination, max_items=3) as b:
        await b.add("a b c d", "e f", "g")

        async def known() -> bool:
            return b.account.settled().pack(b.account.position) == "1 0:3-4 1-3"

        await eventually(known, DEADLINE, "what is behind is settled")
        assert b.account.position == 0
        release.set()
        await b.reaches(3)
        assert b.account.settled().pack(3) == ""


async def test_what_is_queued_waits_until_the_group_has_counted_this_worker_in() -> None:
    """Asked again and again; a partition that has moved meanwhile is not sent."""
    answers, asked = [False, False, True], asyncio.Event()

    async def confirmed() -> bool:
        asked.set()
        await asyncio.sleep(0)
        return answers.pop(0) if answers else True

    destination = Scripted(accept)
    async with bench(destination, confirmed=confirmed) as b:
        await b.add("a")
        await b.reaches(1)
        assert not answers
        answers += [False] * 1000
        await b.add("b")
        asked.clear()
        await asked.wait()
        await b.delivery.pause("one")  # nothing is under way
        b.delivery.drop(b.account, "topic", 3)
        b.delivery.resume("one")
        await b.delivery.drain(DEADLINE)
        assert destination.sent == [["a"]]


async def test_a_pause_does_not_wait_for_an_outage_to_end() -> None:
    destination = Scripted(Script(Outcome.retry_all(1, "503", "", 0.05)))
    async with bench(destination) as b:
        await b.add("a")

        async def sent() -> int:
            return len(destination.sent)

        await eventually(sent, DEADLINE, "one try")
        async with asyncio.timeout(DEADLINE):
            await b.delivery.pause("one")
        await b.delivery.drain(DEADLINE)
        assert len(destination.sent) == 1, "a pause that ends with the worker sends nothing more"


async def test_stopping_during_an_outage_leaves_everything() -> None:
    destination = Scripted(lambda request: Outcome.retry_all(len(request.items), "503", "", 60.0))
    async with bench(destination) as b:
        await b.add("a")

        async def sent() -> int:
            return len(destination.sent)

        await eventually(sent, DEADLINE, "one try")
        async with asyncio.timeout(DEADLINE):
            await b.delivery.drain(60.0)
        assert b.account.position == 0


async def test_a_partition_that_left_is_neither_sent_nor_buried_nor_settled() -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def answer(request: Request[Word]) -> Outcome:
        begun.set()
        await release.wait()
        return Outcome(refused=tuple(Refusal(n, "bad") for n in range(len(request.items))))

    destination = Scripted(answer)
    async with bench(destination, max_items=1) as b:
        await b.add("a", "b")
        await begun.wait()
        b.delivery.drop(b.account, "topic", 3)
        assert destination.forgotten == [("topic", 3)]
        release.set()
        other = Account(10)
        await b.delivery.add(other, SourceRecord("topic", 4, 10, 0, b"c", "logs"))

        async def settled() -> bool:
            return other.position == 11

        await eventually(settled, DEADLINE, "the other partition goes on")
        assert destination.sent == [["a"], ["c"]]
        assert [word for word, _, _ in b.grave.letters] == ["c"]
        assert b.counted("refused") == 1
        assert b.account.position == 0


async def test_a_bug_in_a_destination_is_loud() -> None:
    async with bench(Scripted(Script(ZeroDivisionError("bug")))) as b:
        await b.add("a")
        with pytest.raises(ZeroDivisionError, match="bug"):
            await asyncio.wait_for(b.delivery.failed, DEADLINE)
        assert b.account.position == 0


async def test_refusals_are_told_in_the_destinations_words_and_not_every_time(caplog: pytest.LogCaptureFixture) -> None:
    """Control characters in the words cannot make a second line of the log, nor colours of a terminal."""
    said = "bad\n\x1b[31mseries\r {" + "x" * 10_000
    caplog.set_level(logging.WARNING, "pipeline.sending.delivery")
    refusing = Scripted(Script(*[Outcome(refused=(Refusal(0, "400 bad", said=said),))] * 4))
    times = [0.0]
    async with bench(refusing, clock=lambda: times[-1], max_items=1) as b:
        for position, now in enumerate((0.0, 1.0, 9.0, 10.0), 1):
            times.append(now)
            await b.add("a")
            await b.reaches(position)
    first, second = caplog.records
    assert [(vars(r)["items"], vars(r)["not_logged"]) for r in (first, second)] == [(1, 0), (1, 2)]
    assert vars(first)["answer"] == said[:SAID_CHARACTERS]
    line = JsonLines().format(first)
    assert line.isprintable()
    assert json.loads(line)["answer"] == said[:SAID_CHARACTERS]


async def test_a_request_that_is_halved_is_told_while_that_lasts(caplog: pytest.LogCaptureFixture) -> None:
    """A slow destination that refuses everything: its words at once, then now and then how many rows stand refused."""
    caplog.set_level(logging.WARNING, "pipeline.sending.delivery")
    now = 0.0
    counts: list[float] = []

    async def refuse(_: Sequence[Word]) -> Rejected:
        nonlocal now
        counts.append(b.requests("refused"))
        now += 4.0
        return Rejected("400 bad", "bad\nwords")

    async def halved(request: Request[Word]) -> Outcome:
        return await bisect(request, request.items, refuse)

    async with bench(Scripted(halved), clock=lambda: now, max_items=4) as b:
        await b.add("a b c d")
        await b.reaches(1)
        assert b.counted("refused") == 4
        assert [*counts, b.requests("refused")] == [0, 1, 2, 3, 4, 5, 6, 7], "each as it comes, and none twice"
    lines = [vars(line) for line in caplog.records if "as a whole" in line.message]
    assert [(line["items"], line["refused"], line["answer"]) for line in lines] == [
        (4, 0, "bad\nwords"),  # at 4, 16 and 28 s
        (4, 2, "bad\nwords"),
        (4, 4, "bad\nwords"),
    ]


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize("answers", [True, False])
async def test_halving_ends_at_a_destination_that_limits_requests(every: int, answers: bool) -> None:
    """What it has found out is not asked for again. Of two partitions in the request one leaves meanwhile."""
    asked = 0
    good = [f"g{number}" for number in range(98)]
    words = [*good[:37], "bad", *good[37:61], "bad", *good[61:]]
    accepted: list[str] = []
    other = Account(0)

    async def limited(items: Sequence[Word]) -> Outcome | Rejected:
        nonlocal asked
        asked += 1
        if asked % every == 0:
            if not answers:
                raise Unavailable("no answer within 10 s")
            return Outcome.retry_all(len(items), "429", "slow down", 0.0)
        if asked == every + 1:
            b.delivery.drop(other, "topic", 4)
        found = [text for item in items for text in item.word.split("-")]
        if "bad" in found:
            return Rejected("400 bad")
        accepted.extend(found)
        return Outcome(accepted=len(found))

    async def halved(request: Request[Word]) -> Outcome:
        rows = [single for item in request.items for single in item.singles()]
        return await bisect(request, rows, limited)

    async with bench(Scripted(halved), max_items=150) as b:
        await b.delivery.add(other, SourceRecord("topic", 4, 0, 0, b"x-y-z " * 16 + b"u v", "logs"))
        await b.add("-".join(words[:50]), " ".join(words[50:]))
        await b.reaches(2)
        assert [word for word in accepted if word in good] == good, "each once, in order"
        assert [(letter, detail) for letter, detail, _ in b.grave.letters] == [("bad", "400 bad")] * 2
        assert not b.account.unsettled
        assert asked <= 2 * (1 + 2 * 2 * 8)


@asynccontextmanager
async def halving(hold: Callable[[Bench], Coroutine[Any, Any, None]]) -> AsyncIterator[tuple[Bench, list[str]]]:
    """Every row is refused; the third request is under way while `hold` begins. And what was asked, one by one."""
    asked: list[str] = []
    release, third = asyncio.Event(), asyncio.Event()

    async def refuse(items: Sequence[Word]) -> Outcome | Rejected:
        asked.append(" ".join(item.word for item in items))
        if len(asked) == 3:
            third.set()
            await release.wait()
        return Rejected("400 no")

    async def halved(request: Request[Word]) -> Outcome:
        return await bisect(request, request.items, refuse)

    async with bench(Scripted(halved), max_items=4) as b:
        await b.add("a b c d")
        await third.wait()
        holding = asyncio.create_task(hold(b))
        await asyncio.sleep(0)
        release.set()
        async with asyncio.timeout(DEADLINE):
            await holding
        yield b, asked


async def test_a_rebalance_waits_for_one_answer_of_a_halving_which_goes_on_where_it_stood() -> None:
    async with halving(lambda b: b.delivery.pause("one")) as (b, asked):
        assert asked == ["a b c d", "a b", "a"]
        assert [letter for letter, *_ in b.grave.letters] == ["a"], "what has been found is settled"
        b.delivery.resume("one")
        await b.reaches(1)
        assert asked[3:] == ["b", "c d", "c", "d"]
        assert [b.requests(outcome) for outcome in ("refused", "retried", "accepted")] == [7, 0, 0]


async def test_a_halving_ends_with_the_worker() -> None:
    async with halving(lambda b: b.delivery.drain(DEADLINE)) as (b, asked):
        assert asked == ["a b c d", "a b", "a"]
        assert b.account.unsettled == 3


@pytest.mark.parametrize("paused", [True, False])
async def test_a_halving_ends_with_its_partition(paused: bool) -> None:
    async def moved(b: Bench) -> None:
        if paused:
            await b.delivery.pause("one")
        b.delivery.drop(b.account, "topic", 3)
        b.delivery.resume("one")

    other = Account(10)

    async def settled() -> bool:
        return other.position == 11

    async with halving(moved) as (b, asked):
        await b.delivery.add(other, SourceRecord("topic", 4, 10, 0, b"e", "logs"))
        await eventually(settled, DEADLINE, "the other partition goes on")
        assert asked == ["a b c d", "a b", "a", "e"]


async def test_a_halving_waits_until_the_group_has_counted_this_worker_in() -> None:
    there, asked = [True], 0

    async def confirmed() -> bool:
        await asyncio.sleep(0)
        return there[-1]

    async def refuse(_: Sequence[Word]) -> Outcome | Rejected:
        nonlocal asked
        asked += 1
        there.append(asked != 3)
        return Rejected("400 no")

    async def halved(request: Request[Word]) -> Outcome:
        return await bisect(request, request.items, refuse)

    async with bench(Scripted(halved), confirmed=confirmed, max_items=4) as b:
        await b.add("a b c d")

        async def found() -> bool:
            return len(b.grave.letters) == 1

        await eventually(found, DEADLINE, "what has been found is settled")
        async with asyncio.timeout(DEADLINE):
            await b.delivery.pause("one")
        assert asked == 3
        there.append(True)
        b.delivery.resume("one")
        await b.reaches(1)
        assert asked == 7


async def test_an_outage_is_told_once_with_destination_and_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.sending.delivery")
    async with bench(Scripted(Script(*[Unavailable("Connect refused")] * 5))) as b:
        await b.add("a")
        await b.reaches(1)

        async def told() -> bool:
            return any(r.message == "sink accepts again" for r in caplog.records)

        await eventually(told, DEADLINE, "the end of the outage is logged")
    first, last = caplog.records
    assert (first.levelname, last.levelname) == ("WARNING", "INFO")
    told_of = vars(first)
    assert (told_of["sink"], told_of["endpoint"], told_of["error"]) == (b.name, "http://unused", "Connect refused")


async def test_parameters_of_an_endpoint_are_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """They may be secret; where the sink writes to stays visible."""
    caplog.set_level(logging.INFO, "pipeline.sending.delivery")
    script = Script(Unavailable("Connect refused"), Outcome(refused=(Refusal(0, "bad"),)))
    async with bench(Scripted(script), url="https://host/api?api_key=s3cret&u=s3cret") as b:
        await b.add("a")
        await b.reaches(1)
    down, refused = [r for r in caplog.records if r.levelname == "WARNING"]
    assert vars(down)["endpoint"] == vars(refused)["endpoint"] == "https://host/api?**********"
    assert "s3cret" not in str([vars(record) for record in caplog.records])
