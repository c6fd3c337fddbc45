"""The two sides of a comparison: processes that read one raw topic and put kept spans into another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.outputs import Ids, of_envelope, of_otlp
from bench.peer import LEAST_CPU, LEAST_MEMORY, Peer
from bench.testbed import Starting, Testbed, create_topics, laid_over
from bench.verdicts import COMPAT, Mix
from tests.end_to_end.harness import Worker
from tests.services import Kafka, Server

LATE_HORIZON = 600.0
ONE_WORKER: Mapping[str, Any] = {"kafka": {"partitions": 1}}
"""With a raw topic that `sample` reads itself: all of its partitions, keyed or not."""
LITTLE_CACHE: Mapping[str, Any] = {"sampling": {"cache_bytes": 64 << 20}}
"""Tailrace set for little memory: of a longer window the rest waits in Kafka, and is read twice."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a Collector is set up: the configurations of that kind, more files over them, Go's runtime variables."""

    kind: Literal["defaults", "tuned"]
    over: tuple[str, ...] = ()
    runtime: Mapping[str, str] = field(default_factory=dict)


TUNINGS = {
    "least CPU": Tuning("tuned", ("batch",), LEAST_CPU),
    "least memory": Tuning("tuned", ("batch",), LEAST_MEMORY),
    "defaults": Tuning("defaults"),
}
# One thing varied at a time: what LEAST_CPU, LEAST_MEMORY and the tuned files were chosen by.
VARIED = {
    **{f"GOGC={value}": Tuning("tuned", runtime={"GOGC": value}) for value in ("25", "50", "100", "200", "400", "800")},
    **{
        f"GOGC=off, GOMEMLIMIT={limit}": Tuning("tuned", runtime={"GOGC": "off", "GOMEMLIMIT": limit})
        for limit in ("1GiB", "2GiB", "4GiB")
    },
    **{
        f"GOGC=off, GOMEMLIMIT=4GiB, {' and '.join(over)}": Tuning("tuned", over, {"GOGC": "off", "GOMEMLIMIT": "4GiB"})
        for over in (("batch",), ("linger",), ("fetch",), ("batch", "fetch"))
    },
    "GOGC=off, GOMEMLIMIT=12GiB, batch": Tuning("tuned", ("batch",), LEAST_CPU),
    "GOGC=50, batch": Tuning("tuned", ("batch",), LEAST_MEMORY),
    "defaults": Tuning("defaults"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides are asked to do with the topic `raw` of `partitions` partitions, which has `traces` traces."""

    raw: str
    partitions: int
    traces: int
    mix: Mix
    decision_wait: float
    metrics: bool = False


class Contestant(ABC):
    """One side in one run. `start`, then look at `servers`, then `close`.

    `waits`: it waits `decision_wait` by the clock on the wall, also in a catch-up; its spans/s do without that.
    """

    waits: bool
    output: str
    written: Sequence[str]
    read: Callable[[bytes], Ids]

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}

    @abstractmethod
    def start(self, cpus: Collection[int]) -> None:
        """Start every process, the one that reads the raw topic last; it has started when this returns."""

    def close(self) -> None:
        """End them."""
        for server in self.servers.values():
            server.close()

    def logs(self) -> str:
        """What they said last."""
        return "\n".join(
            f"--- {name}:\n" + "\n".join(server.log.read_text(errors="replace").splitlines()[-20:])
            for name, server in self.servers.items()
        )


class Tailrace(Contestant):
    """Roles `ingest` and `sample`, `workers` processes each.

    `direct`: the raw topic is keyed, and `sample` reads it itself. `over` goes over the sections of the configuration.
    """

    waits = False  # stream time
    read = staticmethod(of_envelope)
    last: type[Worker] = Starting  # whose partitions would be read before the clock runs, if it were waited for

    def __init__(
        self,
        kafka: Kafka,
        name: str,
        task: Task,
        direct: bool,
        workers: int = 1,
        over: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        sections: dict[str, Any] = {
            "kafka": {"partitions": task.partitions},
            "sampling": {
                "policies": task.mix.policies(),
                "compat": COMPAT,
                "decision_wait": task.decision_wait,
                "late_horizon": LATE_HORIZON,
            },
            "metrics": {"span_metrics": {"enabled": task.metrics}},
        }
        if direct:
            sections["regroup"] = "never"
        roles = ("sample",) if direct else ("sample", "ingest")
        self._starts = [role for role in roles for _ in range(workers)]
        given = [{"topic": task.raw, "signal": "traces"}]
        self._bed = Testbed(kafka, name, task.partitions, laid_over(sections, over or {}), given)
        self.output = self._bed.topics.kept_spans
        self.written = self._bed.internal

    def start(self, cpus: Collection[int]) -> None:
        for number, role in enumerate(self._starts, 1):
            name = role if role not in self.servers else f"{role} {number}"
            kind = self.last if role == self._starts[-1] else Worker
            self.servers[name] = self._bed.start(role, kind=kind, cpus=cpus)


class Collectors(Contestant):
    """One Collector, or two where `split` keys the topic first."""

    waits = True
    read = staticmethod(of_otlp)

    def __init__(self, kafka: Kafka, name: str, task: Task, tuning: Tuning, split: bool) -> None:
        super().__init__()
        self.output, keyed = f"{name}-kept", f"{name}-keyed"
        self.written = [self.output, *([keyed] if split else [])]
        create_topics(kafka, self.written, task.partitions)
        files = [f"sample.{tuning.kind}", *tuning.over, *(["metrics"] if task.metrics else [])]
        self._peers = {
            "sampling": Peer(
                kafka,
                files,
                (keyed if split else task.raw, self.output),
                f"{name}-sampling",
                policies=task.mix.policies(),
                decision_wait=task.decision_wait,
                traces=task.traces,
                runtime=tuning.runtime,
            )
        }
        if split:
            self._peers["keying"] = Peer(
                kafka,
                [f"split.{tuning.kind}", *tuning.over],
                (task.raw, keyed),
                f"{name}-keying",
                runtime=tuning.runtime,
            )

    def start(self, cpus: Collection[int]) -> None:
        for name, peer in self._peers.items():
            peer.cpus = cpus
            self.servers[name] = peer.start()

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()


@dataclass(frozen=True, slots=True)
class Mode:
    """What is compared: how the raw topic is laid out, and who runs on it, by the names the tables show."""

    title: str
    keyed: bool
    metrics: bool
    sides: Mapping[str, Callable[[Kafka, str, Task], Contestant]]


def _tailrace(
    direct: bool, over: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Kafka, str, Task], Contestant]:
    return lambda kafka, name, task: Tailrace(kafka, name, task, direct, over=over)


def _collector(tuning: Tuning, split: bool = False) -> Callable[[Kafka, str, Task], Contestant]:
    return lambda kafka, name, task: Collectors(kafka, name, task, tuning, split)


TAILRACE, LEAN = "Tailrace", "Tailrace, least memory"
_ONE = {f"Collector, {name}": _collector(tuning) for name, tuning in TUNINGS.items()}
_TWO = {f"two Collectors, {name}": _collector(tuning, split=True) for name, tuning in TUNINGS.items()}
_OWN = {TAILRACE: _tailrace(direct=True), LEAN: _tailrace(True, LITTLE_CACHE)}
_KEYED = Mode("keyed topic, sampling", True, False, {**_OWN, **_ONE})
MODES = {
    "a": _KEYED,
    "am": replace(_KEYED, title="keyed topic, sampling and span metrics", metrics=True),
    "b": Mode(
        "un-keyed topic, regrouping and sampling",
        False,
        False,
        {TAILRACE: _tailrace(direct=False), **_TWO, "Collector, least CPU": _ONE["Collector, least CPU"]},
    ),
    "one": Mode(
        "un-keyed topic, one process on each side",
        False,
        False,
        {TAILRACE: _tailrace(True, ONE_WORKER), **_ONE},
    ),
    "tuning": Mode(
        "keyed topic, one Collector, its settings",
        True,
        False,
        {f"Collector, {name}": _collector(tuning) for name, tuning in VARIED.items()},
    ),
}
