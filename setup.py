"""Builds the hot modules with Cython; everything else about the package is in pyproject.toml.

Without a C compiler the build fails: uncompiled the same files run, but cost 55 times as much, which nobody should have
without knowing. TAILRACE_COMPILE=0 makes that wheel, without native code (py3-none-any).
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

COMPILE = os.environ.get("TAILRACE_COMPILE", "1")


def extensions() -> list[Extension]:
    """Every module that imports cython."""
    if COMPILE == "0":
        return []
    from Cython.Build import cythonize

    found = [
        Extension(".".join(path.with_suffix("").parts), [str(path)], extra_compile_args=["-O2", "-w"])
        for package in ("schemas", "processors")
        for path in sorted(Path(package).rglob("*.py"))
        if "\nimport cython\n" in path.read_text(encoding="utf-8")
    ]
    return list(cythonize(found, language_level=3))


setup(ext_modules=extensions())
