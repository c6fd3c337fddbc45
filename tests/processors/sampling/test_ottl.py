"""OTTL conditions: what they mean for a span, against an evaluator that walks the condition instead of compiling it."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.conditions import AnyOf
from processors.sampling.decide import decide
from processors.sampling.ottl import alternatives
from schemas.otlp_scan import AttributeValue, RawRows, SpanColumns, StatusMessages, resource_attributes
from tests.processors.sampling.builders import MS, NOON, Table, bits_of, gather, policy, slots, span
from tests.processors.sampling.ottl_trees import MAYBE, TEXTS, Tree, text_of, trees, true_of
from tests.schemas.rows import SpanScan, attribute


def kept(
    condition: str,
    scan: SpanScan | None = None,
    attributes: dict[str, AttributeValue] | None = None,
    resource: dict[str, AttributeValue] | None = None,
    compat: Compat = "none",
) -> bool:
    """Whether one span meets a condition, beside a policy about the same keys."""
    other = policy("other", "string_attribute", key="k", values=["never"])
    plan = compile_policies(
        [other, policy("p", "ottl_condition", span=[condition])], compat=compat, extra_keys=["k", "r", "service.name"]
    )
    return decide(plan, gather(plan, scan or span(), attributes=attributes, resource=resource)).kept


@pytest.mark.parametrize("literal", [9223372036854775807, 99999999999999999999, -99999999999999999999])
@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
def test_a_duration_beyond_64_bits_is_compared_as_a_number(operator: str, literal: int) -> None:
    """`Duration("9999999999h")` as well: it passed validation, so it must not stop a worker."""
    took = {"==": 0, "!=": 1, "<": literal > 0, "<=": literal > 0, ">": literal < 0, ">=": literal < 0}
    assert kept(f"end_time_unix_nano - start_time_unix_nano {operator} {literal}") == bool(took[operator])
    if literal > 0:
        assert kept(f'end_time - start_time {operator} Duration("{literal}ns")') == bool(took[operator])


@pytest.mark.parametrize("compat", ["none", "otel"])
@pytest.mark.parametrize(
    ("condition", "values", "others"),
    [
        ('attributes["k"] == "v"', ["v"], ["", "w", 1, True, None, b"v"]),
        ('span.attributes["k"] != "v"', ["", "w", 1, True, None, b"v"], ["v"]),
        ('"v" == attributes["k"]', ["v"], ["w", None]),
        ('attributes["k"] == ""', [""], ["x", None, 0]),
        ('attributes["k"] >= 500', [500, 501, 500.0, 1e9], [499, 499.5, "500", True, None]),
        ('500 <= attributes["k"]', [500], [499]),
        ('attributes["k"] > 0.5', [1, 0.75], [0, 0.5, "1", None]),
        ('attributes["k"] < "b"', ["", "a", "Z"], ["b", "c", 1, None]),
        ('attributes["k"] == -1', [-1, -1.0], [1, "-1"]),
        ('attributes["k"] == 1', [1, 1.0], [True, "1", 0]),
        ('attributes["k"] == true', [True], [False, "true", 1, None]),
        ('attributes["k"] != false', [True, 0, "", None], [False]),
        ('attributes["k"] == nil', [None], ["", 0, False, b""]),
        ('attributes["k"] != nil', ["", 0, False, b""], [None]),
        ('IsMatch(attributes["k"], "^/api/v[0-9]$")', ["/api/v1"], ["/api/v10", "x/api/v1", None, 1]),
        ('IsMatch(attributes["k"], "5..")', ["503", 503, "x5yz"], [404, None, True]),
        ('IsMatch(attributes["k"], "a\\\\.b")', ["a.b"], ["axb"]),
        ('IsMatch(attributes["k"], "")', ["", 0.0, 1e300], [float("nan"), float("inf"), float("-inf"), None]),
        ('not IsMatch(attributes["k"], "x")', ["y", None, 1], ["x", "axa"]),
        ('attributes["k"] == "a\\"b"', ['a"b'], ["a"]),
        ('attributes["k"] > 1 and attributes["k"] < 3', [2, 1.5], [1, 3, None]),
        ('attributes["k"] == 1 or attributes["k"] == "x" and not (attributes["k"] == "y")', [1, "x"], ["y", 2]),
        ('(attributes["k"]) == 1', [1], [2]),
        ('not ((attributes["k"]) == 1)', [2, None], [1]),
        ('HasPrefix(attributes["k"], "a")', ["a", "ab"], ["", "b", "ba", 1, True, None, b"a"]),
        ('HasSuffix(attributes["k"], "a")', ["a", "ba"], ["", "b", "ab", 1, True, None, b"a"]),
        # fails on what is no text, and then the condition is not met, whatever would come after it
        ('not HasPrefix(attributes["k"], "a")', ["", "b"], ["a", 1, True, None, b"b"]),
        ('HasPrefix(attributes["k"], "a") or attributes["k"] == 1', ["a"], ["b", 1, None]),
        ('attributes["k"] == 1 or HasPrefix(attributes["k"], "a")', ["a", 1], ["b", 2, None]),
        ('not (attributes["k"] != 1 and HasPrefix(attributes["k"], "a"))', [1, "b"], ["a", 2, None]),
        ('IsString(attributes["k"])', ["", "a"], [1, 1.5, True, None, b"a"]),
        ('not IsString(attributes["k"])', [1, 1.5, True, None, b"a"], ["", "a"]),
        (
            'Int(attributes["k"]) > 400',
            [401, 401.9, "401", "+401", "0" * 30 + "500", 500.0],
            [400, 400.9, "400", "401.0", " 401", "4_01", "9" * 19, True, None, b"401", 1e300],
        ),
        ('Int(attributes["k"]) == 1', [1, 1.9, "1", "01", True], [2, "1.0", None, b"1", float("nan")]),
        ('Int(attributes["k"]) == nil', [None, "", "x", "9" * 19], [1, "1", False, b"1"]),
        ('Int(attributes["k"]) != 1', [None, "x", 2], [1, "1", b"x"]),
        ('not (Int(attributes["k"]) < 5)', [5, "x", None], [4, b"x"]),
        (
            '0.5 < Double(attributes["k"])',
            [1, "1", "1.", ".6", "6e-1", "+Inf", True],
            [0, "0.5", "x", "", None, "1e999", "nan", "1_0", b"1"],
        ),
        ('not (Double(attributes["k"]) > 0.5)', [0.5, "0", "NaN", None], [1, "x", "", "1e999", b"1"]),
        ('Double(attributes["k"]) == nil', [None], ["", "x", 1, b"1"]),
        ("true", [None, 1], []),
        ('false or attributes["k"] == 1', [1], [2]),
    ],
)
def test_conditions_about_an_attribute(
    condition: str, values: list[AttributeValue | None], others: list[AttributeValue | None], compat: Compat
) -> None:
    for value in [*values, *others]:
        attributes: dict[str, AttributeValue] = {} if value is None else {"k": value}
        assert kept(condition, attributes=attributes, compat=compat) is any(value is one for one in values), value


def test_an_attribute_is_the_spans_or_the_resources() -> None:
    mine: dict[str, AttributeValue] = {"k": "v"}
    theirs: dict[str, AttributeValue] = {"k": "w"}
    assert kept('attributes["k"] == "v"', attributes=mine, resource=theirs)
    assert not kept('attributes["k"] == "w"', attributes=mine, resource=theirs)
    assert kept('resource.attributes["k"] == "w"', attributes=mine, resource=theirs)
    assert not kept('resource.attributes["k"] == "v"', attributes=mine, resource=theirs)
    assert kept('resource.attributes["k"] == nil', attributes=mine)
    assert kept('IsMatch(resource.attributes["k"], "^[v-w]$") and attributes["k"] == "v"', None, mine, theirs)


@pytest.mark.parametrize(
    ("condition", "scan", "other"),
    [
        ('name == "GET /"', span(), span(name=b"GET")),
        ('name == ""', span(name=b""), span()),
        ('span.name != ""', span(), span(name=b"")),
        ('IsMatch(name, "^(GET|PUT) ")', span(), span(name=b"POST /")),
        ('name >= "H"', span(name=b"PUT"), span()),
        ("kind == SPAN_KIND_SERVER", span(kind=2), span(kind=3)),
        ("kind != 2", span(kind=0), span(kind=2)),
        ('kind.string == "Client"', span(kind=3), span(kind=2)),
        ("status.code == STATUS_CODE_ERROR", span(status=2), span(status=1)),
        ("span.status.code != 0", span(status=7), span(status=0)),
        ("IsRootSpan()", span(), span(parent=b"\x01" * 8)),
        ("not IsRootSpan()", span(parent=b"\x00" * 7 + b"\x01"), span(parent=bytes(8))),
        ("end_time_unix_nano - start_time_unix_nano > 1000000", span(end_ns=NOON + MS + 1), span()),
        ("end_time_unix_nano - start_time_unix_nano >= 1000000", span(), span(end_ns=NOON + MS - 1)),
        ("end_time_unix_nano - start_time_unix_nano == 1000000", span(), span(end_ns=NOON + MS - 1)),
        ("end_time_unix_nano - start_time_unix_nano < 0", span(end_ns=NOON - 1), span(end_ns=NOON)),
        ("0 > end_time_unix_nano - start_time_unix_nano", span(end_ns=0), span(start_ns=0)),
        ("(end_time_unix_nano - start_time_unix_nano) > 1000000", span(end_ns=NOON + MS + 1), span()),
        ("1000000 < ((end_time_unix_nano - start_time_unix_nano))", span(end_ns=NOON + MS + 1), span()),
        ('kind == 2 and ((end_time - start_time) > Duration("1ms"))', span(kind=2, end_ns=NOON + MS + 1), span(kind=2)),
        ('HasPrefix(name, "GET ")', span(), span(name=b"GET")),
        ('not HasSuffix(name, " /")', span(name=b""), span()),
        ('IsString(name) and name == ""', span(name=b""), span()),
        ('Int(name) == 7', span(name=b"7"), span()),
        ('span.end_time - span.start_time > Duration("1.5ms")', span(end_ns=NOON + 1_500_001), span()),
        ('end_time - start_time <= Duration("1h1m1s1ms1us1ns")', span(end_ns=NOON + 3_661_001_001_001), span(
            end_ns=NOON + 3_661_001_001_002)),
    ],
)  # fmt: skip
def test_conditions_about_a_field(condition: str, scan: SpanScan, other: SpanScan) -> None:
    assert kept(condition, scan)
    assert not kept(condition, other)


def test_one_span_must_meet_the_whole_condition() -> None:
    plan = compile_policies([policy("p", "ottl_condition", span=["status.code == 2 and kind == 2"])])
    assert not decide(plan, gather(plan, span(status=2, kind=3), span(kind=2))).kept
    assert decide(plan, gather(plan, span(), span(status=2, kind=2))).kept


def test_one_condition_is_enough() -> None:
    plan = compile_policies([policy("p", "ottl_condition", span=["status.code == 2", "kind == 5"])])
    assert [decide(plan, gather(plan, span(status=s, kind=k))).kept for s, k in ((2, 1), (1, 5), (1, 1))] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "column", "rule"),
    [
        ("", 1, "a field or a literal expected"),
        ('attributes["k"]', 16, "a comparison expected"),
        ('attributes["k"] =~ "x"', 17, "this is no OTTL"),
        ('attributes.k == "x"', 1, "attributes.k is not known here"),
        ('attributes["a"]["b"] == "x"', 16, "what is inside of an attribute cannot be asked for"),
        ('resource["k"] == "x"', 1, "resource is not known here"),
        ('name == "x" && kind == 2', 13, "this is no OTTL"),
        ('name == "x" kind == 2', 13, "and, or, or the end expected"),
        ("(kind == 2", 11, ") expected"),
        ("kind > 2", 1, "compared by == and !="),
        ("kind == 9", 1, "compared by == and !="),
        ('status.code == "ERROR"', 1, "compared by == and !="),
        ('kind.string == "server"', 1, "compared by == and !="),
        ("name == 1", 1, "it is compared with a string"),
        ("name == nil", 1, "it is compared with a string"),
        ('attributes["k"] > nil', 1, "true, false and nil are compared by == and !="),
        ('attributes["k"] == attributes["l"]', 1, "one side must be a field, the other one a literal"),
        ("1 == 1", 1, "one side must be a field"),
        ("end_time - start_time > 5", 1, "it is compared with a duration"),
        ('end_time - start_time > Duration("5")', 34, "a duration such as"),
        ('end_time_unix_nano - start_time_unix_nano > Duration("5s")', 1, "a whole number of nanoseconds"),
        ("end_time_unix_nano - start_time > 5", 22, "start_time_unix_nano expected"),
        ('IsMatch(attributes["k"], "(")', 26, "is not a regular expression of RE2"),
        ('IsMatch(kind, "x")', 9, "looks at an attribute or a text"),
        ("IsMatch(name, name)", 15, "the pattern must be a string"),
        ('name == "\\d"', 10, "\\d is no escape"),
        ('ConvertCase(name, "x")', 1, "ConvertCase is not known here"),
        ('HasPrefix(kind, "x")', 11, "HasPrefix looks at an attribute or a text"),
        ("HasSuffix(name, 1)", 17, "the text must be a string"),
        ('Int(attributes["k"])', 21, "a comparison expected"),
        ('Int(attributes["k"]) == "1"', 1, "it is compared with a number or nil"),
        ('Double("1") == 1', 8, "Double looks at an attribute or a text"),
        ('(attributes["k"] == 1) == true', 18, ") expected"),
        ('spanevent.name == "x"', 1, "spanevent.name is not known here"),
        ("status.message == nil", 1, "it is compared with a string"),
        ('scope.attributes["k"] == "x"', 1, "scope.attributes is not known here"),
    ],
)
def test_what_is_not_known_is_an_error(condition: str, column: int, rule: str) -> None:
    with pytest.raises(ValueError, match="column") as refused:
        alternatives(condition)
    assert f"column {column}: " in str(refused.value)
    assert rule in str(refused.value)


def test_conditions_are_bounded() -> None:
    several = " and ".join(f'(kind == {n % 6} or status.code == {n % 3} or name == "{n}")' for n in range(8))
    with pytest.raises(ValueError, match="more than 64: split it"):
        alternatives(several)
    # What is left of these after the last part is few, but not all of its parts were joined when it was too many.
    names = " or ".join(f'name == "a{n}"' for n in range(9))
    tests = " or ".join(f'attributes["b{n}"] == "1"' for n in range(8))
    others = " and ".join(f'name != "a{n}"' for n in range(8))
    with pytest.raises(ValueError, match="more than 64: split it"):
        alternatives(f'{others} and (({names}) and ({tests}) and attributes["z"] == "1")')
    with pytest.raises(ValueError, match="joins more than 64 conditions"):
        alternatives("(" * 65 + "true" + ")" * 65)
    # Nothing is asked behind the last part, so it does not count that that may fail; nor does a call join anything.
    asked = [" and ".join(f'HasPrefix(attributes["{n}{m}"], "x")' for m in range(3)) for n in range(4)]
    assert len(alternatives(" or ".join(asked))) == 1 + 3 + 9 + 27
    assert len(alternatives(" or ".join(f'IsMatch(attributes["{n}"], "x")' for n in range(64)))) == 64


def meeting(condition: str, data: TracesData, about: str = "span", compat: Compat = "none") -> list[str]:
    """Names of the spans of a message that meet a condition, beside policies about much else."""
    others = [policy(f"other-{n}", "string_attribute", key="k", values=[f"never-{n}"]) for n in range(70)]
    plan = compile_policies([*others, policy("p", "ottl_condition", **{about: [condition]})], compat=compat)
    raw = data.SerializeToString()
    rows = RawRows("traces")
    rows.scan(raw, array("I", [len(raw)]))
    columns = SpanColumns(plan.keys)
    columns.scan(raw, rows.ends, rows.starts)
    bits = [plan.resource_bits(resource_attributes(header, plan.keys)) for header in rows.resources]
    for _ in range(2):  # what is remembered of values answers as it did at first
        plan.answer(columns, rows, bits)
    asked = plan.conditions[-1][1]
    assert isinstance(asked, AnyOf)
    assert plan.words > 1
    of_rows = [plan.span_bits.bits[row * plan.words : (row + 1) * plan.words] for row in range(columns.rows)]
    names = [one.name for each in data.resource_spans for scope in each.scope_spans for one in scope.spans]
    return [name for name, words in zip(names, of_rows, strict=True) if bits_of(words) & asked.mask]


def said(name: str, message: str | None = None, **attributes: str) -> Span:
    found = [attribute(key, value) for key, value in attributes.items()]
    one = Span(trace_id=bytes(15) + b"1", span_id=bytes(7) + b"1", name=name, attributes=found, events=[Span.Event()])
    if message is not None:
        one.status.CopyFrom(Status(message=message, code=Status.STATUS_CODE_ERROR))
    return one


SCOPES = TracesData(
    resource_spans=[
        ResourceSpans(
            resource=Resource(attributes=[attribute("service.name", "shop")]),
            scope_spans=[
                ScopeSpans(
                    scope=InstrumentationScope(name="io.grpc", version="1.2"),
                    spans=[said("grpc", "deadline exceeded"), said("fine", k="v")],
                ),
                ScopeSpans(spans=[said("bare", "")]),
            ],
        ),
        ResourceSpans(
            scope_spans=[ScopeSpans(scope=InstrumentationScope(name="io.grpc"), spans=[said("other", "a timeout")])]
        ),
    ]
)


@pytest.mark.parametrize("compat", ["none", "otel"])
@pytest.mark.parametrize(
    ("condition", "spans"),
    [
        ('status.message == "a timeout"', ["other"]),
        ('status.message != ""', ["grpc", "other"]),
        ('span.status.message == ""', ["fine", "bare"]),
        ('IsMatch(status.message, "deadline|timeout$")', ["grpc", "other"]),
        ('not HasPrefix(status.message, "dead")', ["fine", "bare", "other"]),
        ("IsString(status.message)", ["grpc", "fine", "bare", "other"]),
        ('status.message > "b" and status.code == STATUS_CODE_ERROR', ["grpc"]),
        ('instrumentation_scope.name == "io.grpc"', ["grpc", "fine", "other"]),
        ('scope.name != "io.grpc"', ["bare"]),
        ('instrumentation_scope.version == ""', ["bare", "other"]),
        ('HasSuffix(scope.version, ".2") and attributes["k"] == nil', ["grpc"]),
        ('scope.name == "io.grpc" and resource.attributes["service.name"] == "shop"', ["grpc", "fine"]),
        ('scope.name == "io.grpc" and not (resource.attributes["service.name"] == "shop")', ["other"]),
        ('scope.name == "1.2" or instrumentation_scope.version == "io.grpc"', []),
    ],
)
def test_texts_of_a_status_and_of_a_scope(condition: str, spans: list[str], compat: Compat) -> None:
    assert meeting(condition, SCOPES, compat=compat) == spans


@pytest.mark.parametrize(
    ("condition", "spans"),
    [
        ('name == "" and span.status.message == "a timeout"', ["other"]),
        ('instrumentation_scope.version == "1.2"', ["grpc", "fine"]),
    ],
)
def test_texts_of_a_status_and_of_a_scope_beside_an_event(condition: str, spans: list[str]) -> None:
    assert meeting(condition, SCOPES, "spanevent") == spans


@given(
    st.lists(st.lists(st.sampled_from([b"\x12\x01a", b"\x12\x00", b"\x18\x02", b"\x22\x01b"]), max_size=3), max_size=3)
)
def test_a_message_in_parts_is_as_protobuf_merges_them(parts: list[list[bytes]]) -> None:
    """A status may come twice, a message too: the last one counts."""
    statuses = [b"".join(part) for part in parts]
    one = said("x").SerializeToString() + b"".join(b"\x7a" + bytes([len(each)]) + each for each in statuses)
    whole = Span.FromString(one)
    data = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[whole])])])
    columns, messages = SpanColumns({}), StatusMessages()
    for _ in range(2):
        columns.scan(one, array("I", [len(one)]))
        messages.scan(columns)
    begin, end = messages.cells[:2]
    assert one[begin:end].decode() == whole.status.message
    assert meeting('status.message == "a"', data) == (["x"] if whole.status.message == "a" else [])


# ---- any condition ------------------------------------------------------------------------------------------

FIELDS = {"k": 'attributes["k"]', "r": 'resource.attributes["r"]', "name": "name"}


@given(trees(["k", "r"], ["k", "r"], ["name"]), st.lists(st.tuples(MAYBE, MAYBE, TEXTS), max_size=3))
def test_any_condition_is_true_of_the_spans_of_which_it_says_so(
    tree: Tree, rows: list[tuple[AttributeValue | None, AttributeValue | None, str]]
) -> None:
    plan = compile_policies([policy("p", "ottl_condition", span=[text_of(tree, FIELDS)])], extra_keys=["k", "r"])
    table, expected = Table(plan.words, plan), False
    for k, r, name in rows:
        mine = slots(plan, {"k": k} if k is not None else {})
        theirs = plan.resource_bits(slots(plan, {"r": r} if r is not None else {}))
        table.add_spans([span(name=name.encode(), attributes=mine)], resource_bits=theirs)
        expected |= true_of(tree, {"k": k, "r": r, "name": name})
    assert decide(plan, table.evidence()).kept is expected
