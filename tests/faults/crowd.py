"""Millions of requests for the price of a few hundred: the messages of a mould, stamped again with other ids.

A copy differs from its mould in trace ids, span ids, log uids and the time of its records; what a request is, and
which policy keeps it, is the mould's, but for the share of traces that is kept by their ids.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from tests.end_to_end.harness import RAW_PARTITIONS
from tests.end_to_end.traffic import KINDS, SPREAD_SECONDS, Batches, Message, Shop
from tests.end_to_end.truth import Log, Span

MOULD_REQUESTS = 500
SPANS_PER_REQUEST = 5
ODD_EVERY = 25  # of the requests one in so many is not fine: each of the other kinds in turn
FIRST_NUMBER = 10_000_000  # the numbers of requests are in the uids of logs, which keep their length
TRACE_BYTES, SPAN_BYTES = 16, 8


def messages(topics: tuple[str, str], seed: int, spans_per_second: float, begin: float) -> Iterator[Message]:
    """Messages without an end, in the order of their times, from `begin` on (seconds since the epoch)."""
    rng = random.Random(seed)
    seconds = MOULD_REQUESTS * SPANS_PER_REQUEST / spans_per_second
    stamps = [_Stamp(message) for message in _mould(topics, seed, seconds, begin)]
    waiting: list[Message] = []
    for number in count():
        mask, shift = rng.getrandbits(8 * TRACE_BYTES), number * seconds
        waiting += [stamp.copy(shift, mask, number * MOULD_REQUESTS) for stamp in stamps]
        waiting.sort(key=lambda message: message.at)
        due = begin + shift + seconds
        ready = sum(message.at < due for message in waiting)
        yield from waiting[:ready]
        del waiting[:ready]


def _mould(topics: tuple[str, str], seed: int, seconds: float, begin: float) -> list[Message]:
    shop = Shop(seed, FIRST_NUMBER)
    batches = Batches(*topics, RAW_PARTITIONS, random.Random(seed))
    odd = [kind for kind in KINDS if kind != "fine"]
    for number in range(MOULD_REQUESTS):
        at = begin + seconds * number / MOULD_REQUESTS
        turn, left = divmod(number, ODD_EVERY)
        for facts in shop.request(at, "fine" if left else odd[turn % len(odd)]):
            batches.add(at, facts)
    return list(batches.due(begin + seconds + 2 * SPREAD_SECONDS))


class _Stamp:
    """One message of the mould, and where in it the ids are."""

    def __init__(self, message: Message) -> None:
        self._message = message
        traces, spans, uids = set[str](), set[str](), dict[str, Log]()
        for fact in message.facts:
            traces.add(fact.trace_id)
            spans |= {fact.span_id, fact.parent} - {""} if isinstance(fact, Span) else {fact.span_id}
            if isinstance(fact, Log):
                uids[fact.uid] = fact
        self._traces = [(place, int(i, 16)) for i in traces for place in _places(message.value, bytes.fromhex(i))]
        self._spans = [(place, int(i, 16)) for i in spans for place in _places(message.value, bytes.fromhex(i))]
        self._uids = [(place, uid) for uid in uids for place in _places(message.value, uid.encode())]

    def copy(self, shift: float, mask: int, more: int) -> Message:
        """Later by `shift` seconds, its ids xor `mask`, the numbers in its uids larger by `more`."""
        value, low = bytearray(self._message.value), mask & ((1 << 8 * SPAN_BYTES) - 1)
        for place, whole in self._traces:
            value[place : place + TRACE_BYTES] = (whole ^ mask).to_bytes(TRACE_BYTES, "big")
        for place, whole in self._spans:
            value[place : place + SPAN_BYTES] = (whole ^ low).to_bytes(SPAN_BYTES, "big")
        for place, uid in self._uids:
            value[place : place + len(uid)] = _renumbered(uid, more).encode()
        facts = tuple(_stamped(fact, mask, low, more) for fact in self._message.facts)
        return replace(self._message, at=self._message.at + shift, value=bytes(value), facts=facts)


def _stamped(fact: Span | Log, mask: int, low: int, more: int) -> Span | Log:
    trace_id = f"{int(fact.trace_id, 16) ^ mask:032x}"
    span_id = f"{int(fact.span_id, 16) ^ low:016x}"
    if isinstance(fact, Log):
        uid = _renumbered(fact.uid, more)
        return Log(uid, fact.service, fact.severity, fact.body, fact.time_ns, trace_id, span_id)
    parent = f"{int(fact.parent, 16) ^ low:016x}" if fact.parent else ""
    return Span(
        trace_id, span_id, parent, fact.service, fact.name, fact.start_ns, fact.end_ns, fact.error, fact.attributes
    )


def _renumbered(uid: str, more: int) -> str:
    seed, number, depth = uid.rsplit("-", 2)
    return f"{seed}-{int(number) + more}-{depth}"


def _places(value: bytes, part: bytes) -> Iterator[int]:
    place = value.find(part)
    while place >= 0:
        yield place
        place = value.find(part, place + len(part))
