"""Unit tests of policies: cases in YAML, each one trace in OTLP-JSON and what should become of it.

They are decided by the code that decides live traffic, from the bytes that `ingest` would have made of the same JSON.
Nothing is started and nothing is asked.
"""

from __future__ import annotations

import difflib
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from pydantic import Field, ValidationError, model_validator

from pipeline.config import Config, Sampling
from pipeline.configuration.config_file import InvalidConfig
from pipeline.configuration.section_file import read_section
from pipeline.configuration.yaml_tree import Key, Told, Tree
from pipeline.kafka.raw_reader import redacting
from processors.redaction import Redactor
from processors.sampling.compile import compile_policies
from processors.sampling.decide import Vote
from processors.sampling.evidence import Evidence
from processors.sampling.votes import PolicyVote, Rows, Trace, counted, evidence, verdict, vote
from schemas.envelope import Envelope
from schemas.errors import Malformed
from schemas.formats import otlp_json
from schemas.formats.json_mapping import load, unknown
from schemas.raw_batch import RawReader
from schemas.reasons import Reason
from schemas.settings import Section, refuse

Text = dict[str, Any] | str


class Expect(Section):
    """What should become of the trace. What is left out is not looked at, but `verdict` always is."""

    verdict: Literal["kept", "dropped"] = Field(description="The outcome.")
    policy: str | None = Field(None, description="The policy that kept it, or the drop policy that dropped it.")
    votes: list[str] | None = Field(
        None, description="All policies that match, shadows too, in the order of the configuration."
    )


class Case(Section):
    """One trace: its spans and logs as OTLP-JSON, in the file or beside it, and what should become of it."""

    name: str = Field(min_length=1, description="What the case shows, in a few words.")
    spans: Text | None = Field(None, description="OTLP TracesData: `resourceSpans`, as a mapping or as JSON text.")
    spans_file: str | None = Field(
        None, description="The same in a file; a relative path begins at this file's folder."
    )
    logs: Text | None = Field(None, description="OTLP LogsData: `resourceLogs`, likewise.")
    logs_file: str | None = Field(None, description="The same in a file.")
    expect: Expect = Field(description="The outcome.")

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        given = [key for key in ("spans", "spans_file", "logs", "logs_file") if getattr(self, key) is not None]
        if not given:
            raise ValueError("spans: is required, or spans_file, logs or logs_file")
        twice = [key for key in ("spans", "logs") if key in given and f"{key}_file" in given]
        refuse([((f"{key}_file",), f"must not stand beside {key}") for key in twice])
        return self


class Cases(Section):
    """A file of cases."""

    cases: list[Case] = Field(min_length=1, description="One trace each.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case, the line it begins in, and its trace."""

    case: Case
    line: int
    trace: Trace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: what is not as expected, as (what, expected, got)."""

    loaded: Loaded
    vote: Vote
    evidence: Evidence
    votes: tuple[PolicyVote, ...]
    wrong: tuple[tuple[str, str, str], ...]


def load_cases(path: Path, config: Config) -> list[Loaded]:
    """The cases of a file. Raises InvalidConfig with every problem: file, line, key and rule."""
    _, tree = read_section(path, Cases, {})
    redactor = None if config.redaction is None else Redactor(config.redaction)
    known = [policy.name for policy in config.sampling.policies]
    loaded = []
    for number, case in _valid(tree):
        for below, name in _expected(case.expect):
            if name not in known:
                rule = f"{case.name}: expects policy {name!r}, which the configuration does not have"
                meant = "".join(f"did you mean {word}?" for word in difflib.get_close_matches(name, known, 1))
                place = ("cases", number, "expect", *below)
                tree.problems.append(tree.problem(place, tree.as_written(place, rule), meant))
        try:
            line, _ = tree.position(("cases", number))
            loaded.append(Loaded(case, line, _trace(case, path.parent, config.sampling, redactor)))
        except _Refused as error:
            places = [(("cases", number, *below), rule) for below, rule in error.told]
            tree.problems += [tree.problem(place, tree.as_written(place, rule)) for place, rule in places]
    if tree.problems:
        raise InvalidConfig(str(path), tree.problems)
    return loaded


def _valid(tree: Tree) -> Iterator[tuple[int, Case]]:
    """The cases whose keys are right: others beside them, which were told, hide nothing."""
    cases = tree.data.get("cases") if isinstance(tree.data, dict) else None
    for number, case in enumerate(cases if isinstance(cases, list) else []):
        with suppress(ValidationError):
            yield number, Case.model_validate(case)


def _expected(expect: Expect) -> Iterator[tuple[Key, str]]:
    """The policies that a case names."""
    if expect.policy:
        yield ("policy",), expect.policy
    yield from ((("votes", number), name) for number, name in enumerate(expect.votes or []))


class _Refused(ValueError):
    """A case whose data cannot be used: `told` says what is wrong at the key that holds it, or at places in it."""

    def __init__(self, key: str, rule: str = "", told: Sequence[Told] = ()) -> None:
        super().__init__(rule)
        self.told: list[Told] = [((key, *below), each) for below, each in told or [((), rule)]]


def _trace(case: Case, folder: Path, sampling: Sampling, redactor: Redactor | None) -> Trace:
    rows = [_rows(case, folder, signal, redactor) for signal in ("spans", "logs")]
    found = [each for each in rows if each is not None and len(each.envelope)]
    key = next(key for key in ("spans", "spans_file", "logs", "logs_file") if getattr(case, key) is not None)
    traces = {trace for each in found for trace in each.envelope.keys}
    if len(traces) != 1:
        raise _Refused(key, f"must hold one trace, found {len(traces)}: one case is one trace")
    return counted(found, int(sampling.decision_wait * 1000), None)


def _rows(case: Case, folder: Path, signal: str, redactor: Redactor | None) -> Rows | None:
    """Its spans or logs, as redaction leaves them: policies see nothing else. Raises _Refused."""
    key = signal if getattr(case, signal) is not None else f"{signal}_file"
    given: Text | None = getattr(case, key)
    if given is None:
        return None
    try:
        if key.endswith("_file"):
            text = (folder / str(given)).read_bytes()
        else:
            text = (given if isinstance(given, str) else json.dumps(given, default=_quoted)).encode()
        value = (otlp_json.traces if signal == "spans" else otlp_json.logs)(text)
    except UnicodeEncodeError:
        raise _Refused(key, "is no UTF-8") from None
    except OSError as error:
        raise _Refused(key, f"{folder / str(given)} cannot be read: {error.strerror}") from None
    except Malformed as error:
        raise _Refused(key, f"is no OTLP-JSON: {error.detail or error.reason}") from None
    message = (TracesData if signal == "spans" else LogsData).DESCRIPTOR
    if strange := list(unknown(message, load(text))):  # a worker passes over them: OTLP may have more one day
        raise _Refused(key, told=[(place, f"unknown key of OTLP's {name}") for place, name in strange])
    if not value:
        raise _Refused(key, f"must hold one trace, found no {signal}")
    limit = len(value) + 1
    kind = "traces" if signal == "spans" else "logs"
    batch = RawReader(key, 0, 1, kind, limit, limit, *redacting(redactor, kind)).read([(0, 0, value)])
    if batch.dead_letters:
        raise _Refused(key, f"would be a dead letter: {batch.dead_letters[0].reason}")
    if len(batch.untraced):
        raise _Refused(key, "holds a log without a trace id: no policy ever sees it")
    return Rows(_compact(batch.rows), array("q", bytes(8 * len(batch.rows))), 0, logs=signal == "logs")


def _quoted(value: object) -> object:
    raise Malformed(Reason.MALFORMED, f"JSON has no {type(value).__name__}: put it in quotes")


def _compact(rows: Envelope) -> Envelope:
    return rows.select(range(len(rows)), [])


def run(case: Loaded, config: Config) -> Outcome:
    """Decide one case and compare."""
    sampling = config.sampling
    plan = compile_policies(sampling.policies, compat=sampling.compat)
    seen = evidence(plan, case.trace)
    outcome = verdict(plan, seen, case.trace)
    votes = tuple(vote(policy, sampling.compat, case.trace) for policy in sampling.policies)
    expect = case.case.expect
    wrong: list[tuple[str, str, str]] = []
    word = "kept" if outcome.kept else "dropped"
    if word != expect.verdict:
        wrong.append(("verdict", expect.verdict, word))
    if expect.policy is not None and expect.policy != outcome.policy:
        wrong.append(("policy", expect.policy, outcome.policy or "none"))
    matched = [each.policy for each in votes if each.matched]
    if expect.votes is not None and expect.votes != matched:
        wrong.append(("votes", _named(expect.votes), _named(matched)))
    return Outcome(case, outcome, seen, votes, tuple(wrong))


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
