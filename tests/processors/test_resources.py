"""Resources that get or lose attributes while their process runs are counted once, those that differ are several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, MetricsData

from processors.cardinality import Limits
from processors.metric_points import MetricPoints, Naming
from processors.resources import MOST_ATTRIBUTES
from processors.series import SeriesStore
from processors.sources import MOST_RESOURCES
from schemas.sample import SeriesBlock, Tick, read_tick
from tests.processors.metric_strategies import Seen, apply
from tests.schemas.rows import attribute

MS = 1_000_000
START = 1_700_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
PROCESS = {"service.namespace": "shop", "service.name": "cart", "service.instance.id": "1", "host.name": "h"}
ENV = {"deployment.environment.name": "prod"}
KINDS = ["counter", "histogram", "exponential", "summary"]

Told = dict[str, str]


def message(kind: str, resource: Told, values: Mapping[str, float], start: int, time: int) -> bytes:
    """One metric of a resource: a value for each route."""
    data = MetricsData()
    part = data.resource_metrics.add()
    part.resource.attributes.extend(attribute(key, text) for key, text in resource.items())
    metric = part.scope_metrics.add().metrics.add(name="m")
    points = getattr(metric, {"counter": "sum", "exponential": "exponential_histogram"}.get(kind, kind))
    if kind != "summary":
        points.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    if kind == "counter":
        points.is_monotonic = True
    for route, value in values.items():
        point = points.data_points.add(start_time_unix_nano=start * MS, time_unix_nano=time * MS)
        point.attributes.append(attribute("route", route))
        if kind == "counter":
            point.as_double = value
        else:
            point.count = int(value)
        if kind == "histogram":
            point.explicit_bounds.append(1.0)
            point.bucket_counts.extend([int(value), 0])
        elif kind == "exponential":
            point.positive.bucket_counts.append(int(value))
    return data.SerializeToString()


@dataclass
class Pipeline:
    """ingest and aggregate of one metric; what they write goes through bytes, and a tick may have another owner."""

    kind: str = "counter"
    start: int = START - 1
    naming: Naming = field(default_factory=Naming)
    limits: Limits = field(default_factory=lambda: Limits(1000, 1000, idle_ms=HOUR, level_idle_ms=HOUR))
    seen: Seen = field(default_factory=Seen)
    older: bool = False  # neither points nor ticks tell of resources
    time: int = START
    _ticked: int = START

    def __post_init__(self) -> None:
        self.reader = MetricPoints("raw", 0, "otlp_proto", self.naming, 1 << 24)
        self.store = SeriesStore(self.limits)

    def tell(self, resource: Told, values: Mapping[str, float], later: int = 0, start: int = 0) -> None:
        time = self.time + later
        self.reader.add(0, time, message(self.kind, resource, values, start or self.start, time))
        for batch in self.reader.flush().batches:
            if batch.metric != "target_info":
                resources = {} if self.older else batch.resources
                apply(self.store, replace(batch, metric="m", resources=resources), time)

    def tick(self, takes_over: bool = True) -> list[SeriesBlock]:
        self.time += MINUTE
        blocks = read_tick(Tick(1, self.time, 1, 1, self.store.blocks(self.time)).encode()).blocks
        self.seen.take(blocks, self._ticked, self.time)
        self._ticked = self.time
        if takes_over:
            for block in blocks if self.older else ():
                block.sources = [source._replace(resource=b"") for source in block.sources]
            self.store = SeriesStore(self.limits)
            self.store.load(blocks, self.time)
        return blocks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("takes_over", [False, True], ids=["one owner", "an owner each tick"])
@pytest.mark.parametrize(
    "resources",
    [
        [PROCESS, PROCESS | ENV],
        [PROCESS | ENV, PROCESS],
        [PROCESS | {"env": "prod"}, PROCESS | ENV],
        [PROCESS, PROCESS | ENV, PROCESS | ENV | {"team": "a"}, PROCESS | {"team": "a"}],
    ],
    ids=["added", "taken away", "renamed", "several"],
)
def test_an_attribute_that_comes_or_goes_while_a_process_runs_counts_nothing_again(
    kind: str, takes_over: bool, resources: list[Told]
) -> None:
    pipeline, count = Pipeline(kind), 0
    for resource in resources:
        for _ in range(2):
            count += 10
            pipeline.tell(resource, {"a": count, "b": 2 * count})
            blocks = pipeline.tick(takes_over)
    assert pipeline.seen.increase() == 3 * count
    assert sum(len(block.sources) for block in blocks) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("apart", [0, 1, 7_000], ids=["one time", "1 ms apart", "7 s apart"])
def test_what_two_gateways_tell_with_an_attribute_and_without_counts_once(kind: str, apart: int) -> None:
    """A set that is new meanwhile as well; and who is behind changes nothing."""
    pipeline = Pipeline(kind)
    for at in range(1, 9):
        late = {"a": at * 10 - 5.0, **({"b": at * 10 - 5.0} if at > 4 else {})}
        values = {"a": at * 10.0, **({"b": at * 10.0} if at > 3 else {})}
        for resource in (PROCESS, PROCESS | ENV):
            pipeline.tell(resource, values, later=apart if resource is PROCESS else 2 * apart)
        pipeline.tell(PROCESS, late, later=-1000)
        pipeline.tick(takes_over=at % 2 == 0)
    assert pipeline.seen.increase() == 160
    assert len(pipeline.seen.samples) == 2


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.sampled_from("xyz"), st.booleans(), st.integers(0, 9), st.integers(0, 3)), max_size=40),
)
def test_a_process_counts_once_whoever_tells_what_of_it_and_however_late(
    kind: str, schedule: list[tuple[str, bool, int, int]]
) -> None:
    """Gateways add attributes, or add them no more; some are behind; ticks have one owner after another."""
    pipeline, counts, newest = Pipeline(kind), [(START, 0.0)], 0
    more: dict[str, Told] = {gateway: {} for gateway in "xyz"}
    for gateway, changes, number, behind in schedule:
        pipeline.time += 1
        counts.append((pipeline.time, counts[-1][1] + number))
        if changes:
            more[gateway] = {} if more[gateway] else {gateway: "v", "w": "v"}
        at = max(1, len(counts) - 1 - behind)
        newest = max(newest, at)
        time, count = counts[at]
        pipeline.tell(PROCESS | more[gateway], {"a": count}, later=time - pipeline.time)
        if number > 6:
            pipeline.tick(takes_over=number > 7)
    pipeline.tick()
    assert pipeline.seen.increase() == counts[newest][1]


def test_the_series_of_an_attribute_that_is_promoted_go_on_as_others() -> None:
    pipeline = Pipeline(naming=Naming(promoted=("deployment.environment.name",)))
    for at, resource in enumerate((PROCESS, PROCESS, PROCESS | ENV, PROCESS | ENV), 1):
        pipeline.tell(resource, {"a": 10 * at})
        pipeline.tick()
    assert pipeline.seen.increase() == 40
    assert pipeline.seen.live() == 1


def test_folded_sets_go_on_as_well() -> None:
    pipeline = Pipeline(limits=Limits(1000, 1, idle_ms=HOUR, level_idle_ms=HOUR))
    for at, resource in enumerate((PROCESS, PROCESS | ENV, PROCESS), 1):
        pipeline.tell(resource, {route: 10 * at for route in "abcdef"})
        pipeline.tick()
    assert pipeline.seen.increase() == 180


TABLES: list[Told] = [PROCESS | {"table": name} for name in ("orders", "users", "carts")]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(
            st.sampled_from(["count", "add", "take away", "tick", "take over"]),
            st.integers(0, 2),
            st.sampled_from("xyz"),
            st.integers(0, 9),
        ),
        max_size=40,
    ),
)
def test_tables_of_one_process_are_several_whatever_else_is_told_of_them(
    kind: str, schedule: list[tuple[str, int, str, int]]
) -> None:
    pipeline, counts = Pipeline(kind), [{"a": 0.0, "b": 0.0} for _ in TABLES]
    more: list[Told] = [{} for _ in TABLES]
    for what, table, key, number in [*schedule, ("tick", 0, "", 0)]:
        pipeline.time += 1
        if what == "count":
            counts[table]["ab"[number % 2]] += number
            told = {route: value for route, value in counts[table].items() if value}
            pipeline.tell({**TABLES[table], **more[table]}, told)
        elif what == "add":
            more[table] = {**more[table], key: str(table)}
        elif what == "take away":
            more[table] = {name: text for name, text in more[table].items() if name != key}
        else:
            pipeline.tick(what == "take over")
    assert pipeline.seen.increase() == sum(sum(told.values()) for told in counts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("apart", [0, 1], ids=["one time", "1 ms apart"])
@pytest.mark.parametrize("larger", [0, 1])
@pytest.mark.parametrize("first", [0, 1])
def test_resources_that_agree_are_two_once_what_they_count_contradicts_it(
    kind: str, apart: int, larger: int, first: int
) -> None:
    """A process that tells of itself and of its only table; both get an attribute while they run."""
    pipeline = Pipeline(kind)
    objects = [PROCESS, TABLES[0]]
    for at in range(1, 9):
        more = ENV if at > 4 else {}
        for later, which in enumerate((first, 1 - first)):
            pipeline.tell(objects[which] | more, {"a": at * (10 if which == larger else 3)}, apart * later)
        pipeline.tick(takes_over=at % 3 == 0)
    assert pipeline.seen.increase() == 8 * 13


def test_another_value_start_or_process_is_another_source() -> None:
    for other in ({"host.name": "h2"}, {"service.instance.id": "2"}, {"service.namespace": "eu"}):
        pipeline = Pipeline()
        pipeline.tell(PROCESS, {"a": 10})
        pipeline.tick()
        pipeline.tell(PROCESS | ENV | other, {"a": 10})
        pipeline.tick()
        assert pipeline.seen.increase() == 20
    pipeline = Pipeline()
    pipeline.tell(PROCESS, {"a": 10})
    pipeline.tick()
    pipeline.tell(PROCESS | ENV, {"a": 10}, start=pipeline.time - 1)
    pipeline.tick()
    assert pipeline.seen.increase() == 20


def test_a_start_that_nobody_knows_tells_of_no_process() -> None:
    """What it had then is not what it counted since: to be two later would count that."""
    pipeline = Pipeline()
    pipeline.tick()
    for at in range(3):
        pipeline.time += 1
        for number, resource in enumerate((PROCESS, TABLES[0])):
            pipeline.tell(resource, {"a": 1000 + at * number}, start=START + MINUTE + 1)
        pipeline.tick()
    assert pipeline.seen.increase() == 2


def test_a_new_set_of_an_old_process_counts_whole_though_more_is_told_by_now() -> None:
    pipeline = Pipeline(start=START - 2 * HOUR)
    for at in range(1, 5):
        pipeline.tell(PROCESS | (ENV if at > 1 else {}), {"a": 1000 + at, **({"b": at} if at > 2 else {})})
        pipeline.tick()
    assert pipeline.seen.increase() == 3 + 4


def test_a_resource_of_which_an_older_worker_told_nothing_goes_on_once_it_is_told() -> None:
    """Points and ticks of the release before are read, and it reads those of this one."""
    pipeline = Pipeline(older=True)
    for at, (older, resource) in enumerate(
        [(True, PROCESS), (False, PROCESS), (False, PROCESS | ENV), (True, PROCESS | ENV), (False, PROCESS | ENV)], 1
    ):
        pipeline.older = older
        pipeline.tell(resource, {"a": 10 * at})
        pipeline.tick()
    pipeline.tell(PROCESS, {"a": 60})
    pipeline.tick()
    assert pipeline.seen.increase() == 60


def test_a_resource_with_very_many_attributes_is_what_it_says() -> None:
    many = PROCESS | {f"k{number}": "v" for number in range(MOST_ATTRIBUTES)}
    pipeline = Pipeline()
    for at, resource in enumerate((many, many | ENV), 1):
        pipeline.tell(resource, {"a": 10 * at})
        pipeline.tick()
    assert pipeline.seen.increase() == 30


def test_many_tables_of_one_process_cost_no_look_at_all_of_them() -> None:
    def spent(tables: int) -> float:
        """Of the later half."""
        pipeline = Pipeline(limits=Limits(10_000, 10_000, idle_ms=HOUR))
        resources = [PROCESS | {"table": str(number)} for number in range(tables)]
        for resource in resources[: tables // 2]:
            pipeline.tell(resource, {"a": 1})
        began = process_time()
        for resource in resources[tables // 2 :]:
            pipeline.tell(resource, {"a": 1})
        return process_time() - began

    few, many = (min(spent(tables) for _ in range(3)) for tables in (8 * MOST_RESOURCES, 32 * MOST_RESOURCES))
    assert many < 12 * few


def test_levels_tell_nothing_of_their_resources() -> None:
    data = MetricsData()
    part = data.resource_metrics.add()
    part.resource.attributes.extend(attribute(key, text) for key, text in PROCESS.items())
    part.scope_metrics.add().metrics.add(name="g").gauge.data_points.add(as_int=1, time_unix_nano=START * MS)
    reader = MetricPoints("raw", 0, "otlp_proto", Naming(), 1 << 24)
    reader.add(0, START, data.SerializeToString())
    assert [batch.resources for batch in reader.flush().batches] == [{}, {}]
