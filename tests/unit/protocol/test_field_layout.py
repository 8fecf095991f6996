"""The field and the chunk layout: algebra by property tests, edges by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import FieldOverflow, ProtocolViolation
from protocol.field import HALF, MODULUS, add, decode_signed, encode_signed, subtract
from protocol.layout import CHUNK_SLOTS, MAC_SLOT, PAYLOAD_SLOTS, WITNESS_SLOT, chunk_count, join_chunks, split_chunks

elements = st.lists(st.integers(0, MODULUS - 1), min_size=1, max_size=30)
signed = st.lists(st.integers(-HALF, HALF), min_size=1, max_size=30)


def test_the_modulus_is_the_largest_58_bit_prime_that_is_1_mod_8192() -> None:
    def is_prime(n: int) -> bool:
        d, r = n - 1, 0
        while d % 2 == 0:
            d, r = d // 2, r + 1
        for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
            x = pow(a, d, n)
            if x in (1, n - 1):
                continue
            for _ in range(r - 1):
                x = x * x % n
                if x == n - 1:
                    break
            else:
                return False
        return True

    assert MODULUS.bit_length() == 58 and MODULUS % 8192 == 1 and is_prime(MODULUS)
    assert not any(is_prime(n) for n in range(MODULUS + 8192, 1 << 58, 8192))


@given(elements, elements)
def test_add_and_subtract_are_the_field_s(a: list[int], b: list[int]) -> None:
    size = min(len(a), len(b))
    left, right = np.array(a[:size], dtype=np.uint64), np.array(b[:size], dtype=np.uint64)
    assert add(left, right).tolist() == [(x + y) % MODULUS for x, y in zip(a, b, strict=False)]
    assert subtract(left, right).tolist() == [(x - y) % MODULUS for x, y in zip(a, b, strict=False)]


@given(signed)
def test_decode_inverts_encode(values: list[int]) -> None:
    vector = np.array(values, dtype=np.int64)
    assert decode_signed(encode_signed(vector)).tolist() == values


@given(st.lists(st.integers(-(HALF // 3), HALF // 3), min_size=3, max_size=3))
def test_the_sum_of_codes_is_the_code_of_the_sum(values: list[int]) -> None:
    codes = [encode_signed(np.array([v], dtype=np.int64), HALF // 3) for v in values]
    assert decode_signed(add(add(codes[0], codes[1]), codes[2])).tolist() == [sum(values)]


@pytest.mark.parametrize("value", [HALF + 1, -HALF - 1, 2**62])
def test_a_number_above_the_bound_is_an_error_and_never_wraps(value: int) -> None:
    with pytest.raises(FieldOverflow, match="1 of 2 numbers"):
        encode_signed(np.array([0, value], dtype=np.int64))


def test_a_total_above_the_bound_is_an_error() -> None:
    with pytest.raises(FieldOverflow):
        decode_signed(encode_signed(np.array([1000], dtype=np.int64)), bound=999)
    with pytest.raises(FieldOverflow, match="outside the field"):
        decode_signed(np.array([MODULUS], dtype=np.uint64))


def test_floats_are_refused() -> None:
    with pytest.raises(FieldOverflow, match="float64"):
        encode_signed(np.array([1.0]))


@given(st.integers(1, 3 * PAYLOAD_SLOTS + 1), st.integers(0, 2**32))
def test_join_inverts_split_and_check_slots_stay_free(length: int, seed: int) -> None:
    vector = np.random.default_rng(seed).integers(0, MODULUS, length).astype(np.uint64)
    laid = split_chunks(vector)
    assert laid.shape == (chunk_count(length), CHUNK_SLOTS)
    assert not laid[:, [MAC_SLOT, WITNESS_SLOT]].any()
    assert np.array_equal(join_chunks(laid, length), vector)


def test_padding_that_is_not_zero_is_refused() -> None:
    laid = split_chunks(np.ones(5, dtype=np.uint64))
    laid[0, 5] = 1
    with pytest.raises(ProtocolViolation, match="padding"):
        join_chunks(laid, 5)
    with pytest.raises(ProtocolViolation, match="expected 1 chunks"):
        join_chunks(laid[:, :10], 5)
