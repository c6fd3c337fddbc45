"""An installed server is complete or absent, and built by one run only."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.services import recipes
from tests.services.install import InstallError, ensure, main
from tests.services.recipes import Recipe, Say


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is installed."""
    monkeypatch.setenv("TAILRACE_CACHE", str(tmp_path))
    return tmp_path / "services"


def use(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    monkeypatch.setitem(recipes.RECIPES, recipe.name, recipe)


def test_two_runs_build_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = []
    both_ask = threading.Barrier(2)

    def build(folder: Path, say: Say) -> None:
        builds.append(folder)
        (folder / "binary").touch()

    def install() -> Path:
        both_ask.wait()
        return ensure("toy")

    use(monkeypatch, Recipe("toy", "1.0", (), "no time", build))
    with ThreadPoolExecutor(2) as runs:
        folders = {run.result() for run in [runs.submit(install) for _ in range(2)]}
    assert folders == {cache / "toy-1.0"}
    assert len(builds) == 1
    assert (cache / "toy-1.0" / "binary").exists()


def test_a_new_revision_is_built_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Recipe("toy", "1.0", (), "no time", lambda folder, say: (folder / "old").touch()))
    ensure("toy")
    use(monkeypatch, Recipe("toy", "1.0", (), "no time", lambda folder, say: (folder / "new").touch(), revision=2))
    ensure("toy")
    assert sorted(path.name for path in (cache / "toy-1.0").iterdir()) == ["new", "revision"]


def test_a_failed_build_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(folder: Path, say: Say) -> None:
        recipes.run(["sh", "-c", "echo half done > half; echo no such module >&2; exit 3"], folder, say)

    use(monkeypatch, Recipe("toy", "1.0", (), "no time", build))
    assert main(["toy"]) == 1
    assert "no such module" in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == ["toy-1.0.lock"]


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="needs `go` on PATH: install Go"):
        ensure("jaeger")


def test_a_browser_is_found_or_installed_or_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", f"{bin_}")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InstallError, match="apt-get install chromium"):
        ensure("chromium")
    apt = bin_ / "apt-get"
    apt.write_text(
        '#!/bin/sh\ncase "$*" in *install*) : > "${0%/*}/chromium"; /bin/chmod +x "${0%/*}/chromium";; esac\n'
    )
    apt.chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    link = ensure("chromium") / "chromium"
    assert link.resolve() == bin_ / "chromium"
    link.resolve().unlink()  # a cache outlives the machine that it was filled on
    assert ensure("chromium") / "chromium" == link
    assert link.exists()


def test_a_long_build_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(recipes, "HEARTBEAT_SECONDS", 0.05)
    recipes.run(["sh", "-c", "sleep 0.2"], tmp_path, said.append)
    assert said
    assert said[0].startswith("still running sh -c")
