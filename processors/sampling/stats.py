"""What a window counts: numbers by what is counted, and of what."""

from __future__ import annotations

from collections import Counter
from typing import Literal

Stat = Literal[
    "spans_counted",
    "decided",
    "policy",
    "drop_policy",
    "matched",
    "only",
    "shadow_turned",
    "keys_shared",
    "policy_spans",
    "policy_bytes",
    "spans_kept",
    "spans_dropped",
    "logs_read",
    "logs_kept",
    "logs_dropped",
    "restored",
    "tail_reads",
]
Stats = Counter[tuple[Stat, str]]
"""What a burst did. Of what: a verdict, a policy, a reason, a signal, or nothing."""
