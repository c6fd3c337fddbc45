"""tailrace test: unit tests of policies."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.commands.console import CONFIG, EX_CONFIG, bad, good, loaded, plural
from pipeline.configuration.config_file import InvalidConfig
from pipeline.configuration.yaml_tree import CONNECTIONS_AND_BROKERS
from pipeline.operating import told_votes
from pipeline.operating.policy_tests import Outcome, load_cases, run
from pipeline.operating.printable import printable


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CASES…")
@CONFIG
@click.option("--verbose", "-v", is_flag=True, help="Show all votes, also of what is as expected.")
def test(files: tuple[Path, ...], file: str, verbose: bool) -> None:
    """Decide traces from files and compare with what should become of them.

    CASES are YAML files of traces in OTLP-JSON, each with the verdict it should get (docs/how-to/write-a-policy.md).
    The code that decides is that of the workers; nothing is started, no broker is asked. A policy that goes by
    other traces too (rate_limiting, dynamic, …) is asked as if there were none. Exit code 0, 1 if a case fails, 78 if a
    file is wrong.

    \b
      tailrace test --config tailrace.yaml policies-test.yaml
      tailrace test --config tailrace.yaml --verbose policies-test.yaml
    """
    config = loaded(file, CONNECTIONS_AND_BROKERS)
    failed = total = wrong = 0
    for path in files:
        try:
            cases = load_cases(path, config)
        except InvalidConfig as error:
            for problem in error.problems:
                bad(f"{path}:{problem}")
            wrong += len(error.problems)
            continue
        for outcome in [] if wrong else [run(case, config) for case in cases]:
            _tell(outcome, path, verbose)
            total, failed = total + 1, failed + bool(outcome.wrong)
    if wrong:
        click.echo(plural(wrong, "problem"), err=True)
        sys.exit(EX_CONFIG)
    click.echo(f"{plural(total, 'case')}, {failed} failed")
    sys.exit(1 if failed else 0)


def _tell(outcome: Outcome, path: Path, verbose: bool) -> None:
    name = outcome.loaded.case.name
    if not outcome.wrong:
        good(name)
    else:
        bad(f"{name} ({path}:{outcome.loaded.line})")
        width = max(len(what) for what, _, _ in outcome.wrong)
        for what, expected, got in outcome.wrong:
            click.echo(f"    {what:<{width}}  {click.style(f'- {expected}', fg='red')}  (expected)")
            click.echo(f"    {'':<{width}}  {click.style(f'+ {got}', fg='green')}  (got)")
        keeping = [vote for vote in outcome.votes if vote.matched and not vote.shadow]
        if all(vote.by_rate for vote in keeping) and ("verdict", "dropped", "kept") in outcome.wrong:
            names = " and ".join(vote.policy for vote in keeping)
            click.echo(f"    kept by {names} alone, asked as if there were no other traces: compare `votes`")
    if outcome.wrong or verbose:
        click.echo(f"    {told_votes.facts(outcome.evidence)}")
        for line in told_votes.lines(outcome.votes):
            click.echo(f"    {printable(line)}")
