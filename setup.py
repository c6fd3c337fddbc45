"""Builds the hot modules with Cython; everything else about the package is in pyproject.toml.

The same files run uncompiled. TAILRACE_COMPILE=0 makes a wheel without native code (py3-none-any), 1 fails without a
C compiler; unset, the build goes on without native code where there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

COMPILE = os.environ.get("TAILRACE_COMPILE", "")


def extensions() -> list[Extension]:
    """Every module that imports cython."""
    if COMPILE == "0":
        return []
    from Cython.Build import cythonize

    found = [
        Extension(
            ".".join(path.with_suffix("").parts), [str(path)], extra_compile_args=["-O2", "-w"], optional=COMPILE != "1"
        )
        for package in ("schemas", "processors")
        for path in sorted(Path(package).rglob("*.py"))
        if "\nimport cython\n" in path.read_text(encoding="utf-8")
    ]
    return list(cythonize(found, language_level=3))


setup(ext_modules=extensions())
