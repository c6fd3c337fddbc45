"""The records of `samples`: ticks. A tick says the cumulative value of every live series at one time.

A tick is header, chunks, footer on one partition, in one transaction; nothing else is on the topic. It is both what
the Prometheus sink sends and all that the next owner of the partition needs to go on (docs/adr/0003). A chunk can be
read without its header: a sink that was restarted may begin in the middle.

Series of a metric are in the order in which they were admitted: loading them in that order admits them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import msgpack

from schemas.errors import ProtocolError
from schemas.packed_rows import PackedRows, after, opened
from schemas.packing import compressed, pack, unpack, unpacked
from schemas.point import (
    Labels,
    Shape,
    Value,
    decode_labels,
    decode_rows,
    decode_shape,
    decode_value,
    encode_labels,
    encode_shape,
)
from schemas.versions import require

# Chunks with an open shape (schemas/point.py) are in version 2, everything else goes on in version 1.
VERSION = 2
CLOSED_VERSION = 1
ENDING = -1  # the idle time of a row that was counted just now and ends with the next tick, unless a source feeds it
READS = (CLOSED_VERSION, VERSION)
# Estimated bytes before compression of a chunk: well below Kafka's 1 MiB default whatever the labels hold, and a
# sink's unit of work.
CHUNK_BYTES = 512 << 10
_ROW_BYTES = 16  # of msgpack's heads around a row
_NUMBER_BYTES = 9  # of the largest number
_BESIDE = 7  # numbers beside a row's value, or of one: idle time, source, its start, its time, target and producer
_OF_NUMBER = _ROW_BYTES + _BESIDE * _NUMBER_BYTES


@dataclass(frozen=True, slots=True)
class LimitState:
    """How one limit of a metric stands: on values of `label`, or on series if `label` is "".

    `active` and `demand` are values (series) in use, and in use or refused lately (an estimate, processors/sketch.py);
    `folded` is what was counted under `__overflow__` because of this limit since the metric has been there, in
    observations. `offenders` are refused values with the least that each of them was counted, the most first; `sketch`
    is what the estimates go on from.
    """

    label: str
    limit: int
    active: int
    demand: int
    folded: float = 0
    offenders: tuple[tuple[str, int], ...] = ()
    sketch: tuple[bytes, ...] = ()


class SourceState(NamedTuple):
    """The newest reading of one source (schemas/point.py: Reading) that feeds the row of `labels`.

    `last` is what it had counted, within the row's bounds, None if that is the row's value. `idle` as in `SeriesBlock`.
    `run_ms` is the time of the first reading of this run of its producer, 0 if it is not known what else that had told.
    `resource` is what is told of the producer's in short, at one of its sources or more. Packed as it is, but for
    the last four: fields stay in this order.
    """

    labels: Labels
    source: int
    start_ms: int
    time_ms: int
    idle: int = 0
    last: Value | None = None
    target: int = 0
    producer: int = 0
    run_ms: int = 0
    resource: bytes = b""


@dataclass(slots=True)
class SeriesBlock:
    """Label sets of one metric: `rows` with their cumulative value, `stale` those that end with this tick.

    A sink sends a staleness marker for every series of a label set in `stale`; it is in no later tick, unless it comes
    back from zero. The empty label value means that the label is absent. A histogram's row stands for its _bucket (by
    `le`), _sum and _count series.

    `idle[i]` is how many ms before the tick row i was last counted, or ENDING; none at all: all were counted just now.
    The last `fresh` rows were not there in the tick before: they began at zero. `limits` is empty in ticks of older
    workers. `sources` is what readings to come are compared with. A metric with an open shape has a block for each of
    the bounds that its rows have. `packed` are the label values of each row as they are written, for whoever has
    them; else none.
    """

    metric: str
    shape: Shape
    rows: list[tuple[Labels, Value]] = field(default_factory=list)
    stale: list[Labels] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    fresh: int = 0
    limits: list[LimitState] = field(default_factory=list)
    sources: list[SourceState] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list, repr=False, compare=False)

    @property
    def label_sets(self) -> int:
        return len(self.rows) + len(self.stale)


@dataclass(frozen=True, slots=True)
class TickHeader:
    """Opens tick `number` (1, 2, ...), of `partitions` (M) partitions.

    `points` is the next offset of the points partition: everything before it is in the tick. `since_ms` is when its
    interval began: with the tick before, if that is no longer ago; 0 when not known.
    """

    number: int
    time_ms: int
    points: int
    partitions: int
    chunks: int
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class TickChunk:
    """Chunk `index` (0, 1, ...) of tick `number`; every sample in it has the time `time_ms`. `since_ms`: TickHeader."""

    number: int
    time_ms: int
    index: int
    blocks: list[SeriesBlock]
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class TickFooter:
    """Closes tick `number`: it had so many label sets, live and stale."""

    number: int
    label_sets: int


TickRecord = TickHeader | TickChunk | TickFooter


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A `SeriesBlock` whose label sets are where they lie: what a sink needs of it. `stale` are label values alone."""

    metric: str
    shape: Shape
    rows: PackedRows
    stale: PackedRows
    fresh: int = 0


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """A `TickChunk` with such blocks."""

    number: int
    time_ms: int
    index: int
    blocks: list[PackedBlock]
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """A whole tick; fields as in `TickHeader`."""

    number: int
    time_ms: int
    points: int
    partitions: int
    blocks: list[SeriesBlock]
    since_ms: int = 0

    def encode(self) -> list[bytes]:
        """The values of header, chunks and footer, in this order; `read_tick` is the inverse."""
        chunks = list(_chunks(self.blocks))
        footer = TickFooter(self.number, sum(block.label_sets for block in self.blocks))
        header = TickHeader(self.number, self.time_ms, self.points, self.partitions, len(chunks), self.since_ms)
        return [
            encode_record(header),
            *(
                encode_record(TickChunk(self.number, self.time_ms, index, blocks, self.since_ms))
                for index, blocks in enumerate(chunks)
            ),
            encode_record(footer),
        ]


def read_tick(values: Iterable[bytes]) -> Tick:
    """The tick that `values` begin with; what follows its footer is not read.

    Raises ProtocolError unless it is complete and in order.
    """
    records = (decode_record(value) for value in values)
    header = next(records, None)
    if not isinstance(header, TickHeader):
        raise ProtocolError(f"a tick begins with its header, found {type(header).__name__}")
    blocks: list[SeriesBlock] = []
    index = 0
    for record in records:
        if record.number != header.number:
            raise ProtocolError(f"tick {header.number} is interrupted by {type(record).__name__} {record.number}")
        if isinstance(record, TickChunk):
            if record.index != index:
                raise ProtocolError(f"tick {header.number}: chunk {record.index} where {index} belongs")
            index += 1
            _join(blocks, record.blocks)
        elif isinstance(record, TickFooter):
            label_sets = sum(block.label_sets for block in blocks)
            if (index, label_sets) != (header.chunks, record.label_sets):
                raise ProtocolError(
                    f"tick {header.number}: {index} chunks with {label_sets} label sets, "
                    f"announced {header.chunks} with {record.label_sets}"
                )
            return Tick(header.number, header.time_ms, header.points, header.partitions, blocks, header.since_ms)
        else:
            raise ProtocolError(f"tick {header.number} has two headers")
    raise ProtocolError(f"tick {header.number} ends without its footer")


def encode_record(record: TickRecord) -> bytes:
    """One record value; `decode_record` is its inverse.

    What version 1 did not have from its beginning is under keys of its own, which older readers pass over.
    """
    body: dict[str, Any]
    version = CLOSED_VERSION
    match record:
        case TickHeader():
            body = {
                "kind": "header",
                "time": record.time_ms,
                "points": record.points,
                "m": record.partitions,
                "chunks": record.chunks,
                **({"since": record.since_ms} if record.since_ms else {}),
            }
        case TickChunk():
            body = {
                "kind": "chunk",
                "time": record.time_ms,
                "index": record.index,
                "blocks": None,
                **({"since": record.since_ms} if record.since_ms else {}),
            }
            for key, column in (
                ("idle", [block.idle for block in record.blocks]),
                ("fresh", [block.fresh for block in record.blocks]),
                ("limits", [list(map(_limit_fields, block.limits)) for block in record.blocks]),
                ("sources", [[source[:-4] for source in block.sources] for block in record.blocks]),
                ("targets", [_beside([source.target for source in block.sources]) for block in record.blocks]),
                ("producers", [_beside([source.producer for source in block.sources]) for block in record.blocks]),
                ("runs", [_beside([source.run_ms for source in block.sources]) for block in record.blocks]),
                ("resources", [_beside([source.resource for source in block.sources]) for block in record.blocks]),
            ):
                if any(column):
                    body[key] = column
            if any(block.shape.open for block in record.blocks):
                version = VERSION
        case TickFooter():
            body = {"kind": "footer", "sets": record.label_sets}
    body = {"v": version, "tick": record.number, **body}
    return _pack_chunk(body, record.blocks) if isinstance(record, TickChunk) else pack(body)


def _pack_chunk(body: Mapping[str, Any], blocks: Sequence[SeriesBlock]) -> bytes:
    """The record of these fields, with the blocks in their place: most of it is bytes that are packed already."""
    packer = msgpack.Packer()
    packed = packer.pack
    parts: list[bytes] = [packer.pack_map_header(len(body))]
    for key, value in body.items():
        parts.append(packed(key))
        if key != "blocks":
            parts.append(packed(value))
            continue
        parts.append(packer.pack_array_header(len(blocks)))
        row = packer.pack_array_header(2)
        for block in blocks:
            parts += packer.pack_array_header(4), packed(block.metric), packed(encode_shape(block.shape))
            parts.append(packer.pack_array_header(len(block.rows)))
            for labels, (_, number) in zip(_packed(block), block.rows, strict=True):
                parts += row, labels, packed(number)
            parts.append(packed(block.stale))
    return compressed(b"".join(parts))


def _beside(of_sources: list[Any]) -> list[Any]:
    """One for each source; none at all if no source has one."""
    return of_sources if any(of_sources) else []


def _packed(block: SeriesBlock) -> list[bytes]:
    return block.packed or [encode_labels(labels) for labels, _ in block.rows]


def decode_record(value: bytes) -> TickRecord:
    """Read a record value; raises ProtocolError on anything else."""
    try:
        raw: dict[str, Any] = unpack(value)
        require("samples", raw["v"], READS)
        number = raw["tick"]
        match raw["kind"]:
            case "header":
                return TickHeader(number, raw["time"], raw["points"], raw["m"], raw["chunks"], raw.get("since", 0))
            case "chunk":
                return TickChunk(number, raw["time"], raw["index"], _blocks(raw), raw.get("since", 0))
            case "footer":
                return TickFooter(number, raw["sets"])
            case kind:
                raise ValueError(f"kind {kind!r}")
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ProtocolError(f"not a samples record of Tailrace: {error!r}") from error


def find_record(value: bytes) -> TickHeader | PackedChunk | TickFooter:
    """Like `decode_record`, for those who pass label sets on: texts are found, not made objects of.

    They are not checked to be UTF-8 either.
    """
    try:
        data = unpacked(value)
        count, at = opened(data, 0)
        raw: dict[str, Any] = {}
        for _ in range(count):
            end = after(data, at)
            key, at = msgpack.unpackb(data[at:end]), end
            if key == "blocks":
                raw[key], at = _places(data, at)
            else:
                end = after(data, at)
                if key not in ("idle", "limits", "sources", "targets", "producers", "runs", "resources"):
                    raw[key] = msgpack.unpackb(data[at:end])
                at = end
        if raw["kind"] != "chunk" and not isinstance(record := decode_record(data), TickChunk):
            return record
        require("samples", raw["v"], READS)
        fresh = raw.get("fresh") or [0] * len(raw["blocks"])
        blocks = [
            PackedBlock(metric, shape, rows, stale, new)
            for (metric, shape, rows, stale), new in zip(raw["blocks"], fresh, strict=True)
        ]
        return PackedChunk(raw["tick"], raw["time"], raw["index"], blocks, raw.get("since", 0))
    except (KeyError, ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a samples record of Tailrace: {error!r}") from error


def _places(data: bytes, at: int) -> tuple[list[tuple[str, Shape, PackedRows, PackedRows]], int]:
    """The blocks that begin at `at`, and where they end."""
    blocks = []
    count, at = opened(data, at)
    for _ in range(count):
        parts, at = opened(data, at)
        if parts != 4:
            raise ValueError(f"{parts} parts of a block")
        end = after(data, at)
        metric, at = msgpack.unpackb(data[at:end]), end
        end = after(data, at)
        shape = decode_shape(msgpack.unpackb(data[at:end]))
        rows = PackedRows(data, end, len(shape.label_names), 2)
        stale = PackedRows(data, rows.end, len(shape.label_names), 1)
        blocks.append((metric, shape, rows, stale))
        at = stale.end
    return blocks, at


def _blocks(chunk: Mapping[str, Any]) -> list[SeriesBlock]:
    blocks = []
    for metric, raw_shape, rows, stale in chunk["blocks"]:
        shape = decode_shape(raw_shape)
        blocks.append(SeriesBlock(metric, shape, decode_rows(shape, rows), [tuple(labels) for labels in stale]))
    for block, idle in zip(blocks, chunk.get("idle", ()), strict=False):
        if len(idle) not in (0, len(block.rows)):
            raise ValueError(f"{len(idle)} idle times for {len(block.rows)} rows")
        block.idle = list(idle)
    for block, fresh in zip(blocks, chunk.get("fresh", ()), strict=False):
        block.fresh = int(fresh)
    for block, limits in zip(blocks, chunk.get("limits", ()), strict=False):
        block.limits = [_limit(*limit) for limit in limits]
    absent = {"targets": 0, "producers": 0, "runs": 0, "resources": b""}
    beside = [chunk.get(key) or [()] * len(blocks) for key in absent]
    for block, sources, *columns in zip(blocks, chunk.get("sources", ()), *beside, strict=False):
        told = zip(columns, absent.values(), strict=True)
        more = zip(*(column or repeat(none, len(sources)) for column, none in told), strict=True)
        block.sources = [_source(block.shape, *each, *source) for source, each in zip(sources, more, strict=True)]
    return blocks


def _source(
    shape: Shape,
    target: int,
    producer: int,
    run_ms: int,
    resource: bytes,
    labels: list[str],
    source: int,
    start_ms: int,
    time_ms: int,
    idle: int,
    last: Any,
) -> SourceState:
    counted = None if last is None else decode_value(shape, last, any_bounds=True)
    beside = target, producer, run_ms, resource
    return SourceState(decode_labels(shape, labels), source, start_ms, time_ms, idle, counted, *beside)


def _limit_fields(limit: LimitState) -> tuple[Any, ...]:
    return limit.label, limit.limit, limit.active, limit.demand, limit.folded, limit.offenders, limit.sketch


def _limit(
    label: str,
    limit: int,
    active: int,
    demand: int,
    folded: float,
    offenders: Sequence[tuple[str, int]],
    sketch: Sequence[bytes],
) -> LimitState:
    found = tuple((value, count) for value, count in offenders)
    return LimitState(label, limit, active, demand, folded, found, tuple(sketch))


def _chunks(blocks: Iterable[SeriesBlock]) -> Iterator[list[SeriesBlock]]:
    """The blocks, cut where a chunk is full."""
    chunk: list[SeriesBlock] = []
    size = 0
    for block in blocks:
        part: SeriesBlock | None = None
        first_fresh = len(block.rows) - block.fresh
        limits, size = block.limits, size + sum(map(_limit_bytes, block.limits))
        packed = _packed(block)
        first = 0
        while first < len(block.rows):
            end, size = _fill(packed, block.rows, first, size)
            part = SeriesBlock(block.metric, block.shape, block.rows[first:end], limits=limits)
            part.packed = packed[first:end]
            part.fresh = max(0, end - max(first, first_fresh))
            part.idle = block.idle[first:end]
            chunk.append(part)
            first, limits = end, []
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, part, size = [], None, 0
        entries: list[tuple[Labels, SourceState | None]] = [
            *((labels, None) for labels in block.stale),
            *((source.labels, source) for source in block.sources),
        ]
        for labels, source in entries:
            if part is None:
                part = SeriesBlock(block.metric, block.shape, limits=limits)
                chunk.append(part)
                limits = []
            if source is None:
                part.stale.append(labels)
            else:
                part.sources.append(source)
                size += len(source.resource)
            size += _text_bytes(labels) + _value_bytes(None if source is None else source.last)
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, part, size = [], None, 0
    if chunk:
        yield chunk


def _fill(packed: list[bytes], rows: list[tuple[Labels, Value]], first: int, size: int) -> tuple[int, int]:
    """The end of the rows from `first` on that make a chunk of so many bytes full, and how many there are then."""
    for number in range(first, len(rows)):
        value = rows[number][1]
        size += len(packed[number]) + (_value_bytes(value) if isinstance(value, tuple) else _OF_NUMBER)
        if size >= CHUNK_BYTES:
            return number + 1, size
    return len(rows), size


def _limit_bytes(limit: LimitState) -> int:
    offenders = sum(4 * len(value) + _NUMBER_BYTES for value, _ in limit.offenders)
    return _ROW_BYTES + len(limit.label) + 4 * _NUMBER_BYTES + offenders + sum(map(len, limit.sketch))


def _text_bytes(labels: Labels) -> int:
    text = "".join(labels)
    return (len(text) if text.isascii() else 4 * len(text)) + 5 * len(labels)


def _value_bytes(value: Value | None) -> int:
    """Of a value and what is beside it."""
    numbers = _BESIDE
    if isinstance(value, tuple):
        numbers += sum([len(part) if isinstance(part, tuple) else 1 for part in value])
    return _ROW_BYTES + _NUMBER_BYTES * numbers


def _join(blocks: list[SeriesBlock], more: list[SeriesBlock]) -> None:
    """Append, putting a block that was cut together again."""
    for block in more:
        last = blocks[-1] if blocks else None
        if last is not None and (last.metric, last.shape) == (block.metric, block.shape):
            last.rows.extend(block.rows)
            last.stale.extend(block.stale)
            last.idle.extend(block.idle)
            last.fresh += block.fresh
            last.limits.extend(block.limits)
            last.sources.extend(block.sources)
        else:
            blocks.append(block)
