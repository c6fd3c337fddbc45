"""Sources are found by all that they are known by, whichever come, go, and change their number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.sources import ONE_EXPORT_MS, Candidate, Gone, Key, Run, Source, Sources

keys = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2]))
kept = st.tuples(st.just("keep"), keys, st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 2))
went = st.tuples(st.sampled_from(["let go", "tick"]), keys, st.just(""), st.just(0), st.just(0))


@given(st.lists(st.one_of(kept, went)))
def test_sources_are_found_by_number_labels_target_and_run(schedule: list[tuple[str, Key, str, int, int]]) -> None:
    sources = Sources()
    for at, (what, key, label, target, producer) in enumerate(schedule, 1):
        if what == "tick":
            sources.unindex()
            sources.forget_runs()
            assert all(run.sources for run in sources.runs.values())
        elif key in sources:
            sources.let_go(key)
        elif what == "keep" and sources.of_target(target, key[1]) is None:
            sources.keep(key, Source((label,), at, 1.0, target, producer), at)
        for number in range(4):
            assert set(sources.of_number(number)) == {key for key in sources if key[0] == number}
        for text in "ab":
            assert set(sources.of_labels((text,))) == {key for key in sources if sources[key].labels == (text,)}
        for known, source in sources.items():
            assert not source.target or sources.of_target(source.target, known[1]) == known
            assert (source.run is None) == (not source.producer or not known[1])
        for (producer_of, start), run in sources.runs.items():
            own = [known for known, source in sources.items() if (source.producer, known[1]) == (producer_of, start)]
            assert run.sources == len(own)
            for text in "ab":
                alike = [known for known in own if sources[known].labels == (text,)]
                assert list(sources.of_run((text,), producer_of, start)) == alike


def test_a_set_is_new_while_all_that_its_process_had_before_go_on() -> None:
    sources = Sources()
    before, silent, new = (Source((name,), 0, 1.0, 0, producer) for name, producer in (("a", 7), ("b", 8), ("c", 7)))
    for number, source in enumerate((before, silent)):
        sources.keep((number, 1), source, 0)
    sources.keep((2, 1), new, 0)
    candidate = Candidate((2, 1), new, 1.0, (), ("c",), ("c",), 10_000, True)
    for time_ms, found in ((10_000 - ONE_EXPORT_MS, [candidate]), (9_999 - ONE_EXPORT_MS, [])):
        before.time_ms = time_ms
        assert list(sources.that_go_on([candidate])) == found
    before.time_ms = 10_000
    sources.let_go((2, 1))
    assert not list(sources.that_go_on([candidate]))


def test_of_those_that_ended_the_newest_are_remembered() -> None:
    gone = Gone(2)
    for number in range(3):
        assert not gone.lost_ms
        gone.put("m", "counter", (number, 5), (1.0, (), 10 * number + 1, 7))
    assert gone.take("m", "counter", (0, 5)) is None
    assert gone.take("m", "counter", (2, 5)) == (1.0, (), 21, 7)
    assert gone.take("m", "counter", (2, 5)) is None
    assert gone.knows("m", "counter", (1, 5))
    # Of a run that was read first after all that is lost nothing is missing: what else comes of it is new.
    assert [Run(first_ms, ended=1).had_others(1_000, gone) for first_ms in (1, 2)] == [False, True]
