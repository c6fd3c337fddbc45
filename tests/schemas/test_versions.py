"""Golden bytes: what each version wrote is read for ever, and the current writer still writes it.

Envelopes and decision records have theirs in test_envelope.py. Whoever adds to a format adds a file here.
"""

from __future__ import annotations

import importlib
import json
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas import versions
from schemas.dead_letter import REPLAYED, DeadLetter, Receipt
from schemas.decision import Checkpoint, DecisionRecord
from schemas.ids import partition_of, partition_of_metric
from schemas.packing import unpack
from schemas.point import ExponentialValue, HistogramValue, PackedBatch, PointBatch, Reading, Shape, SummaryValue
from schemas.sample import LimitState, SeriesBlock, SourceState, Tick, TickChunk, decode_record, read_tick
from tests.schemas.examples import DECISION_RECORD, POINTS, TICK

GOLDEN = Path(versions.__path__[0]) / "v1"
FORMATS = ("decision", "envelope", "point", "sample")

# Of the same version 1: what was added under keys of their own.
LIMITED = DecisionRecord(3, checkpoint=Checkpoint(full=True, limiters={"rate": [(90_000, 1_700_000_000_123), (7, -1)]}))
BACK = DecisionRecord(3, restored={(1 << 64) - 1: "by ada: größe", 258: "a late error"})
AGAIN = DecisionRecord(3, repeated=array("Q", [258, (1 << 64) - 1]))
KEYED = DecisionRecord(
    3, checkpoint=Checkpoint(keyed={"rare": [[(500_000, 0), ((1 << 64) - 1, 2)]], "dynamic": [[], [(1, 2), (0, 0)]]})
)
WAITED = DecisionRecord(3, checkpoint=Checkpoint(waits=(30_000, 0)))
MEANT = DecisionRecord(3, checkpoint=Checkpoint(limiters={"größe": [(7, -1)]}, meant={"größe": "0a1b2c3d"}))
CALLS, DURATIONS = TICK.blocks
TOLD = replace(
    TICK,
    since_ms=TICK.time_ms - 15_000,
    blocks=[
        SeriesBlock(
            CALLS.metric,
            CALLS.shape,
            CALLS.rows,
            CALLS.stale,
            idle=[0, 14_999],
            fresh=1,
            limits=[
                LimitState("service_name", 100, 1, 1),
                LimitState("tenant", 1, 1, 40, 3.5, (("größe", 2), ("b", 1)), (b"\x01\x02", b"")),
                LimitState("", 1000, 2, 41),
            ],
        ),
        DURATIONS,
    ],
)
# Version 2: metrics from outside.
OPEN = Shape("histogram", ("job", "instance", "route"), (0.5, 2.0), 1, True)
NATIVE = Shape("exponential", ("job", "instance"), (), 1, True)
SUMMARY = Shape("summary", ("job", "instance"), (0.5, 0.99), 1, True)
CART = ("shop/cart", "größe", "/")
MEASURED = PointBatch(
    "http_server_duration_seconds",
    OPEN,
    0,
    [(CART, HistogramValue(3, 1.25, (1, 1, 1)))],
    [
        Reading(CART, HistogramValue(5, 2.25, (2, 1, 2)), (1 << 62) + 1, 1_700_000_000_000, 1_700_000_060_000),
        Reading(CART, None, 7, 0, 1_700_000_060_001),
    ],
)
WIDE = Tick(
    8,
    1_700_000_030_000,
    4712,
    4,
    [
        SeriesBlock(
            MEASURED.metric,
            OPEN,
            [(CART, HistogramValue(5, 2.25, (2, 1, 2)))],
            [("shop/cart", "2", "")],
            sources=[
                SourceState(CART, (1 << 62) + 1, 1_700_000_000_000, 1_700_000_060_000, 15_000),
                SourceState(CART, 7, 0, 1_700_000_050_000, last=HistogramValue(2, 1.0, (2,))),
            ],
        ),
        SeriesBlock("size_bytes", NATIVE, [(CART[:2], ExponentialValue(7, 9.5, 3, 1, 0.5, -2, (1, 0, 3), 4, (2,)))]),
        SeriesBlock("job_seconds", SUMMARY, [(CART[:2], SummaryValue(2, 1.5, (0.5, 1.0)))], fresh=1),
        SeriesBlock("load_ratio", Shape("gauge", CART[:2], (), 1, True), [(("a", "b"), 0.25)]),
    ],
    1_700_000_015_000,
)
AIMED = replace(MEASURED, readings=[MEASURED.readings[0]._replace(target=1 << 62), MEASURED.readings[1]])
FOLLOWED = replace(WIDE, blocks=[replace(WIDE.blocks[0]), *WIDE.blocks[1:]])
FOLLOWED.blocks[0].sources = [WIDE.blocks[0].sources[0]._replace(target=1 << 62), WIDE.blocks[0].sources[1]]
SEVERAL = DeadLetter(b"a", "t", 1, 2, 3, 4, "sink.jaeger", "refused_by_sink", rows=20)
LETTER = DeadLetter(
    b"\x00not otlp", "otlp_spans", 3, 1 << 40, 1_700_000_000_123, 7, "ingest", "malformed", "größe: field 3"
)


def golden(name: str) -> bytes:
    """The bytes as they were released."""
    return (GOLDEN / name).read_bytes()


def vectors(name: str) -> list[dict[str, Any]]:
    """The entries of a list of golden vectors."""
    found: list[dict[str, Any]] = json.loads((GOLDEN / "partitions.json").read_text(encoding="utf-8"))[name]
    return found


def same(written: bytes, released: bytes) -> bool:
    """Whether both unpack to the same, keys in the same order: zstd may compress better one day."""
    return unpack(written) == unpack(released) and list(unpack(written)) == list(unpack(released))


def test_points() -> None:
    assert same(POINTS.encode(), golden("point.bin"))
    assert PointBatch.decode(golden("point.bin")) == POINTS


@pytest.mark.parametrize(("tick", "suffix"), [(TICK, ""), (TOLD, "_told")], ids=["as begun", "with what was added"])
def test_ticks(tick: Tick, suffix: str) -> None:
    records = [golden(f"sample_{kind}{suffix}.bin") for kind in ("header", "chunk", "footer")]
    assert read_tick(records) == tick
    assert all(map(same, tick.encode(), records))


def test_producers_came_later_and_older_readers_pass_them_over() -> None:
    batch = replace(AIMED, readings=[reading._replace(producer=5) for reading in AIMED.readings])
    read = PointBatch.decode(batch.encode())
    assert (read.readings, unpack(batch.encode())["readings"]) == (batch.readings, unpack(AIMED.encode())["readings"])
    block = FOLLOWED.blocks[0]
    sources = [source._replace(producer=5, run_ms=7) for source in block.sources]
    told = replace(FOLLOWED, blocks=[replace(block, sources=sources), *FOLLOWED.blocks[1:]])
    values, before = told.encode(), FOLLOWED.encode()
    assert read_tick(iter(values)) == told
    assert {key for key in unpack(values[1]) if key not in unpack(before[1])} == {"producers", "runs"}
    assert unpack(values[1])["sources"] == unpack(before[1])["sources"]


def test_resources_came_later_and_older_readers_pass_them_over() -> None:
    before = replace(AIMED, readings=[reading._replace(producer=5) for reading in AIMED.readings])
    batch = replace(before, resources={5: b"whose it is, and what"})
    assert PointBatch.decode(batch.encode()) == batch
    packed = [PackedBatch.decode(each.encode()).resources for each in (batch, before)]
    assert [told.of(producer) for told in packed for producer in (5, 6)] == [b"whose it is, and what", *[b""] * 3]
    value = unpack(batch.encode())
    assert value.pop("resources") == [[5, b"whose it is, and what"]]
    assert value == unpack(before.encode())
    block = FOLLOWED.blocks[0]
    one, other = [source._replace(producer=5, run_ms=7) for source in block.sources]
    told = replace(block, sources=[one._replace(resource=b"whose it is, and what"), other])
    values, without = (
        replace(FOLLOWED, blocks=[first, *FOLLOWED.blocks[1:]]).encode()
        for first in (told, replace(block, sources=[one, other]))
    )
    assert read_tick(iter(values)).blocks[0] == told
    chunk = unpack(values[1])
    assert chunk.pop("resources") == [[b"whose it is, and what", b""], [], [], []]
    assert chunk == unpack(without[1])


@pytest.mark.parametrize(("batch", "suffix"), [(MEASURED, ""), (AIMED, "_targets")], ids=["as begun", "with targets"])
def test_points_from_outside_are_version_2(batch: PointBatch, suffix: str) -> None:
    released = (GOLDEN.parent / "v2" / f"point{suffix}.bin").read_bytes()
    assert same(batch.encode(), released)
    assert PointBatch.decode(released) == batch
    assert PackedBatch.decode(released).readings == batch.readings
    assert [unpack(batch.encode())["v"] for batch in (POINTS, MEASURED)] == [1, 2]


@pytest.mark.parametrize(("tick", "suffix"), [(WIDE, ""), (FOLLOWED, "_targets")], ids=["as begun", "with targets"])
def test_chunks_with_metrics_from_outside_are_version_2(tick: Tick, suffix: str) -> None:
    """Headers, footers and other chunks stay what older workers read."""
    released = (GOLDEN.parent / "v2" / f"sample_chunk{suffix}.bin").read_bytes()
    header, chunk, footer = tick.encode()
    assert same(chunk, released)
    assert decode_record(released) == TickChunk(tick.number, tick.time_ms, 0, tick.blocks, tick.since_ms)
    assert [unpack(record)["v"] for record in (header, chunk, footer, TICK.encode()[1])] == [1, 2, 1, 1]


def test_decisions_with_limiters() -> None:
    assert same(LIMITED.encode(), golden("decision_limiters.bin"))
    assert DecisionRecord.decode(golden("decision_limiters.bin")) == LIMITED
    assert "limiters" not in unpack(DECISION_RECORD.encode())


def test_decisions_with_restores() -> None:
    assert same(BACK.encode(), golden("decision_restored.bin"))
    assert DecisionRecord.decode(golden("decision_restored.bin")) == BACK
    assert "restored" not in unpack(DECISION_RECORD.encode())


def test_a_letter_of_several_rows_is_none_of_its_first_row() -> None:
    assert SEVERAL.key() == b"t/1/2/4+20"
    assert DeadLetter.read(b"a", SEVERAL.headers()) == SEVERAL
    assert "rows" not in dict(LETTER.headers())


def test_decisions_with_repetitions() -> None:
    assert same(AGAIN.encode(), golden("decision_repeated.bin"))
    assert DecisionRecord.decode(golden("decision_repeated.bin")) == AGAIN
    assert "repeated" not in unpack(DECISION_RECORD.encode())


def test_decisions_with_what_is_known_of_keys() -> None:
    assert same(KEYED.encode(), golden("decision_keyed.bin"))
    assert DecisionRecord.decode(golden("decision_keyed.bin")) == KEYED
    assert "keyed" not in unpack(LIMITED.encode())


def test_decisions_with_their_waits() -> None:
    assert same(WAITED.encode(), golden("decision_waits.bin"))
    assert DecisionRecord.decode(golden("decision_waits.bin")) == WAITED
    assert "waits" not in unpack(KEYED.encode())


def test_decisions_with_what_their_state_means() -> None:
    assert same(MEANT.encode(), golden("decision_meant.bin"))
    assert DecisionRecord.decode(golden("decision_meant.bin")) == MEANT
    assert "meant" not in unpack(KEYED.encode())


def test_dead_letters() -> None:
    released = json.loads((GOLDEN / "dead_letter.json").read_text(encoding="utf-8"))
    assert LETTER.key().decode() == released["key"]
    assert [[name, value.decode()] for name, value in LETTER.headers()] == released["headers"]
    assert LETTER.value.hex() == released["value"]
    assert DeadLetter.read(LETTER.value, LETTER.headers()) == LETTER
    wrapped = replace(LETTER, encoding="otlp_proto")
    assert wrapped.headers() == [*LETTER.headers(), ("encoding", b"otlp_proto")]
    assert DeadLetter.read(wrapped.value, wrapped.headers()) == wrapped


def test_receipts() -> None:
    """Of letters that were sent in again; readers of letters alone tell them by this header."""
    receipt = Receipt(LETTER.key(), "otlp_spans", "ingest", "malformed", "0:17", "otlp_spans", 3, 1 << 40, 2)
    assert receipt.headers()[0] == (REPLAYED, b"0:17")
    assert Receipt.read(LETTER.key(), receipt.headers()) == receipt
    assert Receipt.read(LETTER.key(), LETTER.headers()) is None


@pytest.mark.parametrize("vector", vectors("traces"), ids=str)
def test_traces_keep_their_partition(vector: dict[str, Any]) -> None:
    assert partition_of(bytes.fromhex(vector["trace_id"]), vector["partitions"]) == vector["partition"]


@pytest.mark.parametrize("vector", vectors("metrics"), ids=str)
def test_metrics_keep_their_partition(vector: dict[str, Any]) -> None:
    """The hashes are those of Kafka's own tests of murmur2, where they have them."""
    assert partition_of_metric(vector["metric"], vector["partitions"]) == vector["partition"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_version_is_read_before_it_is_written(name: str) -> None:
    module = importlib.import_module(f"schemas.{name}")
    assert module.VERSION in module.READS
    assert module.VERSION == 1 or module.VERSION - 1 in module.READS
    assert set(module.READS) <= {module.VERSION - 1, module.VERSION, module.VERSION + 1}
    for version in module.READS:
        assert list(Path(versions.__path__[0]).glob(f"v{version}/{name}*")), f"no golden bytes of {name} v{version}"


def test_every_file_is_looked_at() -> None:
    known = {file.name for file in GOLDEN.iterdir()}
    tests = [Path(__file__), Path(__file__).with_name("test_envelope.py")]
    text = "".join(file.read_text(encoding="utf-8") for file in tests)
    kinds = {f"sample_{kind}{suffix}.bin" for kind in ("header", "chunk", "footer") for suffix in ("", "_told")}
    assert known - kinds <= {name for name in known if f'"{name}"' in text}
