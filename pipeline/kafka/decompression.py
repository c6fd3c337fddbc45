"""Record batches are decompressed up to a limit: a few KB in a raw topic may say that they are GB.

A broker looks at the compressed size alone (`max.message.bytes`), and aiokafka 0.14 decompresses whatever comes. So a
consumer that is given a `Bound` stops in the middle, and in the place of the batch's records there is one with the
compressed bytes for a value (`UnreadBatch`): a dead letter, while the batches before and after it are read. A fetch
ends with the batch that makes it larger than the bound; what is left of it is fetched again.

Records are bounded as well as bytes: an empty one is eight bytes of a batch, next to nothing when they are compressed,
and some hundred as an object.

The records of a batch are given together, as columns (schemas/raw_records.py): one may be no larger than a span. Of
their headers nothing is read, so one whose name is not UTF-8, for which aiokafka raises, does no harm.

One whose offsets are not in order is a letter as well: brokers look into compressed batches alone.

A batch that is corrupt is fetched again: it may be whole the next time. One that stays so is an error each time, unless
losses are accepted: then one record with all of its bytes is in its place.

One answer of a broker has records of many partitions, 1 MiB of each, 7 MiB when they are decompressed: a consumer gets
those of one partition at a time, or of several that are small, and the others stay compressed until it asks again.

aiokafka has no place for this: its decoders are replaced in the modules that use them, its fetcher by one that gives
partitions singly, and the fetcher's `PartitionRecords` and `MemoryRecords` by those that know the bound. Consumers
without a bound read as ever.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, cast

import aiokafka.consumer.consumer
import aiokafka.consumer.fetcher
import cramjam
import zstandard
from aiokafka import codec as codecs
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record import default_records, legacy_records, memory_records

from pipeline.config import Limits
from schemas.raw_message import UnreadBatch
from schemas.raw_records import Records
from schemas.reasons import Reason
from schemas.record_batch import OutOfOrder

START = struct.Struct(">qi")  # first offset, and bytes that follow: how every batch begins, beside its checksum
COUNTS = struct.Struct(">23xi30xi")  # what a header says of the last offset, less the first, and of how many records
TRIES = 5  # answers in which a batch is corrupt before it is passed
HEADER = default_records.DefaultRecordBase.HEADER_STRUCT.size
OLD_ATTRIBUTES = 17  # where they are in a message of the formats before Kafka 0.11
CODEC_MASK = default_records.DefaultRecordBase.CODEC_MASK
APPENDED = default_records.DefaultRecordBase.LOG_APPEND_TIME  # whose timestamps are the broker's
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")  # by their numbers
QUICK = frozenset({"snappy", "lz4", "zstd"})  # to decompress once more, for what that saves while it waits
GZIP = 16 + zlib.MAX_WBITS  # zlib's word for "with gzip's header"
GZIP_HEAD = b"\x1f\x8b"
GZIP_PIECE = 8 << 10  # bytes
XERIAL_HEADER = 16  # bytes before the first block of what Java calls snappy
XERIAL = b"\x82SNAPPY\x00"
TOGETHER = 256 << 10  # compressed bytes of several partitions that are given at once: each time costs 50 µs
FULL = "failed to write whole buffer"  # what cramjam 2 says of an output that is too small


@dataclass(frozen=True, slots=True)
class Bound:
    """How large a batch may become: `most` bytes, and `ratio` times its compressed size beyond `always` bytes; and
    `records` of them. With `accept_loss` a batch is passed that was corrupt so often: `tries`, by partition and offset.

    Goes where a deserializer of values goes, and is one that leaves them alone.
    """

    most: int
    ratio: float
    always: int
    records: int
    accept_loss: bool = False
    tries: Counter[tuple[Any, int]] = field(default_factory=Counter, compare=False)

    def of(self, compressed: int) -> int:
        """Bytes that a batch of so many compressed bytes may become."""
        return min(self.most, max(self.always, int(self.ratio * compressed)))

    def __call__(self, value: bytes) -> bytes:
        return value


def bound(limits: Limits, accept_loss: bool = False) -> Bound:
    """The bound of a raw topic."""
    sizes = limits.max_batch_bytes, limits.max_batch_ratio, limits.max_message_bytes, limits.max_batch_records
    return Bound(*sizes, accept_loss)


class _Unread(Exception):
    """A batch that was not decompressed: `value` stands in its place."""

    def __init__(self, data: bytes, codec: str, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.value = UnreadBatch.of(data, codec, reason, detail)


class _TooLarge(Exception):
    pass


class _Record(NamedTuple):
    """In the place of those of a batch that was not read, as aiokafka's fetcher takes it."""

    offset: int
    timestamp: int
    value: bytes | None


class _Several(NamedTuple):
    """All that is asked for of a batch, to aiokafka's fetcher one record with the offset of the last."""

    offset: int
    records: Records


class _Fetched(memory_records.MemoryRecords):  # type: ignore[misc]
    """aiokafka's, which keeps to itself what it was made of."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Records:
    """What a fetch from `offset` on returned for a partition; `size` and `count` are its batches' bytes and records by
    now, `batch` is the partition and first offset of the one that was begun last.
    """

    def __init__(self, partition: Any, records: _Fetched, offset: int, limit: Bound) -> None:
        self._records, self.offset, self.limit = records, offset, limit
        self.size = self.count = self._at = 0
        self.batch, self._passed = (partition, offset), False

    def has_next(self) -> bool:
        found: bool = self._records.has_next()
        return found and not self._passed and self.size <= self.limit.most and self.count <= self.limit.records

    def next_batch(self) -> _Batch:
        start, data = self._at, self._records.data
        first, length = START.unpack_from(data, start)
        self._at += START.size + length
        self.batch = self.batch[0], first
        batch = _Batch(self._records.next_batch(), self, memoryview(data)[start : self._at])
        corrupt = self.limit.tries.get(self.batch, 0) >= TRIES and not self._is_whole(data[start : self._at])
        end = self._end(batch, first, start) if corrupt else None
        if end is None:
            return batch
        # What is behind it comes with another answer, which says anew what was aborted: this may be where it ended.
        self._passed = end > self.offset
        return _Corrupt(batch, self, memoryview(data)[start : self._at], max(end, self.offset))

    def _is_whole(self, data: bytes) -> bool:
        batch = _Batch(_Fetched(data).next_batch(), self, memoryview(data))
        try:
            return batch.validate_crc() and all(True for _ in batch)
        except CorruptRecordException:
            return False

    def _end(self, batch: _Batch, first: int, start: int) -> int | None:
        """The offset after a corrupt batch: what it says itself, if that is not beyond where the next one begins.

        With nothing behind it in this answer, if it says so twice. None if nobody knows: what is whole is not left out.
        """
        data, said = self._records.data, batch.next_offset
        if self._at + START.size <= len(data):
            following, _ = START.unpack_from(data, self._at)
            said = said if first < said <= following else following
        elif hasattr(batch, "base_offset"):  # the formats before Kafka 0.11 do not say it
            last, records = COUNTS.unpack_from(data, start)
            said = said if last + 1 == records else first
        return said if said > first else None


class _Batch:
    """A batch of aiokafka; when it is iterated it is decompressed to no more than it may be."""

    def __init__(self, batch: Any, among: _Records, data: memoryview) -> None:
        self._batch, self._among, self._data = batch, among, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        global _decompressing
        _decompressing = self._among
        most = self._among.limit.records
        try:
            if (count := self._batch.next_offset - self._first) > most:
                raise self._many(count, self._batch.compression_type, self._data[HEADER:])
            if hasattr(self._batch, "base_offset"):
                records = self._all()
            elif (count := len(records := list(islice(iter(self._batch), most + 1)))) > most:  # before Kafka 0.11
                raise self._many(count, self._data[OLD_ATTRIBUTES] & CODEC_MASK, self._data)
        except _Unread as unread:
            return iter((self._instead(unread.value),))
        finally:
            _decompressing = None
        self._among.count += count
        return iter(records)

    def _all(self) -> list[_Several]:
        """Its records, from where the fetch begins. Raises CorruptRecordException."""
        batch, packed, (last, count) = self._batch, bytes(self._data[HEADER:]), COUNTS.unpack_from(self._data)
        if batch.compression_type >= len(CODECS):
            raise CorruptRecordException(f"compression {batch.compression_type} is none of Kafka's")
        codec = CODECS[batch.compression_type]
        data = _decoders[codec](packed) if codec in _decoders else packed
        block = (partial(_again, codec, len(data)), packed) if codec in QUICK else None
        appended = batch.timestamp_type == APPENDED
        timestamp = batch.max_timestamp if appended else batch.first_timestamp
        try:
            records = Records.of_batch(data, count, batch.base_offset, last, timestamp, appended, block)
        except OutOfOrder as error:
            raise _Unread(packed, codec, Reason.MALFORMED, str(error)) from error
        except ValueError as error:
            raise CorruptRecordException(f"not the {count} records that it says: {error}") from error
        return [_Several(batch.next_offset - 1, records.since(self._among.offset))]

    @property
    def _first(self) -> int:
        """Its first offset; of the old formats, which do not tell how many records they hold, the last."""
        found: int = getattr(self._batch, "base_offset", self._batch.next_offset - 1)
        return found

    def _many(self, count: int, codec: int, data: memoryview) -> _Unread:
        detail = f"{count} records, limit {self._among.limit.records}"
        return _Unread(bytes(data), CODECS[codec], Reason.BATCH_TOO_LARGE, detail)

    def _instead(self, found: UnreadBatch) -> _Record:
        last = self.next_offset - 1
        detail = f"{found.codec} batch of offsets {self._first} to {last}: {found.detail}"
        value = UnreadBatch.of(found, found.codec, found.reason, detail)
        return _Record(last, getattr(self._batch, "max_timestamp", -1), value)


class _Corrupt(_Batch):
    """In the place of a batch that stays corrupt; of its header nothing is believed that would leave records out."""

    is_control_batch, producer_id = False, None

    def __init__(self, batch: _Batch, among: _Records, data: memoryview, end: int) -> None:
        super().__init__(batch, among, data)
        self.next_offset = end

    def validate_crc(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        detail = f"found so {TRIES} times, passed with --accept-loss"
        yield self._instead(UnreadBatch.of(bytes(self._data), "corrupt", Reason.BATCH_CORRUPT, detail))


class _PartitionRecords(aiokafka.consumer.fetcher.PartitionRecords):  # type: ignore[misc]
    def __init__(self, tp: Any, records: Any, aborted: Any, offset: int, key: Any, value: Any, *rest: Any) -> None:
        self.size = len(records.data)
        self.bounded = isinstance(value, Bound)
        if self.bounded:
            records, value = _Records(tp, records, offset, value), None
        super().__init__(tp, records, aborted, offset, key, value, *rest)

    @property
    def unpacked(self) -> Iterator[Any]:
        """Records, or with a bound what `_joined` takes; without a call for each."""
        return cast("Iterator[Any]", self._records_iterator)

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record if self.bounded else super()._consumer_record(tp, record)

    def corrupt(self, error: CorruptRecordException) -> CorruptRecordException:
        """The same error, with the place. Its batch is counted, if that may be passed."""
        if self.bounded and self._records.limit.accept_loss:
            self._records.limit.tries[self._records.batch] += 1
        where, why = f"{self._tp.topic}/{self._tp.partition}", ", ".join(map(str, error.args))
        return CorruptRecordException(f"{where} is corrupt at {self.next_fetch_offset}: {why}")


class _FetchResult(aiokafka.consumer.fetcher.FetchResult):  # type: ignore[misc]
    """What a partition has of an answer; `size` is that of its compressed batches."""

    def __init__(self, tp: Any, *, partition_records: _PartitionRecords, **rest: Any) -> None:
        super().__init__(tp, partition_records=partition_records, **rest)
        self.size = partition_records.size
        self._partition_records: Any = partition_records

    def getall(self, max_records: int | None = None) -> Sequence[Any]:
        """All of it, with a bound as Records.

        What lies before a batch that is corrupt is handed over first, and the rest fetched again.
        """
        found: list[Any] = []
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return found
        try:
            found.extend(self._partition_records.unpacked)
        except CorruptRecordException as error:
            if not found:
                raise self._partition_records.corrupt(error) from error
        except KafkaError:
            if not found:
                raise
        self._update_position()
        bounded, self._partition_records = self._partition_records.bounded, None
        return _joined(found) if bounded and found else found


def _joined(found: Sequence[Any]) -> Records:
    """What the batches of an answer have."""
    return Records.joined(
        [
            each.records if isinstance(each, _Several) else Records.of([(each.offset, _time(each), each.value)])
            for each in found
        ]
    )


def _time(record: Any) -> int:
    """Milliseconds; -1 of those of the first format, before Kafka 0.10, which have none."""
    return -1 if record.timestamp is None else record.timestamp


class _Fetcher(aiokafka.consumer.fetcher.Fetcher):  # type: ignore[misc]
    _error: KafkaError | None = None  # that came after records, and is still to be told

    async def fetched_records(self, partitions: Any, timeout: float = 0, max_records: int | None = None) -> Any:
        """The records of one partition, or of some that are TOGETHER at most; {} if none came in `timeout` seconds."""
        until = time.monotonic() + timeout
        if (error := self._error) is not None:
            self._error = None
            raise error
        while True:
            if self._subscriptions.reassignment_in_progress:
                await self._subscriptions.wait_for_assignment()
            taken = self._taken(partitions)
            if taken and (found := await self._records_of(taken)):
                return found
            if taken:
                continue  # they are paused, or a rebalance came between: forgotten
            if (left := until - time.monotonic()) <= 0:
                return {}
            waiter = self._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=left)
            if not done or self._closed:
                waiter.cancel()
                return {}
            waiter.result()  # raises what the group was refused

    async def _records_of(self, partitions: Sequence[Any]) -> dict[Any, Sequence[Any]]:
        """What these have, one by one: their positions move with it, so what one has must not be lost by another.

        An error that comes after records is told next time.
        """
        found: dict[Any, Sequence[Any]] = {}
        for partition in partitions:
            try:
                found |= await super().fetched_records([partition])
            except KafkaError as error:
                if not found:
                    raise
                self._error = error
                break
        return found

    def _taken(self, among: Any) -> list[Any]:
        found: list[Any] = []
        size = 0
        for partition, result in self._records.items():
            if among and partition not in among:
                continue
            size += result.size if isinstance(result, _FetchResult) else 0  # the others are errors
            if found and size > TOGETHER:
                break
            found.append(partition)
        return found


_decompressing: _Records | None = None  # whose batch is being decompressed: nothing is awaited meanwhile
_room = mmap.mmap(-1, mmap.PAGESIZE)


def _gzip(data: bytes, most: int) -> bytes:
    """All members, one after the other, as `gzip` does. Raises zlib.error."""
    out, at = bytearray(), 0
    while at < len(data):
        member = zlib.decompressobj(GZIP)
        while not member.eof:
            piece = data[at : at + GZIP_PIECE]  # of many small members each leaves the rest of it, a copy
            if not piece:
                raise zlib.error("it ends too early")
            out += member.decompress(piece, most + 1 - len(out))
            if len(out) > most:
                raise _TooLarge
            at += len(piece) - len(member.unused_data)
        while at < len(data) and not data[at]:
            at += 1
        if not data.startswith(GZIP_HEAD, at):
            break  # brokers, too, leave what is behind the last member alone
    return bytes(out)


def _snappy(data: bytes, most: int) -> bytes:
    """One block, or Java's framing of several; each says how long it will be."""
    if not data.startswith(XERIAL):
        return _block(data, most)
    out, at = bytearray(), XERIAL_HEADER
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        if size <= 0:
            raise struct.error(f"a block of {size} bytes")
        out += _block(data[at + 4 : at + 4 + size], most - len(out))
        at += 4 + size
    return bytes(out)


def _block(data: bytes, most: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > most:
        raise _TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _into(decompress_into: Callable[[bytes, mmap.mmap], int]) -> Callable[[bytes, int], bytes]:
    """For what does not say how long it will be. Pages of the room that nothing is written to cost nothing."""

    def decompress(data: bytes, most: int) -> bytes:
        global _room
        if len(_room) < most:
            _room = mmap.mmap(-1, most)
        try:
            if (size := decompress_into(data, _room)) <= most:
                return _room[:size]
        except cramjam.DecompressionError as error:
            if FULL not in str(error):
                raise
        _room = mmap.mmap(-1, mmap.PAGESIZE)  # all of its pages are memory by now
        raise _TooLarge

    return decompress


_streamed = _into(cramjam.zstd.decompress_into)
_whole = zstandard.ZstdDecompressor()


def _zstd(data: bytes, most: int) -> bytes:
    """A frame that says how long it will be goes straight to where it stays: 0.15 instead of 0.2 µs a span.

    One that is skipped, or empty, may say 0 and have others behind it.
    """
    try:
        if 0 < zstandard.frame_content_size(data) <= most:
            return _whole.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError:
        pass  # several frames, or something else: that is told as for any codec
    return _streamed(data, most)


def _again(codec: str, size: int, data: bytes) -> bytes:
    """What was decompressed before, to so many bytes."""
    return _decompress[codec](data, size)


def _bounded(codec: str, unbounded: Callable[[Any], bytes], decompress: Callable[[bytes, int], bytes]) -> Any:
    """A decoder in the place of aiokafka's."""

    def decode(payload: Any) -> bytes:
        among = _decompressing
        if among is None:
            return unbounded(payload)
        data = bytes(payload)
        most = among.limit.of(len(data))
        try:
            whole = decompress(data, most)
        except _TooLarge:
            among.size += most
            raise _Unread(data, codec, Reason.BATCH_TOO_LARGE, f"{len(data)} bytes become more than {most}") from None
        except (zlib.error, cramjam.DecompressionError, struct.error) as error:
            raise _Unread(data, codec, Reason.MALFORMED, str(error)) from error
        among.size += len(whole)
        return whole

    return decode


_decompress: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _into(cramjam.lz4.decompress_into),
    "zstd": _zstd,
}
_decoders = {
    codec: _bounded(codec, getattr(codecs, f"{codec}_decode"), decompress) for codec, decompress in _decompress.items()
}


def _install() -> None:
    decoders = {f"{codec}_decode": decoder for codec, decoder in _decoders.items()}
    kinds = default_records.DefaultRecordBatch, legacy_records.LegacyRecordBatch
    users = [default_records, *(sys.modules[kind.__module__] for kind in kinds)]
    for user in users:
        for name in decoders.keys() & vars(user).keys():
            setattr(user, name, decoders[name])
    aiokafka.consumer.fetcher.MemoryRecords = _Fetched
    aiokafka.consumer.fetcher.PartitionRecords = _PartitionRecords
    aiokafka.consumer.fetcher.FetchResult = _FetchResult
    aiokafka.consumer.consumer.Fetcher = _Fetcher


_install()
