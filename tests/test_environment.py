"""The set-up behind every make target, as far as it can be tested without installing anything."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.repository import ROOT


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """.ci/environment.py, with an empty cache."""
    monkeypatch.setenv("TAILRACE_CACHE", str(tmp_path))
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo_needs_no_tools_of_developers(environment: ModuleType) -> None:
    demo, dev = environment.requirements("demo"), environment.requirements("dev")
    assert any(wanted.startswith("confluent-kafka") for wanted in demo)
    assert not any(wanted.startswith(("pytest", "mypy", "ruff")) for wanted in demo)
    assert set(demo) <= set(dev)


def test_a_changed_requirement_is_another_environment(environment: ModuleType, tmp_path: Path) -> None:
    first, same, other = (environment.place("demo", wanted) for wanted in (["a>=1"], ["a>=1"], ["a>=2"]))
    assert first == same != other
    assert first.is_relative_to(tmp_path)


def test_a_ready_environment_is_only_named(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = environment.place("demo", environment.requirements("demo"))
    folder.mkdir(parents=True)
    (folder / "complete").touch()
    monkeypatch.setattr(sys, "argv", ["environment.py", "demo", "1/2"])
    assert environment.main() == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}/bin/python\n"
    assert err.startswith("[1/2] ")


def test_an_interrupted_build_begins_anew(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = environment.place("demo", environment.requirements("demo"))
    folder.mkdir(parents=True)
    built = []
    monkeypatch.setattr(environment, "build", lambda *arguments: built.append(arguments[0]))
    monkeypatch.setattr(sys, "argv", ["environment.py", "demo", "1/2"])
    assert environment.main() == 0
    assert built == [folder]
    assert capsys.readouterr().out == f"{folder}/bin/python\n"


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    assert re.findall(r"^  make ([a-z]+) ", listed, re.MULTILINE) == targets


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages, no known vulnerability"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}]}', 1, "VULNERABLE: a 1: X-1"),
        ('{"dependencies": [{"name": "a", "skip_reason": "no answer"}]}', 3, "NOT AUDITED"),
        ("no JSON", 3, "NOT AUDITED"),
    ],
)
def test_an_audit_passes_only_what_was_looked_up(tmp_path: Path, answer: str, code: int, said: str) -> None:
    """The judgement, on what pip-audit may say."""
    (tmp_path / "pip_audit.py").write_text(f"print({answer!r})")
    command = [sys.executable, str(ROOT / ".ci" / "audit.py")]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_make_check_fails_for_a_vulnerable_package_and_not_for_want_of_an_answer() -> None:
    recipe = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'exec "$audit" .ci/audit.py) || [ $? -eq 3 ] || status=1' in recipe
