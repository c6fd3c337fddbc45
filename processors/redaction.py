"""Redaction: what must not be in telemetry is taken out of it before anything is written.

Names and fields are those of the Collector's redaction processor, whose block can be pasted; presets, log bodies at
every depth, names and status texts are in addition. A key is decided first, then its value:

    ignored_keys → kept as it is      not in allowed_keys → removed
    allowed_values match → kept       blocked_key_patterns match → the whole value is masked
    presets, blocked_values → what matches is masked

All expressions are put into one, and one pass of RE2 over the bytes of a message says where something may have to
change (schemas/otlp_texts.py does it). An expression without `^`, `$` and `\\b` matches in the message whatever it
would match in a text: where it finds nothing there is nothing. Those with such a word have every text looked at, and
so have all when they are too large for RE2 as one.
`python -m bench.micro.redaction` measures it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from processors.redaction_presets import PRESETS, PresetName, Span
from processors.sampling.predicates import expression
from schemas.dead_letter import hidden
from schemas.otlp_build import key_value
from schemas.otlp_texts import IGNORE, KEEP, KINDS, MASK, REMOVE, REMOVE_OR_MASK, Texts
from schemas.remembered import LONGEST
from schemas.settings import Broken, Section, refuse

MASK_TEXT = b"****"  # the Collector's
REMEMBERED_KEYS = 10_000
SHORTEST_KEY = 16  # characters of a key of an HMAC
# An expression may hold these words and still mean something else by them: it then only costs more.
_PLACED = re.compile(r"\^|\$|\\[bBAzQC]|\(\?[a-zA-Z]*m")
_SIGNALS = {"traces": "trace.v1.TracesData", "logs": "logs.v1.LogsData", "metrics": "metrics.v1.MetricsData"}
_OWN_KEYS = [f"redaction.{part}.{what}" for part in ("redacted", "masked", "body.masked") for what in ("keys", "count")]

HashFunction = Literal["md5", "sha1", "sha3", "hmac-sha256", "hmac-sha512"]


class Redaction(Section):
    """What is taken out of spans, logs and metrics before anything else happens to them.

    In the words of the Collector's redaction processor. It is applied to attributes of resources, scopes, spans,
    events, links, logs and data points, to log bodies, and to every other text such as span names.
    """

    presets: list[PresetName] = Field(
        [],
        description="Values that are masked: card numbers whose check digit holds, e-mail addresses, tokens and keys.",
    )
    allow_all_keys: bool = Field(
        False, description="False: attributes whose key is not in `allowed_keys` are removed, as in the Collector."
    )
    allowed_keys: list[str] = Field(
        [], description="Keys of attributes, and of maps in log bodies, that stay. `service.name` should be one."
    )
    ignored_keys: list[str] = Field([], description="Keys whose values stay as they are, whatever is in them.")
    blocked_key_patterns: list[str] = Field(
        [], description="RE2 expressions: keys, at any depth, whose whole value is masked."
    )
    blocked_values: list[str] = Field([], description="RE2 expressions: what of a value matches is masked.")
    allowed_values: list[str] = Field([], description="RE2 expressions: a value in which one matches is not masked.")
    redact_all_types: bool = Field(False, description="Also mask numbers whose decimal text matches.")
    hash_function: HashFunction | None = Field(
        None,
        description="Put a hash in the place of what is masked instead of `****`: equal values stay equal. A plain "
        "hash of a card number or an e-mail address is guessed in no time; one with a key is not.",
    )
    hmac_key: SecretStr | None = Field(None, description="Key of hmac-sha256 and hmac-sha512.")
    summary: Literal["debug", "info", "silent"] = Field(
        "silent", description="info: add `redaction.*.count` to what was changed; debug: also `redaction.*.keys`."
    )
    dead_letter_payloads: bool = Field(
        False,
        description="True: dead letters of messages that cannot be decoded, and so not redacted, have their bytes. "
        "False: they have none, but say where the message lies in its raw topic.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        refuse(self._rules())
        return self

    def _rules(self) -> Iterator[Broken]:
        if not self.allow_all_keys and not self.allowed_keys:
            yield ("allow_all_keys",), "is false and allowed_keys is empty: that would remove every attribute"
        if self.allow_all_keys and self.allowed_keys:
            yield ("allowed_keys",), "says nothing while allow_all_keys is true"
        for key in ("blocked_key_patterns", "blocked_values", "allowed_values"):
            for i, pattern in enumerate(getattr(self, key)):
                try:
                    if expression(pattern).search(""):
                        yield (key, i), f"{pattern!r} matches the empty text, so everything"
                except ValueError as error:
                    yield (key, i), str(error)
        keyed = self.hash_function in ("hmac-sha256", "hmac-sha512")
        if keyed and self.hmac_key is None:
            yield ("hmac_key",), f"is required by hash_function: {self.hash_function}"
        if self.hmac_key is not None and not keyed:
            yield ("hmac_key",), "needs hash_function: hmac-sha256 or hmac-sha512"
        elif self.hmac_key is not None and len(self.hmac_key.get_secret_value()) < SHORTEST_KEY:
            yield ("hmac_key",), f"must have at least {SHORTEST_KEY} characters"


_QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)  # what an error says was found where something else should be


def rules(settings: Redaction) -> list[str]:
    """The names under which changes are counted."""
    lists = ("blocked_values", "blocked_key_patterns", "allowed_keys")
    return [*dict.fromkeys(settings.presets), *(name for name in lists if getattr(settings, name))]


class Redactor:
    """One for each raw partition. `counts` are (rule, 1) since somebody took them: `take`.

    The methods that schemas/otlp_texts.py asks are those of its `Rules`.
    """

    def __init__(self, settings: Redaction) -> None:
        self._payloads = settings.dead_letter_payloads
        self._blocked: list[tuple[str, Any, Callable[[bytes], Iterator[Span]] | None]] = [
            (name, expression(PRESETS[name].pattern), PRESETS[name].parts) for name in dict.fromkeys(settings.presets)
        ]
        self._blocked += [("blocked_values", expression(pattern), None) for pattern in settings.blocked_values]
        patterns = [PRESETS[name].pattern for name in settings.presets] + settings.blocked_values
        anywhere = [pattern for pattern in patterns if not _PLACED.search(pattern)]
        self._anywhere = _one_of(anywhere)
        self._placed = len(anywhere) < len(patterns) or (bool(anywhere) and self._anywhere is None)
        self._allowed: list[Any] = [expression(pattern) for pattern in settings.allowed_values]
        self._blocked_keys: list[Any] = [expression(pattern) for pattern in settings.blocked_key_patterns]
        self._allowed_keys = None if settings.allow_all_keys else {*settings.allowed_keys, *_OWN_KEYS}
        self._ignored_keys = set(settings.ignored_keys)
        self._keys: dict[bytes, int] = {}
        self._mask = _masking(settings)
        self._names = settings.summary == "debug"
        self.counts: Counter[str] = Counter()
        self.keyed = bool(self._blocked_keys) or self._allowed_keys is not None
        self._texts = Texts(self, self.keyed, settings.redact_all_types, settings.summary != "silent")

    def message(self, data: bytes, signal: str) -> bytes:
        """A message of a signal without what must not be in it; the same object if nothing was. Raises Malformed."""
        return self.part(data, _SIGNALS[signal])

    def part(self, data: bytes, kind: str) -> bytes:
        """The same for any of `otlp_texts.KINDS`, such as logs.v1.LogRecord."""
        return self._texts.rewritten(data, KINDS[kind], self._regions(data))

    def buried(self, value: bytes, detail: str) -> tuple[bytes, str]:
        """Value and detail of a dead letter for bytes that cannot be redacted; the detail may quote them."""
        if self._payloads:
            return value, detail
        return hidden(value, self._told(_QUOTED.sub("…", detail)))

    def _told(self, text: str) -> str:
        return self.text(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def take(self) -> Counter[str]:
        """How often each rule has changed something since the last call."""
        taken, self.counts = self.counts, Counter()
        return taken

    def _regions(self, data: bytes) -> Sequence[Span]:
        """Where in a message a text may have to change."""
        if self._placed:
            return [(0, len(data))]
        return [] if self._anywhere is None else [match.span() for match in self._anywhere.finditer(data)]

    # ---- what otlp_texts asks ----------------------------------------------------------------------------

    def key(self, key: bytes) -> int:
        """What becomes of an attribute."""
        decided = self._keys.get(key)
        if decided is None:
            if len(self._keys) >= REMEMBERED_KEYS:
                self._keys.clear()
            decided = self._decide(key.decode("utf-8", "replace"))
            if len(key) <= LONGEST:
                self._keys[key] = decided
        return decided

    def _decide(self, key: str) -> int:
        if key in self._ignored_keys:
            return IGNORE
        blocked = any(pattern.search(key) for pattern in self._blocked_keys)
        if self._allowed_keys is not None and key not in self._allowed_keys:
            return REMOVE_OR_MASK if blocked else REMOVE
        return MASK if blocked else KEEP

    def text(self, text: bytes) -> bytes:
        """A text with what is blocked masked."""
        if any(pattern.search(text) for pattern in self._allowed):
            return text
        for rule, pattern, parts in self._blocked:
            found = [match.span() for match in pattern.finditer(text)]
            if found and parts is not None:
                found = [(start + a, start + b) for start, end in found for a, b in parts(text[start:end])]
            if found:
                text = b"".join(self._exchanged(text, found))
                self.counts[rule] += len(found)
        return text

    def _exchanged(self, text: bytes, places: Iterable[Span]) -> Iterator[bytes]:
        done = 0
        for start, end in places:
            yield text[done:start]
            yield self._mask(text[start:end])
            done = end
        yield text[done:]

    def masked(self, text: bytes) -> bytes:
        """What stands for the value of a blocked key."""
        if any(pattern.search(text) for pattern in self._allowed):
            return text
        self.counts["blocked_key_patterns"] += 1
        return self._mask(text)

    def removed(self, key: bytes) -> None:
        """An attribute is gone."""
        self.counts["allowed_keys"] += 1

    def summary(
        self, masked: Sequence[bytes], removed: Sequence[bytes], body_masked: Sequence[bytes]
    ) -> Sequence[bytes]:
        """Attributes that tell what was done."""
        told: list[bytes] = []
        for part, names in (("redacted", removed), ("masked", masked), ("body.masked", body_masked)):
            if names and self._names:
                listed = ",".join(sorted(self._told(name.decode("utf-8", "replace")) for name in names))
                told.append(key_value(f"redaction.{part}.keys", listed))
            if names:
                told.append(key_value(f"redaction.{part}.count", len(names)))
        return told


def _one_of(patterns: Sequence[str]) -> Any:
    """An expression for all of them; None if there are none, or they are more than RE2 takes as one."""
    try:
        return expression("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
    except ValueError:
        return None


def _masking(settings: Redaction) -> Callable[[bytes], bytes]:
    """What stands for a text that must not be seen."""
    key = settings.hmac_key.get_secret_value().encode() if settings.hmac_key else b""
    match settings.hash_function:
        case None:
            return lambda text: MASK_TEXT
        case "hmac-sha256" | "hmac-sha512" as name:
            digest = name.removeprefix("hmac-")
            return lambda text: hmac.new(key, text, digest).hexdigest().encode()
        case name:
            plain = "sha3_256" if name == "sha3" else name
            return lambda text: hashlib.new(plain, text, usedforsecurity=False).hexdigest().encode()
