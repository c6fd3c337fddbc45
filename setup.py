"""Builds the hot modules with Cython; everything else about the package is in pyproject.toml.

The same files run uncompiled: TAILRACE_PURE=1 makes a wheel without native code (py3-none-any), and where there is
no C compiler the build goes on without them and says so.
"""

from __future__ import annotations

import os

from setuptools import setup

HOT = (
    "schemas/otlp_scan.py",
    "processors/interner.py",
    "processors/span_labels.py",
    "processors/span_metrics.py",
    "processors/sampling/span_bits.py",
    "processors/sampling/trace_table.py",
    "processors/sampling/verdicts.py",
)


def extensions() -> list[object]:
    if os.environ.get("TAILRACE_PURE") == "1":
        return []
    from Cython.Build import cythonize

    modules = cythonize(list(HOT), language_level=3, compiler_directives={"freethreading_compatible": False})
    for module in modules:
        module.optional = True
        module.extra_compile_args = ["-O3", "-Wno-sign-compare"]
    return list(modules)


setup(ext_modules=extensions())
