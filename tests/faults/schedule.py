"""What goes wrong, when and for how long: all of it from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DESTINATIONS = ("jaeger", "elasticsearch", "prometheus")


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault: how long it lasts, in seconds (least, most), and what it does."""

    lasts: tuple[float, float]
    means: str


WORKERS: Mapping[str, Kind] = {
    "kill": Kind((0.0, 4.0), "SIGKILL of a worker; it is started again afterwards"),
    "freeze": Kind((0.5, 3.0), "SIGSTOP, SIGCONT within the session"),
    "zombie": Kind((8.0, 11.0), "SIGSTOP for longer than the session: it wakes when its partitions have moved"),
    "join": Kind((3.0, 8.0), "one more worker joins, and leaves with SIGTERM"),
    "roll": Kind((0.0, 0.0), "every worker in turn: SIGTERM, exit code 0, started again"),
}
BROKER: Mapping[str, Kind] = {
    "kill broker": Kind((0.2, 3.0), "SIGKILL of the broker; it is started again afterwards"),
    "freeze broker": Kind((1.0, 8.0), "SIGSTOP of the broker: requests wait, sessions end"),
}
INPUT: Mapping[str, Kind] = {
    "abort": Kind((0.0, 0.0), "raw transactions with spans and logs are aborted"),
    "hang": Kind((1.0, 4.0), "a raw transaction stays open, then is aborted"),
    "no logs": Kind((1.0, 5.0), "nothing is logged"),
}
CLOCK: Mapping[str, Kind] = {
    "clock ahead": Kind((2.0, 6.0), "the clock of one worker, then of all, steps an hour ahead, and back"),
    "clock behind": Kind((2.0, 6.0), "the same, an hour behind"),
}
SINKS: Mapping[str, Kind] = {
    "refuse": Kind((1.0, 10.0), "no connection is accepted"),
    "reset": Kind((1.0, 5.0), "requests are read and reset"),
    "time out": Kind((2.0, 6.0), "requests are never answered"),
    "429": Kind((1.0, 5.0), "429 with Retry-After"),
    "500": Kind((1.0, 5.0), "500 with Retry-After"),
    "503": Kind((1.0, 5.0), "503 with Retry-After"),
    "lose answers": Kind((1.0, 5.0), "requests reach the server, the answers are lost"),
    "slow": Kind((2.0, 10.0), "every request takes 0.7 s more"),
    "fail items": Kind((1.0, 5.0), "half of each bulk request fails with 429 inside a 200"),
    "roll over": Kind((2.0, 4.0), "the data stream rolls over, twice, answers being lost meanwhile"),
}
ELASTICSEARCH_ONLY = ("fail items", "roll over")
KINDS: Mapping[str, Kind] = {**WORKERS, **BROKER, **INPUT, **CLOCK, **SINKS}

LAYOUTS: Sequence[tuple[str, ...]] = (
    ("all", "all"),
    ("ingest,sample", "ingest,sample", "aggregate,sinks", "aggregate,sinks"),
    ("ingest", "ingest,sample", "sample,aggregate", "sinks", "aggregate,sinks"),
    ("ingest,sample,aggregate", "ingest,sample,aggregate", "sink.jaeger", "sink.elasticsearch", "sink.prometheus"),
)
"""The roles of each worker."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a run is. `faults` is how many of each group there are, `rate` requests per second."""

    seconds: float
    rate: float
    faults: Sequence[tuple[Mapping[str, Kind], int]]
    layouts: Sequence[tuple[str, ...]] = LAYOUTS


LONG = Shape(
    seconds=36.0,
    rate=560.0,
    faults=((WORKERS, 4), (SINKS, 4), ({**INPUT, **CLOCK}, 2), (BROKER, 1)),
)
"""`make faults`: about 100,000 spans."""

SHORT = Shape(
    seconds=7.0,
    rate=60.0,
    # Without what needs a broker of its own to be started again, or every worker.
    faults=(({kind: WORKERS[kind] for kind in ("kill", "freeze", "zombie", "join")}, 1), (SINKS, 2), (INPUT, 1)),
    layouts=LAYOUTS[:2],
)
"""`make test`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` seconds after everything had begun to flow; `target` is the number of a worker or of a destination."""

    at: float
    kind: str
    lasts: float
    target: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything about a run that its seed says."""

    seed: int
    shape: Shape
    layout: tuple[str, ...]
    faults: tuple[Fault, ...]

    def lines(self) -> list[str]:
        """For people."""
        found = [f"seed {self.seed}: workers {' | '.join(self.layout)}"]
        for fault in self.faults:
            whom = ""
            if fault.kind in WORKERS and fault.kind != "roll":
                whom = f" (worker {fault.target}: {self.layout[fault.target]})"
            elif fault.kind in SINKS:
                whom = f" ({DESTINATIONS[fault.target]})"
            found.append(f"  {fault.at:5.1f} s: {fault.kind}{whom} for {fault.lasts:.1f} s")
        return found


def schedule(seed: int, shape: Shape) -> Schedule:
    """The same one for the same seed and shape."""
    rng = random.Random(seed)
    layout = rng.choice(shape.layouts)
    faults = []
    for kinds, count in shape.faults:
        for kind in rng.sample(sorted(kinds), count):
            lasts = rng.uniform(*kinds[kind].lasts)
            at = rng.uniform(0.5, max(0.5, shape.seconds - lasts))
            target = rng.randrange(len(DESTINATIONS) if kind in SINKS else len(layout))
            if kind in ELASTICSEARCH_ONLY:
                target = DESTINATIONS.index("elasticsearch")
            faults.append(Fault(round(at, 2), kind, round(lasts, 2), target))
    return Schedule(seed, shape, layout, tuple(sorted(faults, key=lambda fault: fault.at)))


__all__ = ["CLOCK", "DESTINATIONS", "KINDS", "LONG", "SHORT", "Fault", "Kind", "Schedule", "Shape", "schedule"]
