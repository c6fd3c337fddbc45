"""Envelopes and decision records: round trips, the bytes of released versions, foreign bytes."""

from __future__ import annotations

from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import versions
from schemas.decision import DROPPED, Checkpoint, DecisionRecord, Enrichment, Verdict
from schemas.envelope import NO_MARK, Envelope, RowVerdict, u32, u64
from schemas.errors import ProtocolError
from schemas.packing import COMPRESS_FROM, ZSTD_MAGIC, pack, unpack
from tests.schemas.examples import DECISION_RECORD

GOLDEN = Path(versions.__path__[0]) / "v1"

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
NAMES = st.text(max_size=12)
ENRICHMENTS = st.builds(Enrichment, NAMES, NAMES, st.integers(0, 2))
THRESHOLDS = st.integers(0, (1 << 56) - 1)
ROW_VERDICTS = st.one_of(
    st.none(), st.builds(RowVerdict, st.booleans(), NAMES, THRESHOLDS, st.one_of(st.none(), ENRICHMENTS))
)
VERDICTS = st.one_of(
    st.just(DROPPED),
    st.builds(
        Verdict,
        kept=st.just(True),
        policy=NAMES,
        threshold=THRESHOLDS,
        root=st.one_of(st.none(), ENRICHMENTS),
        spans=st.dictionaries(st.binary(min_size=8, max_size=8), ENRICHMENTS, max_size=3),
    ),
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    rows = draw(st.lists(st.binary(max_size=40), max_size=30))
    verdicts = draw(st.sampled_from((0, len(rows))))
    lengths = [sum(map(len, rows[: index + 1])) for index in range(len(rows))]
    resources = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=4, unique=True))
    scopes = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=4, unique=True))
    messages = draw(st.lists(st.tuples(I64, I64), min_size=1, max_size=4))

    def column(size: int) -> array[int]:
        return u32(draw(st.lists(st.integers(0, size - 1), min_size=len(rows), max_size=len(rows))))

    return Envelope(
        partitions=draw(st.integers(1, 4096)),
        topic=draw(NAMES),
        partition=draw(st.integers(0, 4096)),
        mark=draw(st.one_of(st.just(NO_MARK), st.integers(0, 1 << 50))),
        raw_topics=draw(st.dictionaries(NAMES, st.integers(1, 4096), max_size=3)),
        resources=resources,
        scopes=scopes,
        messages=messages,
        body=b"".join(rows),
        ends=u32(lengths),
        resource=column(len(resources)),
        scope=column(len(scopes)),
        message=column(len(messages)),
        item=column(1 << 32),
        keys=u64(draw(st.lists(U64, min_size=len(rows), max_size=len(rows)))),
        verdicts=draw(st.lists(ROW_VERDICTS, min_size=verdicts, max_size=verdicts)),
    )


@st.composite
def decision_records(draw: st.DrawFn) -> DecisionRecord:
    record = DecisionRecord(draw(st.integers(1, 4096)))
    for key, time, verdict in draw(st.lists(st.tuples(U64, I64, VERDICTS), max_size=20)):
        record.append(key, time, verdict)
    offsets = st.dictionaries(NAMES, st.integers(0, 1 << 62), max_size=3)
    record.checkpoint = Checkpoint(
        tails=draw(offsets),
        counted=draw(offsets),
        marks=draw(st.dictionaries(st.tuples(NAMES, U32), st.tuples(I64, I64), max_size=3)),
        raw_topics=draw(offsets),
        policy_version=draw(NAMES),
        full=draw(st.booleans()),
        limiters=draw(st.dictionaries(NAMES, st.lists(st.tuples(I64, I64), max_size=2), max_size=3)),
        waits=draw(st.none() | st.tuples(U32, U32)),
    )
    return record


# --- round trips -----------------------------------------------------------------------------------------------


@given(envelopes())
def test_an_envelope_decodes_to_itself(envelope: Envelope) -> None:
    encoded = envelope.encode()
    assert Envelope.decode(encoded) == envelope
    assert Envelope.decode(encoded).encode() == encoded


@given(decision_records())
def test_a_decision_record_decodes_to_itself(record: DecisionRecord) -> None:
    encoded = record.encode()
    assert DecisionRecord.decode(encoded) == record
    assert DecisionRecord.decode(encoded).encode() == encoded


@given(envelopes(), st.data())
def test_selected_rows_keep_their_bytes_headers_and_source(envelope: Envelope, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(envelope))), unique=True)) if len(envelope) else []
    verdicts: list[RowVerdict | None] = [RowVerdict(kept=True, policy=str(row)) for row in rows]
    selected = envelope.select(rows, verdicts)
    assert (selected.mark, selected.raw_topics, selected.verdicts) == (NO_MARK, {}, verdicts)
    assert [facts(selected, index) for index in range(len(selected))] == [facts(envelope, row) for row in rows]
    assert len(selected.resources) == len(set(selected.resource))
    assert Envelope.decode(selected.encode()) == selected


def facts(envelope: Envelope, row: int) -> tuple[Any, ...]:
    return (
        envelope.row(row), envelope.resources[envelope.resource[row]], envelope.scopes[envelope.scope[row]],
        envelope.messages[envelope.message[row]], envelope.item[row], envelope.keys[row],
    )  # fmt: skip


def test_rows_share_their_verdict() -> None:
    verdict = RowVerdict(kept=True, policy="errors", span=Enrichment("cart", "GET /cart", 2))
    many = Envelope(4, "raw", 0, verdicts=[verdict] * 1000 + [None])
    table, index = unpack(many.encode())["ver"]
    assert table == [[True, "errors", 0, ["cart", "GET /cart", 2]], None]
    assert len(index) == 4 * 1001


# --- versions --------------------------------------------------------------------------------------------------

ENVELOPE = Envelope(
    partitions=12,
    topic="otlp_spans",
    partition=3,
    mark=1_700_000_000_123,
    raw_topics={"otlp_spans": 4, "otlp_logs": 2},
    resources=[b"\x0a\x02\x10\x01", b""],
    scopes=[b"", b"\x1a\x01u"],
    messages=[(41, 1_700_000_000_000), (1 << 40, 1_700_000_000_100)],
    body=b"onetwothree",
    ends=u32([3, 6, 11]),
    resource=u32([0, 1, 0]),
    scope=u32([1, 0, 0]),
    message=u32([0, 0, 1]),
    item=u32([0, 7, 0]),
    keys=u64([258, (1 << 64) - 1, 0]),
)
KEPT_ENVELOPE = Envelope(
    partitions=12,
    topic="otlp_logs",
    partition=0,
    resources=[b"resource " * 80],  # long enough to be compressed
    scopes=[b""],
    messages=[(0, 0)],
    body=b"log" * 3,
    ends=u32([3, 6, 9]),
    resource=u32([0, 0, 0]),
    scope=u32([0, 0, 0]),
    message=u32([0, 0, 0]),
    item=u32([0, 1, 2]),
    keys=u64([1, 2, 1]),
    verdicts=[
        RowVerdict(kept=True, policy="errors", threshold=(1 << 56) - 2, span=Enrichment("größe", "GET /", 2)),
        None,
        RowVerdict(kept=False),
    ],
)
RELEASED = [
    pytest.param("envelope.bin", ENVELOPE, id="envelope"),
    pytest.param("envelope_kept.bin", KEPT_ENVELOPE, id="envelope of kept rows"),
    pytest.param("decision.bin", DECISION_RECORD, id="decision"),
]


@pytest.mark.parametrize(("file", "value"), RELEASED)
def test_version_1_is_read_for_ever(file: str, value: Envelope | DecisionRecord) -> None:
    assert type(value).decode((GOLDEN / file).read_bytes()) == value


@pytest.mark.parametrize(("file", "value"), RELEASED)
def test_version_1_is_written_byte_for_byte(file: str, value: Envelope | DecisionRecord) -> None:
    """A worker of the same version reads it. zstd may compress better one day, so only what is inside counts."""
    golden, written = (GOLDEN / file).read_bytes(), value.encode()
    assert written == value.encode()
    assert unpack(written) == unpack(golden)
    assert list(unpack(written)) == list(unpack(golden))
    if not golden.startswith(ZSTD_MAGIC):
        assert written == golden


def test_compression_starts_where_it_pays() -> None:
    assert not pack(b"x" * (COMPRESS_FROM - 4)).startswith(ZSTD_MAGIC)
    assert pack(b"x" * COMPRESS_FROM).startswith(ZSTD_MAGIC)


def test_what_cannot_be_packed_leaves_nothing_in_the_next_record() -> None:
    """All records are packed in one memory."""
    for value in ([1, object()], [1, 1 << 64]):
        with pytest.raises((TypeError, OverflowError)):
            pack(value)
        assert unpack(pack({"large": b"x" * COMPRESS_FROM})) == {"large": b"x" * COMPRESS_FROM}
        assert unpack(pack([1])) == [1]


# --- foreign bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Envelope, DecisionRecord])
@example(value=ZSTD_MAGIC + b"\xc4\x00\x00\x00\x00\x00\x00\x00\x00\x01")  # claims 2**56 bytes
@given(value=st.one_of(st.binary(max_size=64), st.binary(max_size=32).map(lambda tail: ZSTD_MAGIC + tail)))
def test_foreign_bytes_are_refused(kind: type[Envelope | DecisionRecord], value: bytes) -> None:
    with pytest.raises(ProtocolError):
        kind.decode(value)


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), I64, st.binary(max_size=9), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=5,
)


@pytest.mark.parametrize("value", [ENVELOPE, DECISION_RECORD], ids=["envelope", "decision"])
@given(data=st.data())
def test_a_field_of_another_shape_is_refused_or_read(value: Envelope | DecisionRecord, data: st.DataObject) -> None:
    """Whatever stands in a field, decoding ends with a value or a ProtocolError: never with another exception."""
    raw = unpack(value.encode())
    raw[data.draw(st.sampled_from(sorted(raw)))] = data.draw(JSON_LIKE)
    with suppress(ProtocolError):
        type(value).decode(pack(raw))


@pytest.mark.parametrize("value", [ENVELOPE, DECISION_RECORD], ids=["envelope", "decision"])
def test_another_version_is_named(value: Envelope | DecisionRecord) -> None:
    with pytest.raises(ProtocolError, match="version 2, this worker reads 1"):
        type(value).decode(pack(unpack(value.encode()) | {"v": 2}))
