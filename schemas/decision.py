"""The records of `decisions`: verdicts, durable in the transaction that made them, and the checkpoint.

One record per transaction of a `sample` partition. Recovery reads them in order from the pointer in the
committed offset's metadata: state is what the last record says, no determinism needed (docs/adr/0003).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.errors import ProtocolError
from schemas.packing import pack, unpack
from schemas.versions import require

VERSION = 1
READS = (1,)


class Enrichment(NamedTuple):
    """What a log learns from its trace: the service, name and status code (0 unset, 1 ok, 2 error) of a span."""

    service: str
    name: str
    status: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one trace.

    `policy` is the one that kept it, "" when dropped. `threshold` is the 56-bit sampling threshold, 0 for
    certain. `root` and `spans` (by span id) are what logs of a kept trace are enriched with; bounded.
    """

    kept: bool
    policy: str = ""
    threshold: int = 0
    root: Enrichment | None = None
    spans: dict[bytes, Enrichment] = field(default_factory=dict)


DROPPED = Verdict(kept=False)
RESTORED = "restored"  # the policy of a trace that was dropped and kept after all


@dataclass(slots=True)
class Checkpoint:
    """State as of a transaction.

    `tails` is the next offset to forward, per internal topic; `counted` the next offset whose spans are not
    yet in the span metrics. `marks` maps (raw topic, raw partition) to (mark ms, append ms of its record) *as of
    the tail*; only what changed since the previous record unless `full`. `policy_version` names the config.
    `limiters` maps a policy to the state of its token buckets after all verdicts up to this record: (tokens, stream
    time in ms) each, see processors.sampling.limits. `keyed` maps a policy that goes by keys to what each of its
    samplers knows, pairs of numbers (processors.sampling.adaptive). `meant` says of policies in either what their state
    means (Plan.meanings). `waits` are the `decision_wait` of the verdicts and that after the root (0: none), in ms. A
    record without them is written as before there were any.
    """

    tails: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    marks: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    raw_topics: dict[str, int] = field(default_factory=dict)
    policy_version: str = ""
    full: bool = False
    limiters: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    keyed: dict[str, list[list[tuple[int, int]]]] = field(default_factory=dict)
    waits: tuple[int, int] | None = None
    meant: dict[str, str] = field(default_factory=dict)

    def forget(self, meanings: Mapping[str, str]) -> None:
        """The state of policies that means something else than in `meanings`."""
        for policy in self.meant:
            if not _means_the_same(policy, self.meant, meanings):
                self.limiters.pop(policy, None)
                self.keyed.pop(policy, None)


@dataclass(slots=True)
class DecisionRecord:
    """Verdicts made since the previous record as parallel lists (trace key, stream time in ms, verdict).

    `restored` says of those that supersede a drop why: the one second verdict that a trace can have. `repeated` are the
    keys of those that an earlier record has, recorded again because late rows keep them alive. A record without such is
    written as before there were any.
    """

    partitions: int
    keys: array[int] = field(default_factory=lambda: array("Q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    verdicts: list[Verdict] = field(default_factory=list)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    restored: dict[int, str] = field(default_factory=dict)
    repeated: array[int] = field(default_factory=lambda: array("Q"))

    def append(self, key: int, time: int, verdict: Verdict) -> None:
        """Add one verdict. `time` is the stream time (ms) from which its horizon counts."""
        self.keys.append(key)
        self.times.append(time)
        self.verdicts.append(verdict)

    def extend(self, keys: array[int], times: array[int], verdict: Verdict) -> None:
        """Add the same verdict for several traces."""
        self.keys.extend(keys)
        self.times.extend(times)
        self.verdicts += [verdict] * len(keys)

    def encode(self) -> bytes:
        """The record value; `decode` is its inverse. A dropped verdict costs 16 bytes and a nil."""
        point = self.checkpoint
        return pack(
            {
                "v": VERSION,
                "n": self.partitions,
                "keys": self.keys.tobytes(),
                "times": self.times.tobytes(),
                "verdicts": [
                    [v.policy, v.threshold, v.root, list(v.spans.items())] if v.kept else None for v in self.verdicts
                ],
                "tails": point.tails,
                "counted": point.counted,
                "marks": [[topic, part, *value] for (topic, part), value in point.marks.items()],
                "raw": point.raw_topics,
                "policy": point.policy_version,
                "full": point.full,
                **({"limiters": point.limiters} if point.limiters else {}),
                **({"restored": list(self.restored.items())} if self.restored else {}),
                **({"keyed": point.keyed} if point.keyed else {}),
                **({"repeated": self.repeated.tobytes()} if self.repeated else {}),
                **({"waits": point.waits} if point.waits else {}),
                **({"meant": point.meant} if point.meant else {}),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> DecisionRecord:
        """Read a record value; raises ProtocolError on anything else."""
        try:
            raw: dict[str, Any] = unpack(value)
            require("decision", raw["v"], READS)
            record = cls(raw["n"], restored=dict(raw.get("restored", ())))
            record.keys.frombytes(raw["keys"])
            record.times.frombytes(raw["times"])
            record.repeated.frombytes(raw.get("repeated", b""))
            record.verdicts = [_verdict(entry) for entry in raw["verdicts"]]
            record.checkpoint = Checkpoint(
                tails=raw["tails"],
                counted=raw["counted"],
                marks={(topic, part): (mark, append) for topic, part, mark, append in raw["marks"]},
                raw_topics=raw["raw"],
                policy_version=raw["policy"],
                full=raw["full"],
                limiters={
                    name: [(tokens, at) for tokens, at in each] for name, each in raw.get("limiters", {}).items()
                },
                keyed={
                    name: [[(key, known) for key, known in one] for one in each]
                    for name, each in raw.get("keyed", {}).items()
                },
                waits=_waits(*raw["waits"]) if "waits" in raw else None,
                meant=dict(raw.get("meant", {})),
            )
            return record
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise ProtocolError(f"not a decision record of Tailrace: {error!r}") from error


def _means_the_same(policy: str, meant: Mapping[str, str], meanings: Mapping[str, str]) -> bool:
    """Whether the state of a policy goes on; an older release does not say what it means."""
    return meant.get(policy) in (None, meanings.get(policy))


def limiters_of(value: bytes, meanings: Mapping[str, str]) -> dict[str, list[tuple[int, int]]]:
    """The `limiters` of the checkpoint of a decision record alone, without those that mean something else.

    Raises ProtocolError on anything else than a record.
    """
    try:
        raw = unpack(value)
        meant, found = raw.get("meant", {}), raw.get("limiters", {})
        return {
            name: [(first, second) for first, second in each]
            for name, each in found.items()
            if _means_the_same(name, meant, meanings)
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not a decision record of Tailrace: {error!r}") from error


def decided_keys(value: bytes) -> array[int]:
    """The trace keys of a decision record alone. Raises ProtocolError on anything else."""
    try:
        keys = array("Q")
        keys.frombytes(unpack(value)["keys"])
        return keys
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError(f"not a decision record of Tailrace: {error!r}") from error


def _waits(wait: int, after_root: int) -> tuple[int, int]:
    return wait, after_root


def _verdict(entry: list[Any] | None) -> Verdict:
    if entry is None:
        return DROPPED
    policy, threshold, root, spans = entry
    return Verdict(
        kept=True,
        policy=policy,
        threshold=threshold,
        root=Enrichment(*root) if root else None,
        spans={span_id: Enrichment(*span) for span_id, span in spans},
    )
