"""Ticks in a real Prometheus; faults from a local server."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import aiohttp
import cramjam
import pytest
from aiohttp import web

from pipeline.demo.remote_write import decode
from pipeline.sending.delivery import Delivery
from pipeline.sending.settlement import Account
from pipeline.telemetry import REGISTRY
from schemas.otlp_build import field
from schemas.point import ExponentialValue, HistogramValue, Shape, Value
from schemas.sample import SeriesBlock
from sinks.contract import Item, Outcome, Refusal, SourceRecord
from sinks.http import shortened
from sinks.prometheus import NOTHING, Prometheus
from sinks.refused_samples import MANY_DELIVERED, REFUSED_FOR
from sinks.remote_write import defect
from sinks.sample_item import SampleItem
from tests.services import Prometheus as PrometheusServer
from tests.services import eventually
from tests.sinks.building import bad, counter, now_ms, sink, tick
from tests.sinks.faulty import FaultyServer, Reply, faulty, reset, status

HOUR = 3_600_000
receiver = partial(faulty, taken=NOTHING)


@pytest.fixture
def now() -> int:
    """Milliseconds."""
    return now_ms()


@pytest.fixture(scope="module")
def strict() -> Iterator[PrometheusServer]:
    """A Prometheus that takes no sample older than the newest of its series."""
    with PrometheusServer({"storage": {}}) as server:
        yield server


def fresh() -> str:
    return f"m{uuid.uuid4().hex[:8]}_total"


def encode(destination: Prometheus, records: list[SourceRecord]) -> list[SampleItem]:
    *before, last = [destination.encode(record) for record in records]
    assert before == [None] * len(before)
    assert last is not None
    return last


def samples(items: list[SampleItem]) -> list[SampleItem]:
    """One item for each."""
    return [alone for item in items for alone in item.singles()]


async def send(url: str, records: list[SourceRecord]) -> Outcome:
    """All samples of a tick in one request."""
    destination = Prometheus(sink(url))
    await destination.start()
    try:
        return await destination.send(destination.request(encode(destination, records)))
    finally:
        await destination.close()


def counted(destination: Prometheus) -> list[bytes]:
    """The bodies that it posts from here on."""
    posts: list[bytes] = []
    post = destination._http.post

    async def noted(url: str, body: bytes, headers: dict[str, str]) -> Any:
        posts.append(body)
        return await post(url, body, headers)

    destination._http.post = noted  # type: ignore[method-assign, assignment]
    return posts


async def query(server: PrometheusServer, expression: str, time_ms: int) -> dict[str, float]:
    """Values by service of an instant query."""

    async def ask() -> Any:
        params = {"query": expression, "time": str(time_ms / 1000)}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{server.url}/api/v1/query", params=params) as response,
        ):
            return (await response.json())["data"]["result"]

    found = await eventually(ask, 10, expression)
    return {one["metric"].get("service", ""): float(one["value"][1]) for one in found}


async def test_a_tick_is_queried_back(prometheus: PrometheusServer, now: int) -> None:
    calls, duration = fresh(), fresh().replace("_total", "_ms")
    shape = Shape("histogram", ("service",), (2.0, 10.0))
    histogram = SeriesBlock(duration, shape, [(("cart",), HistogramValue(4, 21.0, (1, 2, 1)))])
    records = tick(1, now, counter(calls, [(("cart",), 3), (("pay",), 4.5)]), histogram)
    assert await send(prometheus.remote_write_url, records) == Outcome(accepted=2 + 5)
    assert await query(prometheus, calls, now) == {"cart": 3, "pay": 4.5}
    assert await query(prometheus, f'{duration}_bucket{{le="10"}}', now) == {"cart": 3}
    assert await query(prometheus, f"{duration}_count", now) == {"cart": 4}
    assert await query(prometheus, f"histogram_quantile(0.25, {duration}_bucket)", now) == {"cart": 2}


@pytest.mark.parametrize("total", [6.0, math.nan])
async def test_the_zero_of_a_native_histogram_has_a_sum_if_the_histogram_has_one(
    prometheus: PrometheusServer, now: int, total: float
) -> None:
    name, shape = fresh().replace("_total", "_ms"), Shape("exponential", ("service",), open=True)
    row = ("cart",), ExponentialValue(3, total, 0, 0, 0.0, 1, (3,), 0, ())
    block = SeriesBlock(name, shape, [row], fresh=1)
    await send(prometheus.remote_write_url, tick(1, now, block, since_ms=now - 10_000))
    for at, number, summed in ((now - 9_000, 0, 0 * total), (now, 3, total)):
        assert await query(prometheus, f"histogram_count({name})", at) == {"cart": number}
        assert str((await query(prometheus, f"histogram_sum({name})", at))["cart"]) == str(summed)
    assert await query(prometheus, f"histogram_count(increase({name}[60s])) > 0", now)


async def test_a_series_that_ends_is_gone_at_once(prometheus: PrometheusServer, now: int) -> None:
    calls = fresh()
    await send(prometheus.remote_write_url, tick(1, now - 2000, counter(calls, [(("cart",), 1), (("pay",), 1)])))
    ended = SeriesBlock(calls, Shape("counter", ("service",)), [(("cart",), 2)], [("pay",)])
    await send(prometheus.remote_write_url, tick(2, now - 1000, ended))
    assert await query(prometheus, calls, now - 2000) == {"cart": 1, "pay": 1}
    assert await query(prometheus, calls, now) == {"cart": 2}


async def test_a_histogram_that_ends_is_gone_and_what_comes_back_is_counted_from_zero(
    prometheus: PrometheusServer, now: int
) -> None:
    name, shape = fresh().replace("_total", "_ms"), Shape("histogram", ("service",), (2.0, 10.0))

    def at(time_ms: int, block: SeriesBlock) -> list[SourceRecord]:
        return tick(1, time_ms, block, since_ms=time_ms - 10_000)

    url, cart = prometheus.remote_write_url, ("cart",)
    three, five = HistogramValue(3, 9.0, (0, 3, 0)), HistogramValue(5, 15.0, (0, 5, 0))
    await send(url, at(now - 40_000, SeriesBlock(name, shape, [(cart, three)])))
    await send(url, at(now - 30_000, SeriesBlock(name, shape, [], [cart])))
    for suffix in ("_bucket", "_sum", "_count"):
        assert await query(prometheus, f"count({name}{suffix}) or vector(0)", now - 29_000) == {"": 0}
    await send(url, at(now - 10_000, SeriesBlock(name, shape, [(cart, five)], fresh=1)))
    assert await query(prometheus, f"resets({name}_count[60s])", now) == {"cart": 1}
    assert await query(prometheus, f'{name}_bucket{{le="10"}}', now) == {"cart": 5}


async def test_prometheus_refuses_one_sample_and_gets_the_others(prometheus: PrometheusServer, now: int) -> None:
    calls, future = fresh(), fresh()
    destination = Prometheus(sink(prometheus.remote_write_url, shards=1, batch={"max_items": 48}))
    items = encode(destination, tick(1, now, counter(calls, [((f"s{n}",), n) for n in range(10)])))
    assert [item.rows for item in items] == [6, 4]
    items[1:1] = encode(destination, tick(1, now + 24 * HOUR, counter(future, [(("cart",), 1)])))
    await destination.start()
    outcome = await destination.send(destination.request(items))
    await destination.close()
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (10, [6], ())
    assert outcome.refused[0].detail.startswith("400 ")
    assert outcome.refused[0].detail == f"400 {shortened(outcome.refused[0].said)}", "the server's own answer"
    assert await query(prometheus, calls, now) == {f"s{n}": n for n in range(10)}


async def test_one_bad_sample_of_many_is_found_in_the_middle_of_a_slice(strict: PrometheusServer, now: int) -> None:
    calls = fresh()
    destination = Prometheus(sink(strict.remote_write_url, shards=1))
    await destination.start()
    newer = tick(2, now, counter(calls, [(("s37",), 1)]))
    assert await destination.send(destination.request(encode(destination, newer))) == Outcome(accepted=1)
    rows = [((f"s{n}",), n) for n in range(100)]
    (item,) = encode(destination, tick(1, now - 1000, counter(calls, rows)))
    outcome = await destination.send(destination.request([item]))
    await destination.close()
    assert (item.rows, outcome.accepted, [refusal.index for refusal in outcome.refused]) == (100, 99, [37])
    alone = item.singles()[37]
    (sample,) = decode(bytes(cramjam.snappy.compress_raw(alone.dead_letter())))
    assert (dict(sample.labels), alone.origin.index) == ({"__name__": calls, "service": "s37"}, 37)
    assert await query(strict, calls, now - 500) == {f"s{n}": n for n in range(100) if n != 37}


@pytest.mark.parametrize(
    ("window", "says", "most"),
    [({}, "out of bounds", 40), ({"out_of_order_time_window": "10m"}, "too old sample", 110)],
)
async def test_a_backlog_that_is_too_old_is_refused_at_once(
    window: dict[str, str], says: str, most: int, now: int
) -> None:
    """Prometheus refuses by the time of a sample: what is as old need not be asked for. What is newer is taken."""
    calls, old = fresh(), now - 5 * HOUR
    rows: list[tuple[tuple[str, ...], Value]] = [((f"s{n}",), n) for n in range(300)]
    with PrometheusServer({"storage": {"tsdb": window}}) as server:
        await send(server.remote_write_url, tick(1, now, counter(fresh(), [(("live",), 1)])))
        destination = Prometheus(sink(server.remote_write_url, shards=1))
        begun = SeriesBlock(calls, Shape("counter", ("service",)), rows, fresh=100)
        items = encode(destination, tick(2, old, begun, since_ms=old - 10_000))
        items += encode(destination, tick(3, now - 60_000, counter(calls, rows)))
        await destination.start()
        posts = counted(destination)
        outcome = await destination.send(destination.request(items))
        await destination.close()
        assert [refusal.index for refusal in outcome.refused] == list(range(400))
        assert all(says in refusal.detail for refusal in outcome.refused)
        assert (outcome.accepted, outcome.retry) == (300, ())
        assert len(posts) <= most
        assert await query(server, calls, now) == {f"s{n}": n for n in range(300)}


@pytest.mark.parametrize("reason", ["label value too long", "native histograms are disabled", "out of order sample"])
async def test_what_is_refused_for_something_else_behind_what_is_too_old_says_nothing_of_its_time(
    reason: str, now: int
) -> None:
    old, calls, rows = now - HOUR, fresh(), [((f"s{n}",), n) for n in range(40)]

    def reply(request: web.Request, body: bytes) -> web.Response:
        found = decode(body)
        if any(each.time_ms == old for each in found):
            return web.Response(status=400, text="too old sample")
        wrong = any(dict(each.labels)["service"] == "s0" for each in found)
        return web.Response(status=400 if wrong else 204, text=reason if wrong else "")

    async with receiver(reply) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        items = encode(destination, tick(1, old, counter(calls, rows)))
        items += encode(destination, tick(2, now, counter(calls, rows)))
        outcome = await destination.send(destination.request(items))
        await destination.close()
    assert [refusal.index for refusal in outcome.refused] == [*range(41)]
    assert (outcome.accepted, outcome.refused[-1].detail) == (39, f"400 {reason}")


async def test_what_is_too_old_beside_a_newer_sample_says_nothing_of_a_new_series(
    prometheus: PrometheusServer, now: int
) -> None:
    """Within the last hour the same time is too old for a series that has gone on, and good for a new one."""
    calls, at = fresh(), now - 20 * 60_000
    await send(prometheus.remote_write_url, tick(1, now, counter(calls, [((f"s{n}",), 1) for n in range(0, 200, 2)])))
    outcome = await send(
        prometheus.remote_write_url, tick(2, at, counter(calls, [((f"s{n}",), n) for n in range(200)]))
    )
    assert (outcome.accepted, len(outcome.refused)) == (100, 100)
    assert await query(prometheus, calls, at) == {f"s{n}": n for n in range(1, 200, 2)}


async def test_of_what_is_sent_again_each_sample_is_asked_for(prometheus: PrometheusServer, now: int) -> None:
    """One lane of the predecessor was far ahead: its series are too old, all in a row, those of another are new."""
    calls, at = fresh(), now - 20 * 60_000
    await send(prometheus.remote_write_url, tick(1, now, counter(calls, [((f"s{n}",), 1) for n in range(100)])))
    destination = Prometheus(sink(prometheus.remote_write_url, shards=1))
    await destination.start()
    again = tick(2, at, counter(calls, [((f"s{n}",), n) for n in range(200)]), redelivered=True)
    outcome = await destination.send(destination.request(encode(destination, again)))
    await destination.close()
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused]) == (100, list(range(100)))
    assert await query(prometheus, calls, at) == {f"s{n}": n for n in range(100, 200)}


async def test_what_the_predecessor_delivered_takes_a_request_for_each_and_no_more(
    strict: PrometheusServer, now: int
) -> None:
    """Of some the newer sample never arrived: these are still taken, wherever they stand."""
    calls, missing = fresh(), {150, 151, 299}
    rows: list[tuple[tuple[str, ...], Value]] = [((f"s{n}",), n) for n in range(300)]
    newer = [row for n, row in enumerate(rows) if n not in missing]
    await send(strict.remote_write_url, tick(2, now, counter(calls, newer)))
    destination = Prometheus(sink(strict.remote_write_url, shards=1))
    await destination.start()
    posts = counted(destination)
    again = tick(1, now - 1000, counter(calls, rows), redelivered=True)
    outcome = await destination.send(destination.request(encode(destination, again)))
    await destination.close()
    assert outcome == Outcome(accepted=3, already_delivered=297)
    assert len(posts) < 300 + 3 * MANY_DELIVERED
    assert await query(strict, calls, now - 500) == {f"s{n}": n for n in missing}


LIMIT = "the tenant exceeded the per-user series limit of 150000 (err-mimir-max-series-per-user)"


def limited(*refused: str) -> Callable[[web.Request, bytes], web.Response]:
    """A receiver that has no room for series of these services, and no word of which they are."""

    def reply(request: web.Request, body: bytes) -> web.Response:
        wrong = any(dict(each.labels)["service"] in refused for each in decode(body))
        return web.Response(status=400 if wrong else 200, text=LIMIT if wrong else "")

    return reply


def taken(server: FaultyServer, *refused: str) -> list[tuple[str, float | None]]:
    """(service, value) of what such a receiver took."""
    decoded = [[(dict(s.labels)["service"], s.value) for s in decode(seen.body)] for seen in server.seen]
    return sorted(found for each in decoded if not {name for name, _ in each} & set(refused) for found in each)


async def test_a_series_that_is_refused_is_not_searched_for_with_every_tick(now: int) -> None:
    """Each of its samples is refused all the same; after some minutes they are sent again."""
    clock, calls = [0.0], fresh()
    async with receiver(limited("s7", "s91")) as server:
        destination = Prometheus(sink(server.url, shards=1), lambda: clock[0])
        await destination.start()
        asked = []
        for number, at in enumerate((0.0, 15.0, REFUSED_FOR - 1, REFUSED_FOR + 1)):
            clock[0], before = at, len(server.seen)
            rows: list[tuple[tuple[str, ...], Value]] = [((f"s{n}",), number) for n in range(100)]
            items = encode(destination, tick(number, now + number, counter(calls, rows)))
            outcome = await destination.send(destination.request(items))
            assert (outcome.accepted, [refusal.index for refusal in outcome.refused]) == (98, [7, 91])
            assert [refusal.detail for refusal in outcome.refused] == [f"400 {LIMIT}"] * 2
            asked.append(len(server.seen) - before)
        await destination.close()
        assert asked == [asked[0], 1, 1, asked[0]]
        assert taken(server, "s7", "s91") == sorted(
            (f"s{n}", float(tick)) for n in range(100) for tick in range(4) if n not in (7, 91)
        )


async def test_a_search_that_a_limit_ends_goes_on_with_the_part_that_it_had_reached(now: int) -> None:
    def scarce(request: web.Request, body: bytes) -> web.Response:
        limit = len(server.seen) % 4 == 0
        return web.Response(status=429) if limit else limited("s37", "s38")(request, body)

    calls = fresh()
    async with receiver(scarce) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        (item,) = encode(destination, tick(1, now, counter(calls, [((f"s{n}",), n) for n in range(100)])))
        left, refused, outcome = item.singles(), [], Outcome()
        while left:
            assert len(server.seen) < 40
            request = destination.request(left)
            request.parts = outcome.parts
            outcome = await destination.send(request)
            refused += [left[refusal.index].origin.index for refusal in outcome.refused]
            left = [left[index] for index in outcome.retry]
        await destination.close()
        assert refused == [37, 38]


async def test_what_is_refused_for_its_time_says_nothing_of_its_series(strict: PrometheusServer, now: int) -> None:
    calls = fresh()
    await send(strict.remote_write_url, tick(2, now - 1000, counter(calls, [(("cart",), 2)])))
    destination = Prometheus(sink(strict.remote_write_url))
    await destination.start()
    for at, refused in ((now - 2000, True), (now + 24 * HOUR, True), (now, False)):
        items = encode(destination, tick(1, at, counter(calls, [(("cart",), 3)])))
        outcome = await destination.send(destination.request(items))
        assert bool(outcome.refused) == refused
    await destination.close()


@pytest.mark.parametrize(
    ("said", "of_its_series"),
    [
        ("user=t: err: duplicate sample for timestamp. timestamp=2026-01-01T00:00:00Z", False),
        ("the sample has been rejected because its timestamp is too old (err-mimir-sample-timestamp-too-old)", False),
        ("received a sample whose timestamp is too far in the future (err-mimir-too-far-in-future)", False),
        ("too old sample", False),
        ('timestamp too new: 1798761600000 metric: "a"', False),
        ("received a native histogram sample with too many buckets (err-mimir-max-native-histogram-buckets)", False),
        ("histogram's sum of buckets is wrong", False),
        ("native histograms are disabled", True),
        ("label name too long", True),
    ],
)
async def test_whether_a_refusal_is_of_the_sample_or_of_its_series(said: str, of_its_series: bool, now: int) -> None:
    calls = fresh()
    async with receiver(status(400), status(400, said), status(204)) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        for number in range(2):
            items = encode(destination, tick(number, now + number, counter(calls, [(("cart",), 1), (("pay",), 1)])))
            outcome = await destination.send(destination.request(items))
            assert outcome.accepted + len(outcome.refused) == 2
        await destination.close()
        assert outcome.accepted == (1 if of_its_series else 2)


@pytest.mark.parametrize("redelivered", [True, False])
async def test_what_is_hidden_of_an_answer_counts_all_the_same(redelivered: bool, now: int) -> None:
    """A parameter of the URL may be a word of it."""
    records = tick(1, now, counter(fresh(), [(("cart",), 1)]), redelivered=redelivered)
    async with receiver(status(400, "duplicate sample for timestamp")) as server:
        outcome = await send(f"{server.url}/write?x=sample", records)
    assert outcome.already_delivered == redelivered
    hidden = [] if redelivered else ["400 duplicate ********** for timestamp"]
    assert [refusal.detail for refusal in outcome.refused] == hidden


@pytest.mark.parametrize("new", [0, 1, 9])
async def test_a_receiver_that_refuses_all_and_is_mended_gets_everything_at_once(new: int, now: int) -> None:
    """Also beside series that are `new` with every tick, which it takes: the others are no dead letters for minutes."""
    everything = [f"s{n}" for n in range(20)]
    calls, reply = fresh(), limited(*everything)
    async with receiver(reply) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        asked = []
        for number in range(4):
            before = len(server.seen)
            if number == 2:
                server.replies = [status(200)]
                server.seen.clear()
                before = 0
            names = everything + [f"new{number}-{n}" for n in range(new)]
            rows: list[tuple[tuple[str, ...], Value]] = [((name,), number) for name in names]
            items = encode(destination, tick(number, now + number, counter(calls, rows)))
            outcome = await destination.send(destination.request(items))
            assert (outcome.accepted, len(outcome.refused)) == ((new, 20) if number < 2 else (20 + new, 0))
            asked.append(len(server.seen) - before)
        await destination.close()
        assert asked[1:] == [2 if new else 1, 2, 1]
        assert {(name, float(number)) for name in everything for number in (2, 3)} <= set(taken(server))


@pytest.mark.parametrize("path", ["query", "series"])
async def test_a_path_at_which_prometheus_refuses_everything_costs_time_and_no_samples(
    prometheus: PrometheusServer, now: int, path: str
) -> None:
    records = tick(1, now, counter(fresh(), [(("a",), 1), (("b",), 1)]))
    outcome = await send(f"{prometheus.url}/api/v1/{path}", records)
    assert (outcome.refused, outcome.retry, outcome.reason) == ((), (0, 1), "no_receiver")
    assert outcome.detail.startswith("400 ")
    assert outcome.detail.endswith("is the endpoint that of remote write?")


async def test_a_receiver_that_refuses_the_first_samples_is_one_all_the_same(
    prometheus: PrometheusServer, now: int
) -> None:
    """It takes a request without any, and is asked that once."""
    destination = Prometheus(sink(prometheus.remote_write_url, shards=1))
    await destination.start()
    posts = counted(destination)
    for number in range(2):
        late = tick(number, now - 24 * HOUR, counter(fresh(), [(("a",), 1)]))
        outcome = await destination.send(destination.request(encode(destination, late)))
        assert len(outcome.refused) == 1
    await destination.close()
    assert posts.count(NOTHING) == 1


@pytest.mark.parametrize(("said", "wrong"), [(400, True), (503, True), (422, False)])
async def test_what_is_said_of_a_request_without_samples_says_who_is_wrong(said: int, wrong: bool, now: int) -> None:
    """If it is refused otherwise than they are, they are to blame; if it is not answered, they are sent again."""
    async with faulty(status(400, "bad"), status(said)) as server:
        outcome = await send(server.url, tick(1, now, counter(fresh(), [(("a",), 1)])))
    assert (len(outcome.refused), len(outcome.retry)) == ((0, 1) if wrong else (1, 0))
    assert not outcome.lost, "no answer left open whether they were taken"


async def test_a_trial_that_is_not_answered_costs_nothing(now: int) -> None:
    calls = fresh()
    async with receiver(status(400, LIMIT)) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        outcomes = []
        for number, reply in enumerate((status(400, LIMIT), status(503), status(200))):
            server.replies = [reply]
            items = encode(destination, tick(number, now + number, counter(calls, [(("a",), 1), (("b",), 1)])))
            outcomes.append(await destination.send(destination.request(items)))
        await destination.close()
    assert [len(outcome.refused) for outcome in outcomes] == [2, 0, 0]
    assert (outcomes[1].retry, outcomes[1].reason, outcomes[2].accepted) == ((0, 1), "503", 2)


async def test_refused_series_are_remembered_up_to_a_number(now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.refused_samples.MOST_REFUSED", 1)
    calls = fresh()
    async with receiver(limited("s1", "s2")) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        for number in range(2):
            rows: list[tuple[tuple[str, ...], Value]] = [((f"s{n}",), number) for n in range(8)]
            items = encode(destination, tick(number, now + number, counter(calls, rows)))
            outcome = await destination.send(destination.request(items))
            assert [refusal.index for refusal in outcome.refused] == [1, 2]
        await destination.close()
        assert len(destination._refused._found) == 1


@pytest.mark.parametrize("value", [3, ExponentialValue(0, 0.0, 0, 0, 0.0, 0, (), 0, ())])
def test_the_labels_of_a_series_stay_the_same(value: Value, now: int) -> None:
    destination, names = Prometheus(sink("http://unused", shards=1)), ("service", "path")
    shape = Shape("counter", names) if value == 3 else Shape("exponential", names, (), 1, True)
    rows: list[tuple[tuple[str, ...], Value]] = [(("cart", "x" * size), value) for size in (1, 126, 127, 128, 20_000)]
    (first,) = encode(destination, tick(1, now, SeriesBlock("a", shape, rows)))
    (second,) = encode(destination, tick(2, now + 15_000, SeriesBlock("a", shape, rows)))
    assert first.labels() == second.labels()
    for (labels, _), found in zip(rows, first.labels(), strict=True):
        series = field(0x0A, found + field(0x12, b"\x10\x01"))
        (sample,) = decode(bytes(cramjam.snappy.compress_raw(series)))
        assert dict(sample.labels) == {"__name__": "a", **dict(zip(names, labels, strict=True))}


async def test_what_is_far_in_the_future_is_refused_at_once(prometheus: PrometheusServer, now: int) -> None:
    """Prometheus says "out of bounds" of what is too old as well, but that says nothing of what is older."""
    calls = fresh()
    rows: list[tuple[tuple[str, ...], Value]] = [((f"s{n}",), n) for n in range(300)]
    destination = Prometheus(sink(prometheus.remote_write_url, shards=1))
    items = encode(destination, tick(2, now + HOUR, counter(calls, rows)))
    items += encode(destination, tick(1, now, counter(calls, rows)))
    await destination.start()
    posts = counted(destination)
    outcome = await destination.send(destination.request(items))
    await destination.close()
    assert [refusal.index for refusal in outcome.refused] == list(range(300))
    assert all("too far in the future" in refusal.detail for refusal in outcome.refused)
    assert (outcome.accepted, outcome.retry) == (300, ())
    assert len(posts) <= 40
    assert await query(prometheus, calls, now) == {f"s{n}": n for n in range(300)}


async def test_what_the_predecessor_delivered_is_recognised(strict: PrometheusServer, now: int) -> None:
    calls, url = fresh(), strict.remote_write_url
    old = counter(calls, [(("cart",), 1), (("pay",), 1)])
    await send(url, tick(1, now - 2000, old))
    await send(url, tick(2, now - 1000, counter(calls, [(("cart",), 2)])))
    # Of the older tick one sample is out of order by now, the other the newest of its series: the same again is taken.
    again = await send(url, tick(1, now - 2000, old, redelivered=True))
    assert again == Outcome(accepted=1, already_delivered=1)
    assert await query(strict, calls, now) == {"cart": 2, "pay": 1}


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (reset, "already_delivered"),
        (status(500), "already_delivered"),
        (status(503), "already_delivered"),
        (status(429), "refused"),
        (status(404), "refused"),
    ],
)
async def test_a_sample_that_cannot_have_been_taken_before_is_not_already_delivered(
    first: Reply, outcome: str, now: int
) -> None:
    """Another one has written a newer sample of its series meanwhile: it goes to the dead letters."""
    letters: list[str] = []

    async def bury(items: Sequence[Item], refusal: Refusal) -> None:
        letters.append(refusal.detail)

    def counted() -> float:
        labels = {"sink": delivery.name, "outcome": outcome}
        return REGISTRY.get_sample_value("tailrace_sink_items_total", labels) or 0.0

    async def done() -> bool:
        return account.position > footer.offset

    async with receiver(first, status(400, "out of order sample")) as server:
        settings = sink(server.url, batch={"max_age": "10ms"}, retry={"initial_interval": "1ms"})
        delivery, account = Delivery(fresh(), Prometheus(settings), settings, bury), Account(0)
        await delivery.open()
        *_, footer = records = tick(1, now, counter("calls", [(("cart",), 1)]))
        for record in records:
            await delivery.add(account, record)
        await eventually(done, 10, "the tick is settled")
        await delivery.close()
    assert (counted(), len(letters)) == (1, outcome == "refused")


async def test_of_a_search_without_an_answer_only_what_was_sent_may_have_been_taken(now: int) -> None:
    def dead_end(request: web.Request, body: bytes) -> web.StreamResponse:
        services = {dict(each.labels)["service"] for each in decode(body)}
        if "s50" in services and len(services) < 100:
            return reset(request, body)
        return limited("s7")(request, body)

    async with receiver(dead_end) as server:
        destination = Prometheus(sink(server.url, shards=1))
        await destination.start()
        items = encode(destination, tick(1, now, counter(fresh(), [((f"s{n}",), n) for n in range(100)])))
        outcome = await destination.send(destination.request(items))
        assert (outcome.retry, outcome.lost) == (tuple(range(50, 100)), tuple(range(50, 100)))
        server.replies = [reset]
        outcome = await destination.send(destination.request(items))
        assert [refusal.index for refusal in outcome.refused] == [7], "unsent: its series was refused"
        assert outcome.lost == outcome.retry == tuple(n for n in range(100) if n != 7)
        await destination.close()


async def test_out_of_order_without_a_repetition_is_refused(strict: PrometheusServer, now: int) -> None:
    calls, url = fresh(), strict.remote_write_url
    await send(url, tick(2, now - 1000, counter(calls, [(("cart",), 2)])))
    outcome = await send(url, tick(1, now - 2000, counter(calls, [(("cart",), 1)])))
    assert (outcome.already_delivered, len(outcome.refused)) == (0, 1)
    assert "out of order" in outcome.refused[0].detail


async def test_another_value_at_the_same_time_is_refused_unless_repeated(strict: PrometheusServer, now: int) -> None:
    calls, url = fresh(), strict.remote_write_url
    await send(url, tick(1, now, counter(calls, [(("cart",), 1)])))
    changed = tick(1, now, counter(calls, [(("cart",), 2)]))
    outcome = await send(url, changed)
    assert "duplicate sample" in outcome.refused[0].detail
    again = tick(1, now, counter(calls, [(("cart",), 2)]), redelivered=True)
    assert await send(url, again) == Outcome(already_delivered=1)


def test_a_tick_is_held_back_until_its_footer(now: int) -> None:
    destination = Prometheus(sink("http://unused"))
    header, chunk, footer = tick(1, now, counter("a", [(("cart",), 1)]))
    assert destination.encode(header) is None
    assert destination.encode(chunk) is None
    items = destination.encode(footer)
    assert items is not None
    assert [item.origin.offset for item in items] == [chunk.offset]


def test_an_interrupted_tick_is_forgotten(now: int) -> None:
    destination = Prometheus(sink("http://unused"))
    for record in tick(1, now, counter("a", [(("cart",), 1)]))[:2]:
        assert destination.encode(record) is None
    items = encode(destination, tick(1, now, counter("b", [(("cart",), 1), (("pay",), 2)])))
    assert len(samples(items)) == 2


def test_a_partition_that_is_read_again_starts_anew(now: int) -> None:
    destination = Prometheus(sink("http://unused"))
    records = tick(1, now, counter("a", [(("cart",), 1)]))
    for record in records[:2]:
        destination.encode(record)
    destination.forget("samples", 0)
    assert len(encode(destination, records)) == 1


def test_a_series_keeps_its_lane_and_lanes_are_shared_out(now: int) -> None:
    destination = Prometheus(sink("http://unused", shards=4))
    rows = [((f"s{n}",), n) for n in range(200)]
    first = samples(encode(destination, tick(1, now, counter("a", rows))))
    second = samples(encode(destination, tick(2, now + 1, counter("a", rows))))
    assert [(item.lane, item.origin.index) for item in first] == [(item.lane, item.origin.index) for item in second]
    assert {item.lane for item in first} == {0, 1, 2, 3}
    assert sorted(item.origin.index for item in first) == list(range(200))
    assert destination.requests_per_lane == 1


def test_series_that_would_be_dropped_without_a_word_are_defects(now: int) -> None:
    destination = Prometheus(sink("http://unused"))
    row = [(("x",), 1)]
    blocks = counter("", row), counter("ok", row), counter("größe.b", row), counter("c", row, ["\udc80"])
    items = encode(destination, tick(1, now, *blocks[:3]))
    assert bad(items) == ["'' is not a name"]
    assert sorted((item.origin.index, item.rows) for item in samples(items)) == [(0, 1), (1, 1), (2, 1)]
    assert defect("c", blocks[3].shape) == "'\\udc80' is not a name"


def test_a_dead_letter_is_a_request_of_its_own(now: int) -> None:
    (item,) = encode(Prometheus(sink("http://unused")), tick(1, now, counter("a", [(("cart",), 1)])))
    (sample,) = decode(bytes(cramjam.snappy.compress_raw(item.dead_letter())))
    assert (dict(sample.labels), sample.time_ms, sample.value) == ({"__name__": "a", "service": "cart"}, now, 1)


async def test_the_request_as_remote_write_has_it(now: int) -> None:
    async with receiver(status(204)) as server:
        url = f"{server.url}/api/v1/write"
        assert await send(url, tick(1, now, counter("a", [(("cart",), 1)]))) == Outcome(accepted=1)
    (seen,) = server.seen
    assert seen.path == "/api/v1/write"
    assert seen.headers["Content-Type"] == "application/x-protobuf"
    assert seen.headers["Content-Encoding"] == "snappy"
    assert seen.headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
    assert seen.headers["User-Agent"].startswith("tailrace/")
    assert len(decode(seen.body)) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_busy_receiver_gets_everything_again(code: int, now: int) -> None:
    async with receiver(status(code, Retry_After="2")) as server:
        outcome = await send(server.url, tick(1, now, counter("a", [(("cart",), 1), (("pay",), 1)])))
    assert (outcome.retry, outcome.retry_after, len(server.seen)) == ((0, 1), 2.0, 1)


@pytest.mark.parametrize("said", ["native histograms are disabled", "histogram has a bucket whose count is negative"])
async def test_a_histogram_that_an_older_prometheus_does_not_take_holds_nobody_up(said: str, now: int) -> None:
    """It says 500 of that, and would for ever."""
    async with receiver(*(status(500, said) if code else status(204) for code in (1, 0, 1, 1, 0))) as server:
        outcome = await send(server.url, tick(1, now, counter("a", [((f"s{n}",), n) for n in range(3)])))
    assert (outcome.accepted, [refusal.index for refusal in outcome.refused], outcome.retry) == (2, [1], ())


async def test_a_request_that_is_refused_as_a_whole_is_told_at_once(now: int) -> None:
    told: list[tuple[str, int]] = []
    async with receiver(status(400, "bad")) as server:
        destination = Prometheus(sink(server.url))
        await destination.start()
        request = destination.request(encode(destination, tick(1, now, counter("a", [(("s",), 1), (("t",), 1)]))))
        request.rejected = lambda said, refused: told.append((said, refused))
        await destination.send(request)
        await destination.close()
    assert told == [("bad", 0), ("bad", 1), ("bad", 2)]


async def test_an_outage_while_bisecting_keeps_what_is_left(now: int) -> None:
    async with receiver(status(400, "bad"), status(204), reset) as server:
        outcome = await send(server.url, tick(1, now, counter("a", [((f"s{n}",), n) for n in range(4)])))
    assert (outcome.accepted, outcome.retry, outcome.reason) == (2, (2, 3), "no_answer")
