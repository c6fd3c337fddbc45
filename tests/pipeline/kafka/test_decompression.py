"""Compressed bombs: batches that become far more than they are cost themselves alone, whatever compressed them."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zstandard
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records, legacy_records, memory_records
from click.testing import CliRunner

from pipeline import telemetry
from pipeline.cli import cli
from pipeline.config import Limits
from pipeline.kafka import decompression
from pipeline.kafka.decompression import Bound, bound
from pipeline.operating.history import History
from pipeline.operating.restore import Restores
from pipeline.worker import running
from processors.sampling.restore import Restoration
from schemas.ids import trace_key
from schemas.raw_batch import RawReader
from schemas.raw_message import UnreadBatch
from schemas.reasons import Reason
from tests.pipeline.kafka import DEADLINE, committed, create, fresh
from tests.pipeline.keyed import Keyed
from tests.pipeline.stages import Stages, partition, refusal, trace_id, traces
from tests.services import Kafka, eventually

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
KIB, MIB = 1 << 10, 1 << 20
SMALL = Bound(most=256 * KIB, ratio=40, always=64 * KIB, records=1_000)
TP = TopicPartition("raw", 0)
BUILDERS = {"native": default_records.DefaultRecordBatchBuilder, "python": default_records._DefaultRecordBatchBuilderPy}
HEADER = default_records._DefaultRecordBatchPy.HEADER_STRUCT.size


def batch(codec_id: int, first: int, values: list[bytes], builder: Any = BUILDERS["native"]) -> bytearray:
    """A record batch whose first offset is `first`."""
    own = builder(2, codec_id, 0, -1, -1, -1, 1 << 30)
    for number, value in enumerate(values):
        own.append(number, 1000 + number, None, value, [])
    data: bytearray = own.build()
    data[:8] = first.to_bytes(8, "big")
    return data


def resealed(own: bytearray, compressed: bytes) -> bytes:
    """A batch with other compressed bytes in the place of its own."""
    data = own[:HEADER] + compressed
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    data[17:21] = default_records.calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def disordered(first: int, offsets: list[int], value: bytes = b"x") -> bytes:
    """A batch that is not compressed, whose records have other offsets, relative to its first, than it says itself."""
    own = BUILDERS["python"](2, 0, 0, -1, -1, -1, 1 << 30)
    for number, offset in enumerate(offsets):
        own.append(offset, 1000 + number, None, value, [])
    own._last_offset = len(offsets) - 1
    data: bytearray = own.build()
    data[:8] = first.to_bytes(8, "big")
    return resealed(data, bytes(data[HEADER:]))


def fetched(data: bytes, limit: Bound | None, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """What a consumer's fetcher makes of an answer of the broker, up to where the fetch ends."""
    records = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(data), [], offset, None, limit, True, 1)
    for found in records:
        several = found.records if isinstance(found, decompression._Several) else [found]
        yield from ((record.offset, record.value) for record in several)
    yield records.next_fetch_offset, b"end"


@pytest.mark.parametrize("name", CODECS)
def test_a_bomb_stands_between_its_neighbours(name: str) -> None:
    good = [b"x" * 100, b"y" * 100]
    bomb = batch(CODECS[name], 2, [bytes(MIB), b"last"])
    *found, (offset, value), (end, _) = fetched(bytes(batch(CODECS[name], 0, good) + bomb), SMALL)
    found += fetched(bytes(batch(CODECS[name], 4, good)), SMALL, end)
    assert found == [(0, good[0]), (1, good[1]), (4, good[0]), (5, good[1]), (6, b"end")]
    assert offset == 3, "that of its last record: the position passes it"
    assert isinstance(value, UnreadBatch)
    assert value == bytes(bomb[HEADER:])
    assert (value.codec, value.reason) == (name, Reason.BATCH_TOO_LARGE)
    most = SMALL.of(len(value))
    assert value.detail == f"{name} batch of offsets 2 to 3: {len(value)} bytes become more than {most}"


@pytest.mark.parametrize("name", CODECS)
def test_the_bound_is_exact(name: str) -> None:
    """A byte less than the limit is read; so is anything by a consumer without one."""
    for size, limited in ((0, False), (1, True)):
        noise = random.Random(1).randbytes(SMALL.most - 100)
        own = batch(CODECS[name], 0, [noise + bytes(size)])
        plain = batch(0, 0, [noise + bytes(size)])
        limit = Bound(len(plain) - HEADER - limited, 40, 0, 1)
        *found, _ = fetched(bytes(own), limit)
        assert isinstance(found[0][1], UnreadBatch) == limited
        assert next(value for _, value in fetched(bytes(own), None)) == noise + bytes(size)


@pytest.mark.parametrize("limit", [Bound(100_000, 10**6, 0, 10**6), Bound(10**9, 10, 0, 10**6)], ids=["size", "ratio"])
@pytest.mark.parametrize("name", CODECS)
def test_size_and_ratio_stop_it_each_alone(name: str, limit: Bound) -> None:
    """Snappy makes twenty times as much of a batch at most, the others hundreds."""
    own = bytes(batch(CODECS[name], 0, [bytes(MIB)]))
    *found, _ = fetched(own, limit)
    ((_, value),) = found
    assert isinstance(value, UnreadBatch)
    assert value.detail.endswith(f"become more than {limit.of(len(own) - HEADER)}")
    *found, _ = fetched(own, Bound(10**9, 10**6, 0, 10**6))
    assert found == [(0, bytes(MIB))], "with neither it is read"


def test_size_and_ratio() -> None:
    limit = bound(Limits(max_batch_bytes=1000, max_batch_ratio=10, max_message_bytes=200))
    assert [limit.of(compressed) for compressed in (1, 20, 21, 99, 100, 5000)] == [200, 200, 210, 990, 1000, 1000]


@pytest.mark.parametrize("name", CODECS)
def test_a_fetch_of_many_bombs_ends_early(name: str) -> None:
    """Each is within the bound, all together are not: what is left is fetched again from where it ended."""
    one = [bytes(60 * KIB)]
    data = b"".join(batch(CODECS[name], first, one) for first in range(40))
    position, fetches = 0, 0
    while position < 40:
        *found, (end, _) = fetched(data, SMALL, position)
        assert [offset for offset, value in found if value == one[0]] == list(range(position, end))
        assert sum(len(value) for _, value in found) <= SMALL.most + len(one[0])
        data, position, fetches = b"".join(batch(CODECS[name], f, one) for f in range(end, 40)), end, fetches + 1
    assert fetches == 8


@pytest.mark.parametrize("name", ["none", *CODECS])
def test_no_more_records_than_the_limit(name: str) -> None:
    """Of a batch, exactly; of a fetch, what goes beyond is fetched again."""
    codec_id, most = CODECS.get(name, 0), SMALL.records
    for builder in BUILDERS.values():
        *found, (end, _) = fetched(bytes(batch(codec_id, 0, [b""] * most, builder)), SMALL)
        assert (len(found), end) == (most, most)
        many = batch(codec_id, 0, [b""] * (most + 1), builder)
        *found, _ = fetched(bytes(many + batch(codec_id, most + 1, [b"next"])), SMALL)
        assert found == [(most, bytes(many[HEADER:])), (most + 1, b"next")]
        value = found[0][1]
        assert isinstance(value, UnreadBatch)
        assert (value.codec, value.reason) == (name, Reason.BATCH_TOO_LARGE)
        assert value.detail == f"{name} batch of offsets 0 to {most}: {most + 1} records, limit {most}"
    data = b"".join(batch(codec_id, first, [b""] * 300) for first in range(0, 1500, 300))
    *found, (end, _) = fetched(data, SMALL)
    assert len(found) == end == 1200


@pytest.mark.parametrize("whole", [0, 2], ids=["nothing before it", "a batch before it"])
async def test_a_corrupt_batch_takes_nothing_with_it(whole: int) -> None:
    """What was handed over has moved its position: an error that came after it must not throw it away."""
    other, rotten = TopicPartition("raw", 1), TopicPartition("raw", 2)
    subscriptions = SubscriptionState(loop=asyncio.get_running_loop())
    subscriptions.assign_from_user([TP, rotten, other])
    own = object.__new__(decompression._Fetcher)  # without a connection: brokers take and send nothing corrupt
    own._subscriptions, own._closed, own._wait_consume_future = subscriptions, False, None
    own._fetch_waiters, own._loop = set(), asyncio.get_running_loop()
    good, bad = bytes(batch(0, 0, [b"x"] * 3)), batch(0, whole, [b"y"] * 3)
    bad[-1] ^= 1
    of = {TP: good, rotten: bytes(batch(0, 0, [b"x"] * whole)) * bool(whole) + bytes(bad), other: good}
    assignment = subscriptions.subscription.assignment

    def fetch(place: TopicPartition) -> Any:
        position = assignment.state_value(place).position
        data = of[place] if position == 0 else bytes(bad)
        records = fetcher.PartitionRecords(place, fetcher.MemoryRecords(data), [], position, None, None, True, 1)
        return fetcher.FetchResult(place, partition_records=records, assignment=assignment, backoff=0)

    for place in of:
        subscriptions.seek(place, 0)
    own._records = {place: fetch(place) for place in of}
    found = dict.fromkeys(of, 0)
    errors = 0
    for _ in range(4):
        try:
            for place, records in (await own.fetched_records((), 0)).items():
                found[place] += len(records)
        except CorruptRecordException:
            errors += 1
    assert errors == (0 if whole else 1), (
        "told once, after the records that came before; with a batch, when it is alone"
    )
    assert found == {TP: 3, rotten: whole, other: 3}
    assert [assignment.state_value(place).position for place in of] == [3, whole, 3]
    own._records = {rotten: fetch(rotten)}
    with pytest.raises(CorruptRecordException):
        await own.fetched_records((), 0)


def read_through(log: list[bytes], limit: Bound) -> tuple[list[tuple[int, bytes]], int, int]:
    """Records of batches, each answer from the first one that ends behind the position; how often it was corrupt, and
    where reading ended: at an error that came more often than any is tried.
    """
    subscriptions = SubscriptionState(loop=asyncio.get_running_loop())
    subscriptions.assign_from_user([TP])
    subscriptions.seek(TP, 0)
    assignment = subscriptions.subscription.assignment
    found: list[tuple[int, bytes]] = []
    errors, position = Counter[int](), 0
    ends = [memory_records.MemoryRecords(each).next_batch().next_offset for each in log]
    while (left := [n for n, end in enumerate(ends) if end > position]) and errors[position] <= decompression.TRIES:
        data = fetcher.MemoryRecords(b"".join(log[left[0] :]))
        records = fetcher.PartitionRecords(TP, data, [], position, None, limit, True, 1)
        result = fetcher.FetchResult(TP, partition_records=records, assignment=assignment, backoff=0)
        try:
            found += [(record.offset, record.value) for record in result.getall()]
        except CorruptRecordException:
            errors[position] += 1
        position = assignment.state_value(TP).position
    return found, errors.total(), position


ACCEPTING = replace(SMALL, accept_loss=True)


@pytest.mark.parametrize("name", ["none", *CODECS])
@pytest.mark.parametrize("last", [False, True], ids=["others behind it", "nothing behind it"])
async def test_a_batch_that_stays_corrupt_is_passed_where_losses_are_accepted(name: str, last: bool) -> None:
    """By itself it never is: another replica may have it whole."""
    codec_id, limit = CODECS.get(name, 0), replace(ACCEPTING, tries=Counter())
    bad = batch(codec_id, 2, [b"c", b"d", b"e"])
    bad[-1] ^= 1
    log = [bytes(batch(codec_id, 0, [b"a", b"b"])), bytes(bad), bytes(batch(codec_id, 5, [b"f"]))][: 2 if last else 3]
    good = [(0, b"a"), (1, b"b"), (5, b"f")][: 2 if last else 3]
    assert read_through(log, SMALL) == ([(0, b"a"), (1, b"b")], decompression.TRIES + 1, 2)
    found, errors, end = read_through(log, limit)
    assert (found, errors, end) == (sorted([*good, (4, bytes(bad))]), decompression.TRIES, 5 if last else 6)
    value = found[2][1]
    assert isinstance(value, UnreadBatch)
    assert (value.codec, value.reason) == ("corrupt", Reason.BATCH_CORRUPT)
    assert value.detail.startswith("corrupt batch of offsets 2 to 4: ")


async def test_a_batch_that_is_whole_the_next_time_is_read() -> None:
    """It was the way here that was bad, or the leader has moved."""
    limit = replace(ACCEPTING, tries=Counter({(TP, 0): decompression.TRIES}))
    assert read_through([bytes(batch(4, 0, [b"a", b"b"]))], limit) == ([(0, b"a"), (1, b"b")], 0, 2)


async def test_records_that_do_not_parse_are_passed_as_well() -> None:
    """With a checksum that is right: brokers that do not look into batches take them."""
    good, limit = batch(0, 0, [b"a", b"b"]), replace(ACCEPTING, tries=Counter())
    bad = resealed(good, bytes(good[HEADER:-3]))
    found, errors, end = read_through([bad, bytes(batch(0, 2, [b"c"]))], limit)
    assert (found, errors, end) == ([(1, bad), (2, b"c")], decompression.TRIES, 3), (
        "what is in the letter is nowhere else"
    )


@pytest.mark.parametrize("said", [-5, 0, 1, 1000, (1 << 31) - 1])
async def test_where_a_corrupt_batch_says_that_it_ends_takes_nothing_with_it(said: int) -> None:
    """That is what may be corrupt. With nothing behind it, it stays an error until there is."""
    bad, limit = batch(0, 2, [b"c", b"d", b"e"]), replace(ACCEPTING, tries=Counter())
    bad[23:27] = said.to_bytes(4, "big", signed=True)
    limit.tries[TP, 2] = decompression.TRIES
    data = bytes(bad) + b"".join(batch(0, offset, [b"f"]) for offset in (5, 6))
    with pytest.raises(CorruptRecordException):
        list(fetched(bytes(bad), limit, 2))
    (offset, value), (end, _) = fetched(data, limit, 2)
    assert (value, end) == (bytes(bad), offset + 1)
    assert 2 <= offset < 5
    assert [offset for offset, _ in fetched(data, limit, 6)] == [6, 7], "a broker that believes it begins with it again"


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("name", ["none", *CODECS])
async def test_a_header_whose_name_is_not_utf8_costs_nothing(name: str, at: int) -> None:
    """Whoever may write to a raw topic may name it so: brokers and librdkafka do not look."""
    own = BUILDERS["native"](2, 0, 0, -1, -1, -1, 1 << 30)
    for number in range(3):
        headers = [("named", b"1"), ("other", None)] if number == at else []
        own.append(number, 1000 + number, None if number else b"key", b"%d" % number, headers)
    bad = own.build()
    plain = bytes(bad[HEADER:]).replace(b"named", b"n\xffm\xe9d")
    bad[22] = CODECS.get(name, 0)
    data = resealed(bad, plain if name == "none" else getattr(codec, f"{name}_encode")(plain))
    log = [data, bytes(batch(0, 3, [b"3"]))]
    assert read_through(log, SMALL) == ([(n, b"%d" % n) for n in range(4)], 0, 4)
    (several,) = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(data), [], 1, None, SMALL, True, 1)
    assert [(each.offset, each.timestamp) for each in several.records] == [(1, 1001), (2, 1002)], "fetched from 1 on"
    with pytest.raises(UnicodeDecodeError):
        list(fetched(data, None))


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_a_million_empty_records_are_one_letter(name: str) -> None:
    """With the limits that a configuration has when it says nothing of them."""
    count = 1_000_000
    bomb = batch(CODECS.get(name, 0), 0, [b""] * count)
    limit = bound(Limits())
    assert limit.of(len(bomb)) > 8 * count, "its bytes alone would pass"
    *found, _ = fetched(bytes(bomb + batch(0, count, [b"next"])), limit)
    assert [offset for offset, _ in found] == [count - 1, count]


@pytest.mark.parametrize("name", CODECS)
def test_bounded_decoders_decode_as_aiokafka_does(name: str) -> None:
    rng = random.Random(name)
    encode, decode = getattr(codec, f"{name}_encode"), getattr(codec, f"{name}_decode")
    for size in (0, 1, 100, 50_000, 200_000):
        values = [rng.randbytes(size), b"ab" * (size // 2)]
        for builder in BUILDERS.values():
            *found, _ = fetched(bytes(batch(CODECS[name], 0, values, builder)), Bound(MIB, 1000, MIB, 2))
            assert [value for _, value in found] == values
        assert not size or decode(encode(values[0])) == values[0], "and aiokafka's own are what they were"


@pytest.mark.parametrize("name", CODECS)
def test_what_does_not_decompress_is_one_dead_letter(name: str) -> None:
    """The broker would not have taken it, but a fetch that raises for it would be tried for ever."""
    good = batch(CODECS[name], 0, [random.Random(2).randbytes(1000)])
    whole = bytes(good[HEADER:])
    rng = random.Random(3)
    for _ in range(200):
        at = rng.randrange(len(whole))
        cut = whole[:at] if rng.random() < 0.5 else whole[:at] + rng.randbytes(3) + whole[at + 3 :]
        try:
            *found, _ = fetched(resealed(good, cut), SMALL)
        except default_records.CorruptRecordException:
            continue  # it decompresses to something else: aiokafka's own word for that
        for _, value in found:
            assert not isinstance(value, UnreadBatch) or value.reason in (Reason.MALFORMED, Reason.BATCH_TOO_LARGE)


@pytest.mark.parametrize("offsets", [[0, 1000], [0, 1 << 40], [-1, 0], [0, 0], [1, 0], [0, 2, 1]])
def test_offsets_that_are_not_in_order_are_one_dead_letter(offsets: list[int]) -> None:
    """Were they believed, what comes behind them would be taken for read, or they would be."""
    good, bad = bytes(batch(0, 7, [b"good"])), disordered(7 - len(offsets), offsets)
    (offset, value), *rest = fetched(bad + good, SMALL)
    assert (offset, rest) == (6, [(7, b"good"), (8, b"end")])
    assert isinstance(value, UnreadBatch)
    assert (value, value.codec, value.reason) == (bad[HEADER:], "none", Reason.MALFORMED)
    assert f"none batch of offsets {7 - len(offsets)} to 6: " in value.detail
    assert list(fetched(disordered(0, [0, 1]), SMALL)) == [(0, b"x"), (1, b"x"), (2, b"end")]


def test_zstd_in_several_frames() -> None:
    """What a batch says of its length is believed of one frame alone: an empty or a skipped one may come before it."""
    own = batch(CODECS["zstd"], 0, [b"x" * 100, b"y" * 100])
    whole = zstandard.decompress(bytes(own[HEADER:]))
    one, streamed = zstandard.compress(whole), zstandard.ZstdCompressor(write_content_size=False).compress(whole)
    empty, skipped = zstandard.compress(b""), b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    halves = zstandard.compress(whole[:50]) + zstandard.compress(whole[50:])
    more = empty + one, one + empty, skipped + one, one + skipped, empty + skipped + halves
    for frames in (one, streamed, halves, *more):
        *found, _ = fetched(resealed(own, frames), SMALL)
        assert [value for _, value in found] == [b"x" * 100, b"y" * 100]
    for lie in (one[:-1], one + b"more", zstandard.compress(bytes(10 * MIB))[:9]):
        *found, _ = fetched(resealed(own, lie), SMALL)
        assert [value for _, value in found] == [lie]


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4"])
def test_old_formats_are_bounded_as_well(name: str) -> None:
    """Topics of old clusters hold them still."""
    found = {}
    for size in (100, MIB):
        own = legacy_records.LegacyRecordBatchBuilder(1, CODECS[name], 1 << 30)
        own.append(0, 1000, None, bytes(size))
        found[size] = next(iter(fetched(bytes(own.build()), SMALL)))[1]
    assert found[100] == bytes(100)
    assert isinstance(found[MIB], UnreadBatch)
    for count, whole in ((SMALL.records, True), (SMALL.records + 1, False)):
        own = legacy_records.LegacyRecordBatchBuilder(1, CODECS[name], 1 << 30)
        for number in range(count):
            own.append(number, 1000, None, b"")
        *records, _ = fetched(bytes(own.build()), SMALL)
        assert len(records) == (count if whole else 1)
        assert isinstance(records[0][1], UnreadBatch) != whole


@pytest.mark.parametrize("codec_id", [0, 1])
def test_messages_of_the_first_format_have_no_time(codec_id: int) -> None:
    own = legacy_records.LegacyRecordBatchBuilder(0, codec_id, 1 << 30)
    for number in range(3):
        own.append(number, None, None, b"x" * number)
    records = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(bytes(own.build())), [], 0, None, SMALL, True, 1)
    assert list(decompression._joined(list(records))) == [(number, -1, b"x" * number) for number in range(3)]


def test_many_small_members_of_gzip_cost_no_copy_of_the_rest_each() -> None:
    """What they become is small, so no other limit stops it."""
    costs, empty = {}, gzip.compress(b"")
    for count in (5_000, 40_000):
        began = process_time()
        assert decompression._gzip(gzip.compress(b"x") + count * empty + bytes(9), 100) == b"x"
        costs[count] = process_time() - began
    assert costs[40_000] < 3 * 8 * costs[5_000]
    assert decompression._gzip(gzip.compress(b"x") + b"what brokers leave alone", 100) == b"x"
    large = bytes(range(256)) * 4096
    assert decompression._gzip(2 * gzip.compress(large, 0), 2 * len(large)) == 2 * large
    with pytest.raises(zlib.error):
        decompression._gzip(gzip.compress(large, 0)[:-1], len(large))
    with pytest.raises(decompression._TooLarge):
        decompression._gzip(gzip.compress(large), len(large) - 1)


def test_sample_buries_it_where_it_reads_raw_topics() -> None:
    unread = UnreadBatch.of(b"compressed", "zstd", Reason.BATCH_TOO_LARGE, "why")
    batch = RawReader("raw", 0, 2, "traces", 1000, 1000).read([(1, 0, traces("a/1")), (2, 0, unread)])
    (letter,) = batch.dead_letters
    assert (letter.value, letter.reason, letter.detail) == (b"compressed", Reason.BATCH_TOO_LARGE, "why")
    assert (letter.encoding, letter.offset, len(batch.rows)) == ("zstd_batch", 2, 1)


@pytest.mark.parametrize(("kind", "role"), [(Stages, "ingest"), (Keyed, "sample")])
async def test_bombs_on_a_broker(
    kind: type[Stages], role: str, kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each codec one, between good batches: everything good is delivered, the bombs are counted and kept.

    And one whose records have offsets that lie beyond the end of the log.
    """
    limits = {"max_message_bytes": MIB, "max_batch_bytes": 2 * MIB, "max_batch_records": 1_000}
    monkeypatch.setattr(kind, "SECTIONS", {**kind.SECTIONS, "limits": limits})
    stages = await kind(kafka.bootstrap, tmp_path).create()
    labels = {"stage": role, "reason": "batch_too_large"}
    before = telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) or 0
    names: set[str] = set()
    try:
        for name in CODECS:
            async with AIOKafkaProducer(
                bootstrap_servers=kafka.bootstrap, compression_type=name, max_request_size=4 * MIB
            ) as producer:
                bomb = bytes(3 * MIB if name == "snappy" else 3 * MIB // 2)  # snappy's ratio is low: stopped by size
                for value in (traces(f"{name}1/a!"), bomb, traces(f"{name}2/a!")):
                    await producer.send_and_wait(stages.raw, value, partition=0)
            names |= {f"{name}1/a!", f"{name}2/a!"}
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_batch_size=MIB) as producer:
            many = producer.create_batch()
            for _ in range(1_001):
                many.append(key=None, value=b"", timestamp=None)
            await (await producer.send_batch(many, stages.raw, partition=0))
            lies = producer.create_batch()  # brokers do not look into what is not compressed
            lies.append(key=None, value=b"", timestamp=None)
            lies._build = lambda: lies._buffer
            lies._buffer = bytearray(disordered(0, [0, 1000], traces("lies/a!")))
            await (await producer.send_batch(lies, stages.raw, partition=0))
            await producer.send_and_wait(stages.raw, traces("last/a!"), partition=0)
        names.add("last/a!")
        async with running(stages.config, [role]):

            async def there() -> bool:
                topic = stages.topics.spans if role == "ingest" else stages.topics.kept_spans
                return names <= set(await stages.names(topic)) and len(await stages.records(stages.topics.dlq)) == 6

            await eventually(there, DEADLINE, "everything good is delivered, each bomb a dead letter")
        letters = [{k: v.decode() for k, v in r.headers} for r in await stages.records(stages.topics.dlq)]
        words = ["dlq", "replay", str(stages.file), "--yes"]
        again = await asyncio.to_thread(CliRunner().invoke, cli, words)
    finally:
        stages.stop()
    assert "5 letters left: it is a batch of records that was not read" in again.stdout
    assert {(v["offset"], v["encoding"], v["reason"]) for v in letters} == {
        (str(3 * number + 1), f"{name}_batch", "batch_too_large") for number, name in enumerate(CODECS)
    } | {("1012", "none_batch", "batch_too_large"), ("1014", "none_batch", "malformed")}
    assert telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) == before + 5
    assert await committed(kafka.bootstrap, stages.topics.group(role), partition(stages.raw)) == 1_016


async def looked_back_over(stages: Stages) -> None:
    """A restore reads what is around it, and says that something may be missing."""
    history = await History.of(stages.config, 0)
    ends = await history.ends()
    restores = Restores(stages.config, 0, cast(Any, SimpleNamespace(tails=lambda: ends)), asyncio.Lock())
    found = Restoration(trace_key(trace_id("d")), "why", dict.fromkeys(ends, 0), {}, stages.config.kafka.partitions)
    try:
        await restores._read(history, found, inf)
    finally:
        await history.close()
    assert (sum(found.count(topic) for topic in history.topics), found.partial) == (1, True)


@pytest.mark.parametrize("kind", [Stages, Keyed], ids=["ingest", "sample"])
async def test_a_batch_that_is_corrupt_on_disk(kind: type[Stages], kafka: Kafka, tmp_path: Path) -> None:
    """The worker stops at it and says how to go on: with a dead letter of it, and everything else delivered."""
    stages, role = await kind(kafka.bootstrap, tmp_path).create(), "sample" if kind is Keyed else "ingest"
    stages.config.sampling.__dict__["cache_bytes"] = 0  # the tail reads raw topics a second time
    labels = {"stage": role, "reason": "batch_corrupt"}
    before = telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) or 0
    group, place = stages.topics.group(role), partition(stages.raw)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for name in ("a/1!", "b/lost!", "c/1!"):
            await producer.send_and_wait(stages.raw, traces(name), partition=0)
        (log,) = (kafka.data / "logs" / f"{stages.raw}-0").glob("*.log")
        with log.open("r+b") as file:
            at = file.read().index(b"lost!")
            file.seek(at)
            file.write(b"LOST!")
        async with running(stages.config, [role]) as worker:
            reason = await refusal(worker)
        assert reason.startswith("ProtocolError")
        assert f"{stages.raw}/0 is corrupt at 1: Invalid CRC" in reason
        assert "docs/runbooks/NotReady.md" in reason
        assert await committed(kafka.bootstrap, group, place) <= 1
        async with running(stages.config, [role], accept_loss=True):
            await producer.send_and_wait(stages.raw, traces("d/1!"), partition=0)

            async def there() -> bool:
                return await committed(kafka.bootstrap, group, place) == 4

            await eventually(there, DEADLINE, "it goes on")
        if kind is Keyed:
            await looked_back_over(stages)
    topic = stages.topics.spans if role == "ingest" else stages.topics.kept_spans
    assert set(await stages.names(topic)) == {"a/1!", "c/1!", "d/1!"}
    (letter,) = await stages.records(stages.topics.dlq)
    told = {key: value.decode() for key, value in letter.headers}
    assert (told["topic"], told["offset"], told["reason"]) == (stages.raw, "1", "batch_corrupt")
    assert told["encoding"] == "corrupt_batch"
    assert told["detail"].startswith("corrupt batch of offsets 1 to 1: ")
    assert b"LOST!" in letter.value
    assert telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) == before + 1


@pytest.mark.parametrize(("size", "lefts"), [(100_000, [2, 1, 0]), (10_000, [0])], ids=["large", "small"])
async def test_partitions_of_one_answer_come_one_at_a_time(size: int, lefts: list[int], kafka: Kafka) -> None:
    """Unless they are small the others stay compressed until they are asked for; none is forgotten."""
    topic = fresh("singly")
    await create(kafka.bootstrap, {topic: 3})
    sent = {TopicPartition(topic, place): [random.randbytes(size) for _ in range(3)] for place in range(3)}
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type="zstd") as producer:
        for place, values in sent.items():
            for value in values:
                await producer.send(topic, value, partition=place.partition)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    consumer.assign(list(sent))
    await consumer.start()
    got: dict[TopicPartition, list[bytes]] = {place: [] for place in sent}
    try:

        async def buffered() -> bool:
            return len(consumer._fetcher._records) == 3

        await eventually(buffered, DEADLINE, "all partitions are there, compressed")
        for left in lefts:
            answer = await consumer.getmany(timeout_ms=1000)
            assert (len(answer), len(consumer._fetcher._records)) == (3 // len(lefts), left)
            for place, records in answer.items():
                got[place] += [record.value for record in records]
        async with asyncio.timeout(DEADLINE):
            while got != sent:
                for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                    got[place] += [record.value for record in records]
        assert await consumer.getmany(timeout_ms=1) == {}
    finally:
        await consumer.stop()
