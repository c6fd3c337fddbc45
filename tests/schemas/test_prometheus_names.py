"""Names as Prometheus' own translator makes them; rows after a comment are cases of the OpenTelemetry specification."""

from __future__ import annotations

import pytest

from schemas.prometheus_names import Strategy, label_name, metric_name

ESCAPED: Strategy = "UnderscoreEscapingWithSuffixes"
SHORT: Strategy = "UnderscoreEscapingWithoutSuffixes"
UTF8: Strategy = "NoUTF8EscapingWithSuffixes"
AS_IT_IS: Strategy = "NoTranslation"


@pytest.mark.parametrize(
    ("strategy", "kind", "name", "unit", "expected"),
    [
        (ESCAPED, "counter", "requests", "", "requests_total"),
        (ESCAPED, "counter", "requests.total", "", "requests_total"),
        (ESCAPED, "counter", "total.requests", "", "requests_total"),
        (ESCAPED, "counter", "items", "1", "items_total"),
        (ESCAPED, "counter", "system.network.io", "By", "system_network_io_bytes_total"),
        (ESCAPED, "counter", "requests", "1/s", "requests_per_second_total"),
        (ESCAPED, "counter", "process.cpu.time", "s", "process_cpu_time_seconds_total"),
        (ESCAPED, "sum", "active_connections", "{connection}", "active_connections"),
        (ESCAPED, "sum", "queue.size", "1", "queue_size"),
        (ESCAPED, "gauge", "cpu.usage", "1", "cpu_usage_ratio"),
        (ESCAPED, "gauge", "cpu_usage_ratio", "1", "cpu_usage_ratio"),
        (ESCAPED, "gauge", "throughput", "By/s", "throughput_bytes_per_second"),
        (ESCAPED, "gauge", "speed", "m/s", "speed_meters_per_second"),
        (ESCAPED, "gauge", "fuel", "Cel", "fuel_celsius"),
        (ESCAPED, "gauge", "load", "%", "load_percent"),
        (ESCAPED, "gauge", "custom", "widgets", "custom_widgets"),
        (ESCAPED, "gauge", "custom", "unit@with#special/chars", "custom_unit_with_special_per_chars"),
        (ESCAPED, "gauge", "123_requests", "", "_123_requests"),
        (ESCAPED, "gauge", "ns:rule", "", "ns:rule"),
        (ESCAPED, "histogram", "http.server.request.duration", "s", "http_server_request_duration_seconds"),
        (ESCAPED, "histogram", "response_time_seconds", "s", "response_time_seconds"),
        (ESCAPED, "exponential", "request.size", "By", "request_size_bytes"),
        (ESCAPED, "summary", "response_time", "ms", "response_time_milliseconds"),
        # "Multiple consecutive _ characters MUST be replaced with a single _ character."
        (ESCAPED, "gauge", "a__b..c", "unit__x", "a_b_c_unit_x"),
        # "Dropping the portions of the Unit within brackets"
        (ESCAPED, "counter", "packets", "{packet}", "packets_total"),
        (ESCAPED, "gauge", "packets", "By/{packet}", "packets_bytes"),
        # 'Converting "foo/bar" to "foo_per_bar"'
        (ESCAPED, "gauge", "x", "foo/bar", "x_foo_per_bar"),
        (SHORT, "counter", "http.requests", "s", "http_requests"),
        (SHORT, "gauge", "metric@@##$$name", "", "metric_name"),
        (SHORT, "gauge", "123metric", "", "_123metric"),
        (SHORT, "gauge", "___", "", "___"),
        (UTF8, "counter", "requêsts", "1/s", "requêsts_per_second_total"),
        (UTF8, "counter", "cpu_seconds_total", "s", "cpu_seconds_total"),
        (UTF8, "gauge", "http.server.load", "1", "http.server.load_ratio"),
        (UTF8, "counter", "@#$%", "", "@#$%_total"),
        (AS_IT_IS, "counter", "http.requests", "s", "http.requests"),
    ],
)
def test_a_metric_has_the_name_that_prometheus_gives_it(
    strategy: Strategy, kind: str, name: str, unit: str, expected: str
) -> None:
    assert metric_name(name, unit, kind, strategy) == expected


@pytest.mark.parametrize(("strategy", "name"), [(ESCAPED, "@#$%"), (SHORT, "@_#_$_%"), (ESCAPED, ""), (UTF8, "")])
def test_a_name_of_nothing_is_refused(strategy: Strategy, name: str) -> None:
    with pytest.raises(ValueError, match="nothing to make a metric name of"):
        metric_name(name, "", "gauge", strategy)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("http.route", "http_route"),
        ("label:with:colons", "label_with_colons"),
        ("123label", "key_123label"),
        (".foo", "key_foo"),
        ("_", "key_"),
        ("__two_underscores", "__two_underscores"),
        ("a..b", "a__b"),
        ("label.name__with&&special##chars", "label_name__with__special__chars"),
        ("__reserved__label__name__", "__reserved__label__name__"),
        ("trailing___", "trailing___"),
        ("größe", "gr__e"),
        ("é.x", "__x"),
    ],
)
def test_a_label_has_the_name_that_prometheus_gives_it(key: str, expected: str) -> None:
    assert label_name(key, ESCAPED) == expected
    assert label_name(key, AS_IT_IS) == key


@pytest.mark.parametrize("key", ["", "__", "ようこそ"])
def test_a_label_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="nothing to make a label name of"):
        label_name(key, ESCAPED)


@pytest.mark.parametrize("strategy", [UTF8, AS_IT_IS])
def test_where_nothing_is_escaped_any_key_is_a_label(strategy: Strategy) -> None:
    assert [label_name(key, strategy) for key in ("_", "__", "é.x")] == ["_", "__", "é.x"]
    with pytest.raises(ValueError, match="nothing to make a label name of"):
        label_name("", strategy)
