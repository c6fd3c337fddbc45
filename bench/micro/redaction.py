"""What redaction adds to a span: µs of process CPU in `ingest`. `python -m bench.micro.redaction`

Messages of 500 spans of ten attributes. First what taking them apart costs without redaction; then what each setting
adds while nothing matches, with an e-mail address in one span of a hundred, and with a number of 16 digits that is no
card number in every span: its digits have to be looked at.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from bench.micro.otlp_scan import ROWS, example
from processors.redaction import Redaction, Redactor
from processors.regroup import Regroup

MESSAGES = 4
SPANS = MESSAGES * ROWS / 1e6
ROUNDS = 5
START = 1_800_000_000_000  # ms
SETTINGS: dict[str, dict[str, Any]] = {
    "email": {"presets": ["email"], "allow_all_keys": True},
    "card_number": {"presets": ["card_number"], "allow_all_keys": True},
    "token": {"presets": ["token"], "allow_all_keys": True},
    "all presets": {"presets": ["card_number", "email", "token"], "allow_all_keys": True},
    "blocked_key_patterns": {"blocked_key_patterns": ["(?i)password|secret"], "allow_all_keys": True},
    "all presets, keys": {
        "presets": ["card_number", "email", "token"],
        "blocked_key_patterns": ["(?i)password|secret"],
        "allow_all_keys": True,
    },
    "a value with ^": {"blocked_values": ["^never this$"], "allow_all_keys": True},
    "all presets, redact_all_types": {
        "presets": ["card_number", "email", "token"],
        "allow_all_keys": True,
        "redact_all_types": True,
    },
}


def with_text(value: bytes, text: str, every: int) -> bytes:
    """The message with a text in one span of so many."""
    data = TracesData.FromString(value)
    for one in data.resource_spans[0].scope_spans[0].spans[::every]:
        one.attributes.add(key="note").value.string_value = text
    return data.SerializeToString()


def regrouped(messages: list[bytes], redactor: Redactor | None) -> float:
    """µs per span of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        regroup = Regroup("raw", 0, "traces", "otlp_proto", 4, 16 << 20, 1 << 20, redactor)
        began = time.process_time()
        for number, value in enumerate(messages):
            regroup.add(number, START, value)
        times.append(time.process_time() - began)
        regroup.flush(START, {"raw": 1})
    return min(times) / SPANS


def main() -> None:
    clean = example()
    kinds = [clean, with_text(clean, "signed in as jo.doe@example.org", 100), with_text(clean, "n 5827880059033551", 1)]
    without = [regrouped([kind] * MESSAGES, None) for kind in kinds]
    print(f"{without[0]:6.2f} µs/span to take apart, {len(clean) / ROWS:.0f} bytes/span; redaction adds, in µs/span,")
    print("where nothing matches, 1 span of 100 does, every span has a long number:")
    for name, keys in SETTINGS.items():
        redactor = Redactor(Redaction.model_validate(keys))
        added = [regrouped([kind] * MESSAGES, redactor) - base for kind, base in zip(kinds, without, strict=True)]
        print("".join(f"{one:7.2f}" for one in added), name)


if __name__ == "__main__":
    main()
