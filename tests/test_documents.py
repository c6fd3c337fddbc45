"""The configurations in the documents are valid, and the commands in them exist."""

from __future__ import annotations

import doctest
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.cli import COMMANDS, cli
from pipeline.commands.resize import resize
from pipeline.configuration.config_file import load, parse
from pipeline.demo import command as demo
from pipeline.roles import diagram
from pipeline.telemetry import METRICS
from tests.deploy.promql import known_metrics
from tests.repository import ROOT, blocks, committed
from tests.services.recipes import RECIPES

PAGES = committed("*.md")
ANY_BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
COMMAND_IN_A_LINE = re.compile(r"`(tailrace\s[a-z][^`]*)`")
METRIC = re.compile(r"\btailrace_[a-z_]*[a-z](?![\w*])")
SERVER = re.compile(r"\$SERVERS/([\w.-]+)")
LINES_OF_THE_FIRST_CONFIGURATION = 10
FEWEST_LINES_OF_THE_README = 30


def configurations() -> list[Any]:
    found = [(page, text) for page in PAGES for text in blocks(page, "yaml") if text.startswith("kafka:")]
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}-{n}") for n, (page, text) in enumerate(found)]


@pytest.mark.parametrize("text", configurations())
def test_configurations_are_valid(text: str) -> None:
    text = re.sub(r"\$\{file:[^}]+\}", "that is in a file", text)
    parse(text, "page", dict.fromkeys(re.findall(r"\$\{(\w+)", text), "from the environment"))


def test_the_readme_shows_ten_lines_of_configuration_and_then_thirty() -> None:
    short, long = blocks(ROOT / "README.md", "yaml")
    assert short.startswith("kafka:")
    assert len(short.splitlines()) == LINES_OF_THE_FIRST_CONFIGURATION
    assert long.startswith("kafka:")
    assert len(long.splitlines()) >= FEWEST_LINES_OF_THE_README


def test_the_readme_shows_how_to_see_it_run_it_and_test_it() -> None:
    demo, run, test = blocks(ROOT / "README.md", "sh")
    assert demo == "make demo\n"
    assert [words[0] for words in commands_in(run)] == ["check", "topics", "worker"]
    assert test == "make test\n"


def test_the_picture_in_the_readme_has_every_role_and_every_topic() -> None:
    """Names only; the roles of one sink of each kind."""
    config = load(
        ROOT / "deploy" / "compose" / "tailrace.yaml",
        dict.fromkeys(("ELASTIC_PASSWORD", "TAILRACE_TOKEN"), "from the environment"),
    )
    roles = diagram(config)
    picture = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    assert set(re.findall(r"\[([a-z.]+)\]", picture)) == {role.name for role in roles}
    topics = {topic for role in roles for topic in (*role.reads, *role.writes)}
    assert set(re.findall(r"tailrace\.[a-z.]+|otlp_\w+", picture)) == topics


def test_the_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"help", "demo", "test", "faults", "check", "bench", "format"} <= targets
    for page in PAGES:
        named = {word for text in blocks(page, "sh") for word in re.findall(r"^make (\w+)", text, re.MULTILINE)}
        named |= set(re.findall(r"`make (\w+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page


def test_make_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    described = set(re.findall(r"^([a-z]+):.*## \w", text, re.MULTILINE))
    assert described == set(phony.split()) == set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_python_in_documents_does_what_it_says(page: Path) -> None:
    for number, text in enumerate(blocks(page, "python")):
        example = doctest.DocTestParser().get_doctest(text, {}, f"{page.name} {number}", str(page), 0)
        assert example.examples
        assert doctest.DocTestRunner().run(example).failed == 0


def commands_in(text: str) -> list[list[str]]:
    """The words of every `tailrace ...` in a shell block, without what a shell does with its output."""
    lines = [line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"^(\w+=\S+ )+", "", line) for line in lines]
    calls = [re.split(r" [|>&]|   +", line)[0] for line in lines if re.match(r"tailrace [a-z]", line)]
    return [shlex.split(call, comments=True)[1:] for call in calls]


def assert_exists(words: list[str], where: str) -> None:
    """The command is there and has the options, and no word is one too many."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{where}: there is no command {name}"
        command = found
    if not words:
        return
    if command.name == "demo":  # its options are pipeline.demo's own
        command = demo
    if (command.name, words[0]) == ("topics", resize.name):
        command, words = resize, words[1:]
    options = {option: p for p in command.params if isinstance(p, click.Option) for option in p.opts} | {"--help": None}
    given = [word.split("=")[0] for word in words if word.startswith("--")]
    assert set(given) <= options.keys(), f"{where}: tailrace {command.name} has no {set(given) - options.keys()}"
    plain, follows = 0, False
    for word in words:
        if word.startswith("--"):
            option = options[word.split("=")[0]]
            follows = "=" not in word and option is not None and not option.is_flag
        else:
            plain += not follows
            follows = False
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    assert plain <= len(arguments) or any(p.nargs < 0 for p in arguments), f"{where}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path) -> None:
    for text in blocks(page, "sh") + blocks(page, "console"):
        for words in commands_in(text):
            assert_exists(words, page.name)
    for text in COMMAND_IN_A_LINE.findall(ANY_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        for words in commands_in(" ".join(text.split())):
            assert_exists(words, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_metrics_in_documents_exist(page: Path) -> None:
    named = set(METRIC.findall(page.read_text(encoding="utf-8")))
    assert named <= known_metrics() | {metric.name for metric in METRICS}


def test_servers_that_documents_start_are_those_that_are_built() -> None:
    """Folders of `python -m tests.services.install`, which have the version in their names."""
    named = {name for page in PAGES for name in SERVER.findall(page.read_text(encoding="utf-8"))}
    assert named
    assert named <= {f"{recipe.name}-{recipe.version}" for recipe in RECIPES.values()}


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize(("name", "command"), list(every_command(cli)), ids=str)
def test_every_command_has_examples_that_exist(name: str, command: click.Command) -> None:
    examples = commands_in(inspect.cleandoc((command.help or "").replace("\b", "")))
    assert [words for words in examples if words[: len(name.split())] == name.split()], f"tailrace {name} --help"
    for words in examples:
        assert_exists(words, f"tailrace {name} --help")


def test_the_help_names_every_command() -> None:
    named = {words[0] for words in commands_in(inspect.cleandoc((cli.help or "").replace("\b", "")))}
    assert named == set(COMMANDS) - {"config"}
