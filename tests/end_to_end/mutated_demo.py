"""`python -m tests.end_to_end.mutated_demo MUTATION ARGS…`: the demo with a sample role that does one thing wrong.

drop_span: one span of one kept trace is not forwarded. split_trace: one span of a kept trace goes on under another
trace id. lose_error: a kept trace with an error goes nowhere. The demo must notice each.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Callable

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from pipeline.cli import main
from pipeline.sample import PartitionPair
from processors.sampling.window import Burst
from schemas.envelope import Envelope

Rows = list[tuple[bytes, int]]
"""The OTLP bytes of each row that stays, and its former index."""


def rows(envelope: Envelope) -> Rows:
    return [(envelope.row(index), index) for index in range(len(envelope))]


def rebuilt(envelope: Envelope, kept: Rows) -> Envelope:
    """The envelope with these rows only."""
    envelope.body = b"".join(row for row, _ in kept)
    envelope.ends = array("I", itertools.accumulate(len(row) for row, _ in kept))
    for name in ("resource", "scope", "message", "item"):
        column = getattr(envelope, name)
        setattr(envelope, name, array("I", [column[index] for _, index in kept]))
    envelope.verdicts = [envelope.verdicts[index] for _, index in kept]
    return envelope


def shared_trace(envelope: Envelope) -> tuple[int, bytes] | None:
    """A row whose trace has another row in the same envelope: without it the trace is broken, not gone."""
    seen: set[bytes] = set()
    for row, index in rows(envelope):
        trace_id = Span.FromString(row).trace_id
        if trace_id in seen:
            return index, trace_id
        seen.add(trace_id)
    return None


class Mutation:
    """Changes kept envelopes until it has done its damage."""

    def __init__(self) -> None:
        self.done = False
        self.lost = b""
        self.seen: set[bytes] = set()

    def drop_span(self, envelope: Envelope) -> Rows:
        kept = rows(envelope)
        if not self.done and (found := shared_trace(envelope)):
            self.done = True
            del kept[found[0]]
        return kept

    def split_trace(self, envelope: Envelope) -> Rows:
        kept = rows(envelope)
        if not self.done and (found := shared_trace(envelope)):
            self.done = True
            index, trace_id = found
            kept[index] = (kept[index][0].replace(trace_id, bytes(reversed(trace_id))), index)
        return kept

    def lose_error(self, envelope: Envelope) -> Rows:
        """The first trace that an error kept, from its first envelope on: of one seen before, spans have gone out."""
        traces = [Span.FromString(row).trace_id for row, _ in rows(envelope)]
        if not self.lost:
            kept_by = zip(traces, envelope.verdicts, strict=True)
            self.lost = next((t for t, v in kept_by if v and v.policy == "errors" and t not in self.seen), b"")
            self.seen.update(traces)
        return [row for row, trace in zip(rows(envelope), traces, strict=True) if trace != self.lost]


def install(mutate: Callable[[Envelope], Rows]) -> None:
    """Put the mutation between the window's burst and its transaction."""
    commit = PartitionPair._commit

    async def mutated(self: PartitionPair, burst: Burst) -> None:
        envelopes = [Envelope.decode(value) for value in burst.kept_spans]
        burst.kept_spans = [rebuilt(envelope, mutate(envelope)).encode() for envelope in envelopes]
        await commit(self, burst)

    PartitionPair._commit = mutated  # type: ignore[method-assign]


if __name__ == "__main__":
    install(getattr(Mutation(), sys.argv[1]))
    main(args=["demo", *sys.argv[2:]], prog_name="tailrace")
