"""Shares of traces: consistent probability, and the Collector's hash."""

from __future__ import annotations

import math
import random
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.probability import ALWAYS, NEVER, fnv1a_64, hash_limit_of, salted, threshold_of
from schemas.trace_state import members, randomness_of_id, randomness_of_state

IDS = 100_000
SIGMAS = 4.5  # one false alarm in about 150,000 runs; the seed is fixed anyway
percentages = st.floats(-10, 110, allow_nan=False)


@pytest.fixture(scope="module")
def trace_ids() -> list[bytes]:
    source = random.Random(20_240_501)
    return [source.randbytes(16) for _ in range(IDS)]


def within(kept: int, share: float) -> bool:
    return abs(kept - IDS * share) <= SIGMAS * math.sqrt(IDS * share * (1 - share))


# ---- consistent probability ----------------------------------------------------------------------------------


@pytest.mark.parametrize("percentage", [0.1, 1, 5, 25, 33.3, 50, 66.6, 99, 99.9])
def test_the_stated_share_is_kept(trace_ids: list[bytes], percentage: float) -> None:
    limit = threshold_of(percentage)
    kept = sum(randomness_of_id(trace_id) >= limit for trace_id in trace_ids)
    assert within(kept, percentage / 100)


@pytest.mark.parametrize(("percentage", "limit"), [(-50, NEVER), (0, NEVER), (100, ALWAYS), (150, ALWAYS)])
def test_the_ends_are_exact(percentage: float, limit: int) -> None:
    assert threshold_of(percentage) == limit


@pytest.mark.parametrize(
    ("percentage", "digits"), [(50, "80000000000000"), (25, "c0000000000000"), (12.5, "e0000000000000")]
)
def test_thresholds_of_the_specification(percentage: float, digits: str) -> None:
    assert f"{threshold_of(percentage):014x}" == digits


@given(percentages, percentages, st.integers(0, 2**56 - 1))
def test_what_a_share_keeps_every_greater_share_keeps(one: float, other: float, randomness: int) -> None:
    low, high = sorted((one, other))
    assert threshold_of(high) <= threshold_of(low)
    if randomness >= threshold_of(low):
        assert randomness >= threshold_of(high)


def test_adjusted_counts_estimate_the_truth(trace_ids: list[bytes]) -> None:
    limit = threshold_of(10)
    kept = sum(randomness_of_id(trace_id) >= limit for trace_id in trace_ids)
    estimate = kept * NEVER / (NEVER - limit)
    assert abs(estimate - IDS) <= SIGMAS * math.sqrt(IDS * 0.1 * 0.9) * 10


def test_randomness_is_the_last_56_bits_of_the_id() -> None:
    assert randomness_of_id(bytes(range(16))) == 0x090A0B0C0D0E0F


@pytest.mark.parametrize(
    ("state", "randomness"),
    [
        (b"", None),
        (b"vendor=1", None),
        (b"ot=rv:6e6d1a75832a2f", 0x6E6D1A75832A2F),
        (b"ot=th:fd70a4;rv:fe123456789abc", 0xFE123456789ABC),
        (b"ot=rv:fe123456789abc;th:fd70a4", 0xFE123456789ABC),
        (b"a=1,ot=x:y;rv:00000000000001;z:1,b=2", 1),
        (b"a=1 ,\t ot=rv:00000000000001 ,b=2", 1),
        (b"ot=th:0", None),
        (b"ot=rv:123", None),  # not 14 digits: invalid, so the id counts
        (b"ot=rv:6e6d1a75832a2f0", None),
        (b"ot=xrv:6e6d1a75832a2f", None),
        (b"not=rv:6e6d1a75832a2f", None),
        (b"rv:6e6d1a75832a2f", None),
        (b"a=ot=rv:6e6d1a75832a2f", None),
        (b"k=,ot=rv:00000000000001", None),  # invalid: all of it is discarded
        (b"ot=rv:00000000000001,a", None),
        (b"\xff\xfe,;=", None),
    ],
)
def test_explicit_randomness(state: bytes, randomness: int | None) -> None:
    assert randomness_of_state(state) == randomness


def reference_randomness(state: str) -> int | None:
    """The same by splitting: list members, then the sub-keys of `ot`. An invalid tracestate has none."""
    if members(state.encode()) is None:
        return None
    for member in state.split(","):
        key, _, value = member.strip(" \t").partition("=")
        if key == "ot":
            for field in value.split(";"):
                name, _, digits = field.partition(":")
                if name == "rv" and re.fullmatch("[0-9a-f]{14}", digits):
                    return int(digits, 16)
    return None


parts = st.one_of(
    st.text("otrvh:;= 0a", max_size=12),
    st.tuples(
        st.sampled_from(["ot", "o", "vendor"]),
        st.lists(st.sampled_from(["rv:0123456789abcd", "th:8", "rv:12", "x"]), max_size=4),
    ).map(lambda pair: f"{pair[0]}={';'.join(pair[1])}"),
)


@given(st.lists(parts, max_size=5).map(",".join))
def test_explicit_randomness_as_by_splitting(state: str) -> None:
    assert randomness_of_state(state.encode()) == reference_randomness(state)


# ---- the Collector's hash ------------------------------------------------------------------------------------


def reference_fnv(data: bytes) -> int:
    """FNV-1a by the prime's bits (2^40 + 2^8 + 0xb3), without a product."""
    state = 14695981039346656037
    for byte in data:
        state ^= byte
        state = sum((state << shift) for shift, bit in enumerate(bin(0x100000001B3)[:1:-1]) if bit == "1") % 2**64
    return state


def reference_limit(percentage: float) -> int:
    """Go's big.Float product in decimal: MaxUint64 (64-bit mantissa) × float64, half to even, cut to uint64."""
    exact = Context(prec=2_000)
    product = exact.multiply(Decimal(2**64 - 1), Decimal(percentage / 100))
    if product <= 0:
        return 0
    exponent = 0  # scale the product into [2^63, 2^64): its integer part then is the mantissa
    while product >= 2**64:
        product, exponent = exact.divide(product, Decimal(2)), exponent + 1
    while product < 2**63:
        product, exponent = exact.multiply(product, Decimal(2)), exponent - 1
    mantissa = int(product.to_integral_value(ROUND_HALF_EVEN, exact))
    return min(mantissa << exponent if exponent >= 0 else mantissa >> -exponent, 2**64 - 1)


@pytest.mark.parametrize(
    ("data", "digest"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_published_vectors(data: bytes, digest: int) -> None:
    assert fnv1a_64(data) == digest == reference_fnv(data)


@pytest.mark.parametrize(
    ("salt", "trace_id", "digest"),  # printed by Go's hash/fnv
    [
        ("", "00000000000000000000000000000000", 0xE19536EED1BBAC3D),
        ("", "000102030405060708090a0b0c0d0e0f", 0xA6622CFE5BFB0E0D),
        ("", "4bf92f3577b34da6a3ce929d0e0e4736", 0xA54533BA2E4970B5),
        ("", "ffffffffffffffffffffffffffffffff", 0x17BEC3739634FE2D),
        ("test-salt", "00000000000000000000000000000000", 0x8149711E69875CC0),
        ("test-salt", "4bf92f3577b34da6a3ce929d0e0e4736", 0xABB7BD9F983CD93C),
    ],
)
def test_vectors_of_the_collectors_hash(salt: str, trace_id: str, digest: int) -> None:
    assert fnv1a_64(bytes.fromhex(trace_id), salted(salt)) == digest


@given(st.text(max_size=20), st.binary(min_size=16, max_size=16))
def test_the_hash_as_by_the_reference(salt: str, trace_id: bytes) -> None:
    assert fnv1a_64(trace_id, salted(salt)) == reference_fnv((salt or "default-hash-seed").encode() + trace_id)


@pytest.mark.parametrize(
    ("percentage", "limit"),  # printed by Go's math/big, as the Collector computes it
    [
        (1e-300, 0),
        (1e-18, 0),
        (0.001, 184467440737095),
        (0.1, 18446744073709551),
        (1, 184467440737095519),
        (5, 922337203685477631),
        (10, 1844674407370955263),
        (12.5, 2305843009213693951),
        (33, 6087425544324152319),
        (33.3, 6142765776545279999),
        (50, 9223372036854775807),
        (66.6, 12285531553090559999),
        (99.9, 18428297329635844095),
        (99.999999999999, 18446744073709367295),
        (100, 18446744073709551615),
        (150, 18446744073709551615),
    ],
)
def test_limits_of_the_collector(percentage: float, limit: int) -> None:
    assert hash_limit_of(percentage) == limit == reference_limit(percentage)


@given(st.floats(0, 200, exclude_min=True, allow_subnormal=False))
def test_limits_as_by_the_reference(percentage: float) -> None:
    assert hash_limit_of(percentage) == reference_limit(percentage)


@pytest.mark.parametrize("percentage", [0, -0.0, -50])
def test_nothing_is_kept_at_zero_and_below(percentage: float) -> None:
    assert hash_limit_of(percentage) == -1


@pytest.mark.parametrize(("salt", "percentage"), [("", 25), ("", 33), ("test-salt", 33), ("", 99.9)])
def test_the_hash_keeps_the_stated_share(trace_ids: list[bytes], salt: str, percentage: float) -> None:
    state, limit = salted(salt), hash_limit_of(percentage)
    kept = sum(fnv1a_64(trace_id, state) <= limit for trace_id in trace_ids)
    assert within(kept, percentage / 100)


@given(percentages, percentages)
def test_hash_limits_rise_with_the_share(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert hash_limit_of(low) <= hash_limit_of(high)
