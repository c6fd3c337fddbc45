"""The configurations in the documents are valid, and the commands in them exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_file import load, parse
from pipeline.roles import diagram
from tests.repository import ROOT, committed

PAGES = committed("*.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FEWEST_LINES_OF_THE_README = 30


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def configurations() -> list[Any]:
    found = [(page, text) for page in PAGES for text in blocks(page, "yaml") if text.startswith("kafka:")]
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}-{n}") for n, (page, text) in enumerate(found)]


@pytest.mark.parametrize("text", configurations())
def test_configurations_are_valid(text: str) -> None:
    text = re.sub(r"\$\{file:[^}]+\}", "from a file", text)
    parse(text, "page", dict.fromkeys(re.findall(r"\$\{(\w+)", text), "from the environment"))


def test_the_readme_shows_thirty_lines_of_configuration() -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    assert text.startswith("kafka:")
    assert len(text.splitlines()) >= FEWEST_LINES_OF_THE_README


def test_the_readme_begins_with_the_two_commands() -> None:
    assert [text.strip() for text in blocks(ROOT / "README.md", "sh")] == ["make demo", "make test"]


def test_the_picture_in_the_readme_has_every_role_and_every_topic() -> None:
    """Names only; the roles of one sink of each kind."""
    config = load(ROOT / "deploy" / "compose" / "tailrace.yaml", {"ELASTIC_PASSWORD": "from the environment"})
    roles = diagram(config)
    picture = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    assert set(re.findall(r"\[([a-z.]+)\]", picture)) == {role.name for role in roles}
    topics = {topic for role in roles for topic in (*role.reads, *role.writes)}
    assert set(re.findall(r"tailrace\.[a-z.]+|otlp_\w+", picture)) == topics


def test_the_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"help", "demo", "test", "check", "bench", "format"} <= targets
    for page in PAGES:
        named = {word for text in blocks(page, "sh") for word in re.findall(r"^make (\w+)", text, re.MULTILINE)}
        named |= set(re.findall(r"`make (\w+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page
