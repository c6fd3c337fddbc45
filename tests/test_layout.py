"""The top level of the repository, and the links between its documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repository import ROOT, committed

FILES = ("pyproject.toml", "Makefile", "README.md", "LICENSE", "Dockerfile", "docker-compose.yml")
FOLDERS = (
    "pipeline",
    "processors",
    "sinks",
    "schemas",
    "deploy",
    "bench",
    "docs",
    "docs/adr",
    "tests",
    "tests/services",
)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FOLDER = r"(?:pipeline|processors|sinks|schemas|tests|deploy|bench|docs)"
PATH = re.compile(rf"(?<![\w/.-]){FOLDER}/[\w./-]+\.(?:py|md|json|ya?ml|svg|sh|conf)\b|(?<=`){FOLDER}/[\w./-]+(?=`)")
NOT_OURS = {
    "bench/results/NAME.json",
    "processors/a.py",
    "docs/resources/topic.md",
    "docs/resources/acl.md",
}  # placeholders, and what Terraform's provider has
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_top_level_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_folders_are_there_and_not_empty(name: str) -> None:
    assert committed(f"{name}/*")


def test_the_readme_names_each_folder_of_the_pipeline() -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The code\n")[2].split("```")[1]
    folders = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert folders - set(re.findall(r"(\w+)/", block)) == set()


@pytest.mark.parametrize("page", committed("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in {_anchor(heading) for heading in HEADING.findall(linked.read_text(encoding="utf-8"))}


def test_documents_and_code_name_files_that_exist() -> None:
    """A path that begins with a folder of ours exists."""
    missing = {}
    for page in committed("*.md", "*.py"):
        root = ROOT / "tests" if page.name == "traps.md" else ROOT
        named = set(PATH.findall(page.read_text(encoding="utf-8"))) - NOT_OURS
        if absent := {name for name in named if not (root / name).exists()}:
            missing[str(page.relative_to(ROOT))] = absent
    assert missing == {}


def test_what_tests_share_is_in_no_test_module() -> None:
    """Who changes a test need not know who else has use of what is beside it."""
    taken = re.compile(r"^ *(from tests(?:\.\w+)*\.test_\w+|from tests[.\w]* import test_\w+)", re.MULTILINE)
    found = {
        str(page): taken.findall(page.read_text(encoding="utf-8")) for page in committed("tests/*.py", "bench/*.py")
    }
    assert not {page: names for page, names in found.items() if names}


def _anchor(heading: str) -> str:
    """How GitHub names a heading in links."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
