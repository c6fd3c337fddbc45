"""Whether a trace belongs to a share of all traces, from its id alone.

By default: consistent probability sampling of the W3C tracestate's `ot` entry (OpenTelemetry specification,
"TraceState: Probability Sampling"). A threshold T is 0 … 2^56; the trace's randomness R is the explicit `rv`, else the
last 56 bits of its id; kept when R ≥ T. A kept trace stands for 2^56 / (2^56 − T) traces.

With `compat: otel`: the salted FNV-1a hash of the Collector's tail_sampling processor
(processor/tailsamplingprocessor/internal/sampling/probabilistic.go), so both choose the same traces.
"""

from __future__ import annotations

from fractions import Fraction

from schemas.trace_state import RANDOM_BITS

NEVER = 1 << RANDOM_BITS  # the threshold that no randomness reaches
ALWAYS = 0
DEFAULT_SALT = "default-hash-seed"  # the Collector's, when hash_salt is empty

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_U64 = (1 << 64) - 1
_MANTISSA_BITS = 64  # of Go's big.Float holding MaxUint64


def threshold_of(percentage: float) -> int:
    """The 56-bit threshold that `percentage` percent of all randomness reaches; never rises with `percentage`."""
    kept = round(Fraction(percentage) / 100 * NEVER)
    return NEVER - min(max(kept, 0), NEVER)


def fnv1a_64(data: bytes, state: int = _FNV_OFFSET) -> int:
    """FNV-1a, 64 bits; `state` continues the hash of what came before."""
    for byte in data:
        state = (state ^ byte) * _FNV_PRIME & _U64
    return state


def salted(hash_salt: str) -> int:
    """The hash state after the salt, to be continued with the 16 bytes of the trace id."""
    return fnv1a_64((hash_salt or DEFAULT_SALT).encode())


def hash_limit_of(percentage: float) -> int:
    """The greatest hash that the Collector keeps at `percentage`; −1 for none at 0 and below.

    Its arithmetic: MaxUint64 as big.Float (64-bit mantissa) times the float64 ratio, rounded half to even,
    truncated. At 0 the Collector's limit is 0, which one trace in 2^64 meets; here none does.
    """
    ratio = percentage / 100
    if ratio <= 0:
        return -1
    product = Fraction(ratio) * _U64
    whole = product.numerator // product.denominator
    if whole > _U64:
        return _U64
    step = Fraction(2) ** (whole.bit_length() - _MANTISSA_BITS) if whole else Fraction(1)
    return min(int(round(product / step) * step), _U64) if whole else 0
