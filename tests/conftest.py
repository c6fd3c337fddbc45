"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# Machines are small and noisy: no deadlines in seconds. In CI the examples are the same ones every time, so that a
# failure there says something about the change; everywhere else each run tries new ones.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=5)  # tests.test_wheels
settings.load_profile("ci" if os.environ.get("CI") else "default")
