"""What is shown of several workers: added up, and never counted backwards."""

from __future__ import annotations

from pipeline.live.snapshot import Limit, Sample, Snapshot, TraceSummary
from pipeline.live.view import Count, Observed, Past, View, view


def snapshot(time: float, **values: float) -> Snapshot:
    """Metrics of a worker by what a test calls them."""
    names = {
        "read": ("tailrace_records_read_total", {"role": "ingest", "topic": "otlp_spans"}),
        "spans": ("tailrace_spans_read_total", {"role": "ingest"}),
        "counted": ("tailrace_spans_read_total", {"role": "sample"}),
        "ready": ("tailrace_ready", {"role": "ingest"}),
        "unread": ("tailrace_unread_records", {"role": "ingest"}),
        "kept": ("tailrace_traces_decided_total", {"verdict": "kept"}),
        "errors": ("tailrace_policy_votes_total", {"policy": "errors"}),
        "lag": ("tailrace_head_lag_seconds", {"partition": "0"}),
        "not_sampled": (
            "tailrace_dropped_total",
            {"signal": "spans", "reason": "not_sampled", "intentional": "true"},
        ),
        "lost": ("tailrace_dropped_total", {"signal": "spans", "reason": "retention", "intentional": "false"}),
        "letters": ("tailrace_dead_letters_total", {"stage": "ingest", "reason": "malformed"}),
        "accepted": ("tailrace_sink_items_total", {"sink": "jaeger", "outcome": "accepted"}),
        "away": ("tailrace_sink_retries_total", {"sink": "jaeger", "reason": "no_answer"}),
        "busy": ("tailrace_sink_retries_total", {"sink": "jaeger", "reason": "503"}),
        "sends": ("tailrace_ready", {"role": "sink.jaeger"}),
        "stuck": ("tailrace_sink_stuck_seconds", {"sink": "jaeger", "topic": "shop.kept.spans"}),
        "config": ("tailrace_config_info", {"prefix": "shop", "hash": "1", "version": "1"}),
        "sampling": ("tailrace_ready", {"role": "sample"}),
        "sampled": ("tailrace_records_read_total", {"role": "sample", "topic": "shop.spans"}),
        "sampled_raw": ("tailrace_records_read_total", {"role": "sample", "topic": "otlp_spans"}),
    }
    return Snapshot(time, [Sample(*names[name], value) for name, value in values.items()])


def one(before: Snapshot | None, now: Snapshot) -> View:
    return view([Observed("w", before, now)], now.time, policies={"errors": "status_code", "rest": "probabilistic"})


def test_rates_compare_a_worker_with_itself() -> None:
    shown = one(snapshot(10, read=100, spans=1000, kept=1), snapshot(15, read=150, spans=3000, kept=2))
    (role,) = one(None, snapshot(15, ready=1, read=150)).roles
    assert role.read == {"otlp_spans": Count(150, 0)}
    assert shown.spans == Count(3000, 400)
    assert shown.kept_traces == Count(2, 0.2)


def test_workers_are_added_up_and_a_restart_counts_from_zero() -> None:
    steady = Observed(
        "a", snapshot(0, spans=100, ready=1, unread=3, lag=2), snapshot(10, spans=200, ready=1, unread=3, lag=2)
    )
    restarted = Observed("b", snapshot(0, spans=900), snapshot(10, spans=50, ready=0, unread=4, lag=7))
    gone = Observed("c", None, None, "c: no route")
    shown = view([steady, restarted, gone], 10)
    assert shown.spans == Count(250, 15)
    (role,) = shown.roles
    assert (role.ready, role.workers, role.unread) == (False, 2, 7)
    assert shown.lag == 7
    assert [(worker.name, worker.error) for worker in shown.workers] == [("a", ""), ("b", ""), ("c", "c: no route")]


def test_ingest_is_missed_where_sample_reads_what_it_writes() -> None:
    sample = snapshot(1, config=1, sampling=1, sampled=5, lag=0.7)
    assert one(None, sample).without_ingest
    assert not view([Observed("a", None, sample), Observed("b", None, snapshot(1, ready=1))], 1).without_ingest
    assert not one(None, snapshot(1, config=1, sampling=1, sampled_raw=5)).without_ingest  # regroup: never
    assert not one(None, snapshot(1, config=1)).without_ingest


def test_retries_have_their_reasons() -> None:
    shown = one(snapshot(0, away=3, busy=0), snapshot(10, away=8, busy=0))
    assert shown.retries == {"jaeger": {"no_answer": Count(8, 0.5), "503": Count()}}


def test_a_sink_is_stuck_for_as_long_as_its_worst_worker() -> None:
    """What it holds is read: nothing else told that its destination is away."""
    workers = [Observed(str(n), None, snapshot(1, sends=1, stuck=seconds)) for n, seconds in enumerate((39, 12, 0))]
    assert [(role.name, role.unread, role.stuck) for role in view(workers, 1).roles] == [("sink.jaeger", 0, 39)]
    assert [role.stuck for role in one(None, snapshot(1, sends=1, stuck=3)).roles] == [0]


def test_spans_are_what_ingest_read_or_what_sample_counted() -> None:
    assert one(None, snapshot(1, spans=9, counted=8)).spans.total == 9
    assert one(None, snapshot(1, counted=8)).spans.total == 8


def test_policies_are_those_of_the_file_in_its_order() -> None:
    shown = one(None, snapshot(1, errors=4))
    assert [(p.name, p.type, p.kept.total) for p in shown.policies] == [
        ("errors", "status_code", 4), ("rest", "probabilistic", 0)
    ]  # fmt: skip


def test_what_nobody_asked_for_comes_first_and_zeros_are_left_out() -> None:
    shown = one(None, snapshot(1, not_sampled=900, letters=2, lost=0, accepted=5))
    assert [(d.where, d.reason, d.intentional, d.dead_letter) for d in shown.drops] == [
        ("ingest", "malformed", False, True), ("spans", "not_sampled", True, False)
    ]  # fmt: skip
    assert shown.dead_letters.total == 2
    assert shown.delivered == {"jaeger": {"accepted": Count(5, 0)}}
    assert [drop.reason for drop in one(None, snapshot(1, lost=3, not_sampled=9)).drops] == ["retention", "not_sampled"]


def test_traces_and_limits_of_all_workers_are_there() -> None:
    traces = [TraceSummary(f"{n:032x}", "p", "s", "n", float(n), 1, 1, 0, False, False) for n in range(2)]
    limits = [Limit("m", "", 10, 1, 1, 0), Limit("n", "", 10, 1, 1, 0)]
    workers = [
        Observed(str(n), None, Snapshot(1, [], limits=[limits[n]], traces=[traces[n]])) for n in range(2)
    ]  # fmt: skip
    shown = view(workers, 1)
    assert shown.traces == traces[::-1]
    assert shown.limits == limits


def test_a_clock_that_is_set_back_makes_no_longer_past() -> None:
    past = Past()
    for time in (*range(4_000, 4_010), *range(1_000, 1_100)):
        seen = past.observed("w", snapshot(time))
    assert seen.before is not None
    assert seen.now is not None
    assert seen.now.time - seen.before.time == 10
    assert len(past._snapshots["w"]) < 20


def test_the_past_looks_back_about_ten_seconds() -> None:
    past = Past()
    seen = [past.observed("w", snapshot(time)) for time in range(30)]
    assert seen[0].before is None
    back = [each.now.time - each.before.time for each in seen if each.now and each.before]
    assert back == [*range(1, 10), *[10] * 20]


def test_what_was_seen_before_nobody_watched_makes_no_rate() -> None:
    past = Past()
    past.observed("w", snapshot(0.0))
    assert past.observed("w", snapshot(6 * 3600.0)).before is None
    found = past.observed("w", snapshot(6 * 3600.0 + 1))
    assert found.before is not None
    assert found.before.time == 6 * 3600.0
