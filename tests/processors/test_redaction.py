"""Redaction: what is blocked is in nothing that leaves, what is not blocked is as it was."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from random import Random
from time import process_time_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from pydantic import ValidationError

from processors.cardinality import Limits
from processors.metric_points import MetricPoints, Naming
from processors.redaction import Redaction, Redactor, rules
from processors.redaction_presets import cards
from processors.regroup import Regroup
from processors.series import SeriesStore
from processors.values import observations
from schemas.envelope import Envelope
from schemas.point import PackedBatch
from schemas.raw_batch import RawReader
from tests.processors.redacting import ALL, AWS, BEARER, JWT, MAIL, SECRET_BYTES, SECRETS, everything, plain
from tests.schemas.rows import attribute
from tests.sinks.building import log, span


def redactor(**keys: Any) -> Redactor:
    return Redactor(Redaction.model_validate({"presets": ALL, "allow_all_keys": True, **keys}))


def masked(text: str, **keys: Any) -> str:
    return redactor(**keys).text(text.encode()).decode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4111111111111111", "****"),
        ("card=4111111111111111;", "card=****;"),
        ("id4111111111111111x", "id****x"),
        ("4111-1111-1111-1111 12/27 123", "**** 12/27 123"),
        ("5500 0000 0000 0004 and 3400 000000 00009", "**** and ****"),
        ("6011000000000004, 30000000000004, 3530111333300000, 6200000000000005", "****, ****, ****, ****"),
        ("4222222222222", "****"),
        ("4111111111111112", "4111111111111112"),  # the check digit is wrong
        ("41111111111111110000000000", "41111111111111110000000000"),  # a longer number
        ("1700000000000000000", "1700000000000000000"),  # a time in ns
        ("7992739871300000", "7992739871300000"),  # Luhn holds, no issuer
        ("order 12 4111111111111111", "order 12 ****"),
        ("4111 1111 1111 1111 4111 1111 1111 1111", "**** ****"),
    ],
)
def test_card_numbers(text: str, found: str) -> None:
    assert masked(text, presets=["card_number"]) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail to jo.doe+x@mail.example.org now", "mail to **** now"),
        ("/users/jo%40example.org/cart", "/users/****/cart"),
        ("jürgen@münchen.de", "****"),
        ("a@b", "a@b"),
        ("user@host:22", "user@host:22"),
        ("@decorator.of", "@decorator.of"),
    ],
)
def test_mail_addresses(text: str, found: str) -> None:
    assert masked(text, presets=["email"]) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"authorization: {BEARER}", "authorization: ****"),
        (f"t={JWT}&x", "t=****&x"),
        (f"key {AWS}.", "key ****."),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "****"),
        ("Authorization: Basic dXNlcjpwYXNz", "****"),
        ("ghp_" + "a" * 36, "****"),
        ("xoxb-1234567890-abc", "****"),
        ("basic authentication", "basic authentication"),
        ("the bearer of this", "the bearer of this"),
    ],
)
def test_tokens(text: str, found: str) -> None:
    assert masked(text, presets=["token"]) == found


@given(st.text(alphabet="0123456789", min_size=11, max_size=18))
def test_luhn_takes_one_digit_in_ten(digits: str) -> None:
    assert sum(luhn(f"{digits}{last}".encode()) for last in range(10)) == 1


def luhn(digits: bytes) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    twice = [number * 2 - 9 if number > 4 else number * 2 for number in (digit - 48 for digit in digits[-2::-2])]
    return (sum(twice) + sum(digit - 48 for digit in digits[::-2])) % 10 == 0


def plain_cards(text: bytes) -> Iterator[tuple[int, int]]:
    """What `cards` is a quicker form of: every run of groups looked at by itself, the longest card of each first."""
    issuers = re.compile(rb"4|5[0-8]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[0-9]|6[0-9]")
    lengths = {b"4": (13, 16, 19), b"2": (16,), b"3": (14, 15, 16)}
    groups = [match.span() for match in re.finditer(rb"[0-9]+", text)]
    first = 0
    while first < len(groups):
        found = None
        for last in range(first, len(groups)):
            digits = b"".join(text[start:end] for start, end in groups[first : last + 1])
            if len(digits) > 19:
                break
            if len(digits) in lengths.get(digits[:1], range(12, 20)) and issuers.match(digits) and luhn(digits):
                found = last
        if found is not None:
            yield groups[first][0], groups[found][1]
            first = found
        first += 1


DIGITS = st.one_of(
    st.text("0123456789", min_size=1, max_size=5),
    st.sampled_from(
        ["4", "34", "5", "2720", "222", "1", "9", "6" * 4, "4111111111111111", "5500", "0000", "0004", "1" * 20]
    ),
)


@given(st.lists(st.tuples(DIGITS, st.sampled_from([" ", "-"])), max_size=60))
def test_cards_are_those_of_the_plain_form(groups: list[tuple[str, str]]) -> None:
    text = "".join(part for group in groups for part in group).encode()
    assert list(cards(text)) == list(plain_cards(text))


@given(st.text("0123456789 -", max_size=200), st.sampled_from(["0123456789", "0123456789 "]), st.integers(0, 2**64))
def test_cards_of_any_run_are_those_of_the_plain_form(text: str, alphabet: str, seed: int) -> None:
    random = Random(seed)
    run = "".join(random.choices(alphabet, k=60))
    for each in (text.encode(), run.encode(), re.sub("[0-9]", lambda digit: digit[0] + " ", run).encode()):
        assert list(cards(each)) == list(plain_cards(each))


@pytest.mark.parametrize("text", ["4 ", "5 ", "6-5 "])
def test_lists_of_numbers_cost_about_what_cards_cost(text: str) -> None:
    """For each byte. All begin as a card does, over and over again."""

    def of_a_byte(run: str) -> float:
        data, best = run.encode() * (20_000 // len(run)), float("inf")
        for _ in range(3):
            began = process_time_ns()
            list(cards(data))
            best = min(best, process_time_ns() - began)
        return best / len(data)

    assert of_a_byte(text) < 20 * of_a_byte("4111 1111 1111 1111 ")


@given(st.text(), st.sampled_from(SECRETS), st.text())
def test_nothing_that_matches_stays_in_a_text(before: str, secret: str, after: str) -> None:
    """Letters and digits next to it may make it something else; a blank does not."""
    found = masked(f"{before} {secret} {after}")
    assert secret not in found
    assert masked(found) == found


@pytest.mark.parametrize("secret", SECRETS)
def test_no_place_is_forgotten_and_nothing_else_changes(secret: str) -> None:
    kinds: dict[str, Any] = {"traces": TracesData, "logs": LogsData, "metrics": MetricsData}
    clean = everything("****")
    for signal, data in everything(secret).items():
        one = redactor()
        found = one.message(data, signal)
        assert secret.encode() not in found
        times = ("start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "span_id")
        said = [
            line for message in (found, clean[signal]) for line in [str(kinds[signal].FromString(message)).splitlines()]
        ]
        said = [[line for line in lines if not any(word in line for word in times)] for lines in said]
        assert said[0] == said[1]
        assert one.take().total() > 5
        assert one.take().total() == 0


def attributes(message: bytes) -> dict[str, Any]:
    (part,) = TracesData.FromString(message).resource_spans
    (one,) = part.scope_spans[0].spans
    found = {a.key: a.value for a in one.attributes}
    return {key: getattr(value, value.WhichOneof("value") or "string_value") for key, value in found.items()}


def redacted(keys: dict[str, Any], **given: Any) -> dict[str, Any]:
    data = TracesData()
    data.resource_spans.add().scope_spans.add().spans.append(span(bytes(range(16)), "n", **given))
    return attributes(Redactor(Redaction.model_validate(keys)).message(data.SerializeToString(), "traces"))


def test_keys_that_are_not_allowed_are_removed() -> None:
    """Those of maps in an allowed attribute are not asked for."""
    found = redacted({"allowed_keys": ["a", "m"]}, a="1", b="2", c=3, m={"b": "x"})
    assert list(found) == ["a", "m"]
    assert found["m"].values[0].key == "b"


def test_blocked_keys_are_masked_whatever_their_value() -> None:
    found = redacted(
        {"allow_all_keys": True, "blocked_key_patterns": [".*token.*"]}, my_token="x", token=7, other={"token": [1]}
    )
    assert (found["my_token"], found["token"]) == ("****", "****")
    assert found["other"].values[0].value.string_value == "****"


def test_a_blocked_key_inside_a_value_is_masked_whatever_keys_are_allowed() -> None:
    """Nothing is removed inside a value, so it would stay as it is."""
    keys = {"allowed_keys": ["user"], "blocked_key_patterns": ["password"]}
    found = redacted(keys, user={"password": "hunter2", "name": "ada"}, other="x", my_password="y")
    assert list(found) == ["user"]
    assert [(a.key, a.value.string_value) for a in found["user"].values] == [("password", "****"), ("name", "ada")]


@pytest.mark.parametrize("text", ["1 ", "4111111111111111 ", "41111111 11111111-", "5 4 "])
def test_card_numbers_are_looked_for_in_linear_time(text: str) -> None:
    """A list of numbers is no reason to stand still for hours."""
    spent = []
    for count in (2_000, 16_000):
        began = process_time_ns()
        masked(text * count, presets=["card_number"])
        spent.append(process_time_ns() - began)
    assert spent[1] < 4 * 8 * spent[0]


def test_expressions_that_are_too_many_for_one_work_alone() -> None:
    """RE2 has an end to how large one may become."""
    values = [rf"secret{number}=\pL{{1,100}}" for number in range(16)]
    one = redactor(presets=[], blocked_values=values)
    assert one.text(b"a secret7=hidden b") == b"a **** b"
    data = TracesData()
    data.resource_spans.add().scope_spans.add().spans.append(span(bytes(range(16)), "secret15=hidden"))
    assert b"hidden" not in one.message(data.SerializeToString(), "traces")


def test_what_redaction_cannot_look_into_is_buried() -> None:
    """Below 20 levels a value of a JSON log is a text, whose keys nobody asks about."""
    deep: Any = {"password": "hunter2"}
    for _ in range(22):
        deep = {"a": deep}
    line = json.dumps({"message": "m", "x": deep}).encode()
    cases: list[tuple[dict[str, Any], int]] = [
        ({"blocked_key_patterns": ["password"]}, 0), ({"blocked_values": ["zzz"]}, 1),
    ]  # fmt: skip
    for keys, rows in cases:
        made = regroup("logs", "json", allow_all_keys=True, dead_letter_payloads=False, **keys)
        made.add_all([(0, 0, line), (1, 0, b'{"message": "good"}')])
        flushed = made.flush(None, {})
        assert flushed.rows == rows + 1
        assert [letter.value for letter in flushed.dead_letters] == [b""] * (1 - rows)


def test_an_error_does_not_quote_what_must_not_be_seen() -> None:
    span_with = {"key": "password", "value": {"intValue": "hunter2"}}
    message = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [span_with]}]}]}]}
    made = regroup("traces", "otlp_json", blocked_key_patterns=["password"], allow_all_keys=True)
    made.add_all([(0, 0, json.dumps(message).encode())])
    (letter,) = made.flush(None, {}).dead_letters
    assert "hunter2" not in letter.detail
    assert "invalid literal for int()" in letter.detail


def test_ignored_keys_win_and_allowed_values_stay() -> None:
    keys = {"allow_all_keys": True, "presets": ["email"], "ignored_keys": ["who"], "allowed_values": ["@ours[.]org"]}
    keys |= {"blocked_key_patterns": ["secret"]}
    found = redacted(keys, who="a@b.org", a="x@ours.org and y@z.org", b="y@z.org", secret="z@ours.org")
    assert found == {"who": "a@b.org", "a": "x@ours.org and y@z.org", "b": "****", "secret": "z@ours.org"}


def test_numbers_are_texts_if_asked_for() -> None:
    keys = {"allow_all_keys": True, "presets": ["card_number"]}
    assert redacted(keys, n=4111111111111111) == {"n": 4111111111111111}
    assert redacted(keys | {"redact_all_types": True}, n=4111111111111111, m=-5) == {"n": "****", "m": -5}


def test_hashes() -> None:
    keys = {"allow_all_keys": True, "presets": ["email"]}
    text = b"a@b.org"
    for name, said in (
        ("md5", hashlib.md5(text)), ("sha1", hashlib.sha1(text)), ("sha3", hashlib.sha3_256(text)),
        ("hmac-sha256", hmac.new(b"k" * 16, text, "sha256")), ("hmac-sha512", hmac.new(b"k" * 16, text, "sha512")),
    ):  # fmt: skip
        key = {"hmac_key": "k" * 16} if "hmac" in name else {}
        found = redacted(keys | key | {"hash_function": name}, a=f"<{text.decode()}>")
        assert found == {"a": f"<{said.hexdigest()}>"}


def test_the_summary() -> None:
    keys = {"allowed_keys": ["a", "b"], "presets": ["email"]}
    given = {"a": "a@b.org", "b": "c@d.org", "c": "gone", "d": "gone"}
    masks = {"a": "****", "b": "****"}
    assert redacted(keys, **given) == masks
    counts = {"redaction.redacted.count": 2, "redaction.masked.count": 2}
    assert redacted(keys | {"summary": "info"}, **given) == masks | counts
    names = {"redaction.redacted.keys": "c,d", "redaction.masked.keys": "a,b"}
    assert redacted(keys | {"summary": "debug"}, **given) == masks | counts | names
    assert redacted(keys | {"summary": "debug"}, a="x") == {"a": "x"}


def test_the_summary_of_a_body() -> None:
    one = Redactor(Redaction(allow_all_keys=True, presets=["email"], summary="debug"))
    data = LogsData()
    data.resource_logs.add().scope_logs.add().log_records.extend([log("to a@b.org"), log({"m": "a@b.org"})])
    records = LogsData.FromString(one.message(data.SerializeToString(), "logs")).resource_logs[0].scope_logs[0]
    texts = [{a.key: a.value.string_value or a.value.int_value for a in r.attributes} for r in records.log_records]
    assert texts == [
        {"redaction.body.masked.keys": "body", "redaction.body.masked.count": 1},
        {"redaction.body.masked.keys": "m", "redaction.body.masked.count": 1},
    ]


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({}, "allow_all_keys: is false and allowed_keys is empty"),
        ({"allow_all_keys": True, "allowed_keys": ["a"]}, "allowed_keys: says nothing"),
        ({"allow_all_keys": True, "blocked_values": ["("]}, r"blocked_values.0: '\(' is not a regular expression"),
        ({"allow_all_keys": True, "blocked_key_patterns": ["a*"]}, "blocked_key_patterns.0: 'a\\*' matches the empty"),
        ({"allow_all_keys": True, "hash_function": "hmac-sha256"}, "hmac_key: is required"),
        ({"allow_all_keys": True, "hmac_key": "k" * 16}, "hmac_key: needs hash_function"),
        ({"allow_all_keys": True, "hmac_key": "k", "hash_function": "hmac-sha512"}, "hmac_key: must have at least 16"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Redaction.model_validate(keys)


def test_the_rules_that_are_counted() -> None:
    settings = Redaction(allowed_keys=["a"], presets=["email"], blocked_values=["x"])
    assert rules(settings) == ["email", "blocked_values", "allowed_keys"]


# ---- where ingest and sample use it --------------------------------------------------------------------------


def leaves_nothing(*values: bytes) -> None:
    for value in map(plain, values):
        assert not [secret for secret in SECRET_BYTES if secret in value], value


def regroup(signal: str, encoding: str = "otlp_proto", row: int = 1 << 20, **keys: Any) -> Regroup:
    return Regroup("raw", 0, signal, encoding, 2, 1 << 20, row, redactor(**keys))


@pytest.mark.parametrize("signal", ["traces", "logs"])
@pytest.mark.parametrize("row", [1 << 20, 10])
def test_ingest_writes_nothing_that_matches(signal: str, row: int) -> None:
    """Neither in envelopes nor, when every row is too large, in dead letters."""
    one = regroup(signal, row=row)
    for number, secret in enumerate(SECRETS):
        one.add(number, 0, everything(secret)[signal])
    flushed = one.flush(0, {"raw": 1})
    values = [value for values in flushed.envelopes.values() for value in values]
    leaves_nothing(*values, *(value for _, value in flushed.untraced))
    leaves_nothing(*(letter.value + letter.detail.encode() for letter in flushed.dead_letters))
    rows = sum(len(Envelope.decode(value)) for value in values)
    assert bool(flushed.dead_letters) == (rows == 0) == (row == 10)


@pytest.mark.parametrize("encoding", ["json", "text", "otlp_json", "auto"])
def test_every_encoding_of_logs(encoding: str) -> None:
    text = "".join(f'{{"message": "to {secret}", "user": {{"x": ["{secret}"]}}}}\n' for secret in SECRETS)
    if encoding == "otlp_json":
        body = ",".join(f'{{"body": {{"stringValue": "{secret}"}}}}' for secret in SECRETS)
        text = f'{{"resourceLogs": [{{"scopeLogs": [{{"logRecords": [{body}]}}]}}]}}'
    one = regroup("logs", encoding)
    one.add(0, 0, text.encode())
    flushed = one.flush(0, {})
    assert flushed.untraced
    assert not flushed.dead_letters
    leaves_nothing(*(value for _, value in flushed.untraced))


@pytest.mark.parametrize("payloads", [False, True])
def test_what_cannot_be_decoded_cannot_be_redacted(payloads: bool) -> None:
    lines = f'{{"message": "fine"}}\n{{"bad": "{MAIL}"\n'.encode()
    cut = everything(MAIL)["traces"][:-3]
    one, other = (
        regroup("logs", "json", dead_letter_payloads=payloads),
        regroup("traces", dead_letter_payloads=payloads),
    )
    one.add(0, 0, lines)
    other.add(7, 0, cut)
    letters = one.flush(0, {}).dead_letters + other.flush(0, {}).dead_letters
    assert [letter.reason for letter in letters] == ["malformed", "malformed"]
    if payloads:
        assert [letter.value for letter in letters] == [lines.split(b"\n")[1], cut]
        assert letters[1].cut_from is None
    else:
        leaves_nothing(*(letter.value + letter.detail.encode() for letter in letters))
        assert [letter.cut_from for letter in letters] == [len(lines.split(b"\n")[1]), len(cut)]
        assert letters[1].key() == b"raw/0/7/0"


def test_metrics_are_redacted_before_they_are_labels() -> None:
    one = MetricPoints("raw", 0, "otlp_proto", Naming(), 1 << 20, redactor())
    for number, secret in enumerate(SECRETS):
        one.add(number, 0, everything(secret)["metrics"])
        one.add(number, 0, everything(secret)["metrics"][:-2])
    flushed = one.flush()
    leaves_nothing(*(batch.encode() for batch in flushed.batches))
    leaves_nothing(*(letter.value + letter.detail.encode() for letter in flushed.dead_letters))
    assert flushed.rows == len(flushed.dead_letters) == len(SECRETS)


ANYTHING = Redaction(allow_all_keys=True, presets=["email"])
FEW = Redaction(allowed_keys=["service.name", "service.instance.id"])


@pytest.mark.parametrize("settings", [ANYTHING, FEW, None], ids=["masked", "removed", "as it came"])
@pytest.mark.parametrize("monotonic", [True, False])
def test_series_that_become_one_are_counted_as_one(settings: Redaction | None, monotonic: bool) -> None:
    """Nothing tells them apart any more, and an SDK may export them in any order."""
    one = MetricPoints("raw", 0, "otlp_proto", Naming(), 1 << 20, Redactor(settings) if settings else None)
    store = SeriesStore(Limits(100, 100))
    for at, points in enumerate([[("a", 100), ("b", 5)], [("b", 6), ("a", 110)], [("a", 120), ("b", 9)]], 1):
        data = MetricsData()
        resource = data.resource_metrics.add()
        for key in ("service.name", "service.instance.id"):
            resource.resource.attributes.append(attribute(key, "x"))
        total: Any = resource.scope_metrics.add().metrics.add(name="logins").sum
        total.is_monotonic, total.aggregation_temporality = monotonic, 2
        for who, number in points:
            point = total.data_points.add(as_int=number, time_unix_nano=at * 1_000_000_000)
            point.start_time_unix_nano = 1_000_000 if monotonic else 1_000_000 * at
            point.attributes.append(attribute("user.email", f"{who}@shop.example"))
        one.add(at, at, data.SerializeToString())
        for batch in one.flush().batches:
            store.apply(PackedBatch.decode(batch.encode()), at * 1000)
    (block,) = store.blocks(9_000)
    assert sum(observations(value) for _, value in block.rows) == 129
    assert len(block.rows) == (2 if settings is None else 1)
    assert not store.dropped()


def test_what_a_source_told_twice_is_not_added_up() -> None:
    """A Collector puts two exports into one message, and something else in it was redacted."""
    one = MetricPoints("raw", 0, "otlp_proto", Naming(), 1 << 20, Redactor(ANYTHING))
    store = SeriesStore(Limits(100, 100))
    for at, values in enumerate(((100,), (110, 120), (130,))):
        data = MetricsData()
        metrics = data.resource_metrics.add().scope_metrics.add().metrics
        total: Any = metrics.add(name="logins").sum
        total.is_monotonic, total.aggregation_temporality = True, 2
        for more, value in enumerate(values):
            point = total.data_points.add(as_int=value, time_unix_nano=(10 * at + more + 2) * 1_000_000_000)
            point.start_time_unix_nano = 1_000_000
        other: Any = metrics.add(name="load").gauge
        other.data_points.add(as_int=1).attributes.append(attribute("user.email", "a@shop.example"))
        one.add(at, at, data.SerializeToString())
        for batch in one.flush().batches:
            store.apply(PackedBatch.decode(batch.encode()), at * 1000)
    blocks = {block.metric: block.rows for block in store.blocks(9_000)}
    assert [value for _, value in blocks["logins_total"]] == [130]
    assert not store.dropped()


def test_a_reader_of_raw_topics_redacts() -> None:
    one = redactor()
    reader = RawReader("raw", 0, 2, "traces", 1 << 20, 1 << 20, lambda value: one.message(value, "traces"), one.buried)
    bad = everything(MAIL)["traces"][:-3]
    nameless = TracesData()
    nameless.resource_spans.add().scope_spans.add().spans.append(Span(name=MAIL))
    values = [everything(secret)["traces"] for secret in SECRETS] + [bad, nameless.SerializeToString()]
    batch = reader.read([(number, 0, value) for number, value in enumerate(values)])
    assert len(batch.rows) == 2 * len(SECRETS)
    leaves_nothing(batch.rows.body, *batch.rows.resources, *batch.rows.scopes)
    assert [letter.reason for letter in batch.dead_letters] == ["malformed", "no_trace_id"]
    leaves_nothing(*(letter.value + letter.detail.encode() for letter in batch.dead_letters))


def test_without_redaction_messages_are_what_they_were() -> None:
    one = Regroup("raw", 0, "traces", "otlp_proto", 1, 1 << 20, 1 << 20)
    one.add(0, 0, everything(MAIL)["traces"])
    (value,) = one.flush(0, {}).envelopes[0]
    assert MAIL.encode() in plain(value)
