"""Permutations that depend on nothing but a seed and a place: the orders of a run.

A permutation is the order of random 64-bit keys, the raw numbers of PCG64: numpy promises that
these stay the same in all its versions, as neither its nor torch's own permutations do.

`permutation` asks numpy for them, which takes 14 us of Python. A run wants one each epoch, a
thousand a second, and predictions would wait for that; so `permutations` draws the keys of many
epochs in a kernel, without Python's lock. It does what numpy does, step by step: the seed is spread
by O'Neill's seed_seq_fe (numpy.random.SeedSequence), and the generator is PCG XSL RR 128/64
(M. E. O'Neill: PCG, a family of simple fast space-efficient statistically good algorithms for
random number generation; HMC-CS-2014-0905, 2014). The tests hold the two to the same numbers.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import types
from numpy.typing import NDArray

from mnist37.kernels import inlined, kernel

Order: TypeAlias = NDArray[np.int64]
Word: TypeAlias = Any  # an unsigned number of 64 bits; only in kernels

_1, _16, _32, _58, _63 = map(np.uint64, (1, 16, 32, 58, 63))
_LOW = np.uint64(0xFFFF_FFFF)

# Of seed_seq_fe, whose words have 32 bits.
_POOL = 4  # words
_INIT_A, _MULT_A = np.uint64(0x43B0_D7E5), np.uint64(0x931E_8875)
_INIT_B, _MULT_B = np.uint64(0x8B51_F9DD), np.uint64(0x58F3_8DED)
_MIX_LEFT, _MIX_RIGHT = np.uint64(0xCA01_F9DD), np.uint64(0x4973_F715)

# Of PCG64, whose state has 128 bits, here in two halves.
_FACTOR_HIGH, _FACTOR_LOW = np.uint64(0x2360_ED05_1FC6_5DA4), np.uint64(0x4385_DF64_9FCC_F645)


def permutation(count: int, seed: int, *place: int) -> Order:
    """A permutation of range(count).

    Args:
        count: how many things to permute.
        seed: 0 to 2**64 - 1.
        place: what the seed is used for; another place, another permutation.
    """
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place)).random_raw(count)
    return np.argsort(keys, kind="stable")


def permutations(count: int, seed: int, first: int, seconds: range) -> Order:
    """permutation(count, seed, first, second) for each second: (len(seconds), count).

    Args:
        count: how many things to permute.
        seed: 0 to 2**64 - 1.
        first: 0 to 2**32 - 1.
        seconds: each likewise; one after the other.
    """
    keys = np.empty((len(seconds), count), np.uint64)
    _draw(seed, first, seconds.start, keys)
    return np.argsort(keys, axis=1, kind="stable")


@inlined
def _hashed(word: Word, constant: Word, factor: Word) -> Word:
    product = (word ^ constant) * (constant * factor & _LOW) & _LOW
    return product ^ (product >> _16)


@inlined
def _mixed(left: Word, right: Word) -> Word:
    mixed = (left * _MIX_LEFT - right * _MIX_RIGHT) & _LOW
    return mixed ^ (mixed >> _16)


@inlined
def _high_of_product(a: Word, b: Word) -> Word:
    """The upper 64 of its 128 bits."""
    middle = (a >> _32) * (b & _LOW) + ((a & _LOW) * (b & _LOW) >> _32)
    other = (a & _LOW) * (b >> _32) + (middle & _LOW)
    return (a >> _32) * (b >> _32) + (middle >> _32) + (other >> _32)


@kernel(types.void(types.uint64, types.uint64, types.uint64, types.Array(types.uint64, 2, "C")))
def _draw(seed: Word, first: Word, second: Word, keys: NDArray[np.uint64]) -> None:
    """The numbers that numpy draws for SeedSequence(seed, spawn_key=(first, second + row))."""
    entropy = np.zeros(_POOL + 2, np.uint64)
    entropy[0], entropy[1], entropy[_POOL] = seed & _LOW, seed >> _32, first
    pool = np.empty(_POOL, np.uint64)
    words = np.empty(2 * _POOL, np.uint64)
    for row in range(len(keys)):
        entropy[_POOL + 1] = second + np.uint64(row)
        constant = _INIT_A
        for i in range(_POOL):
            pool[i] = _hashed(entropy[i], constant, _MULT_A)
            constant = constant * _MULT_A & _LOW
        for source in range(len(entropy)):
            for i in range(_POOL):
                if i != source:
                    word = pool[source] if source < _POOL else entropy[source]
                    pool[i] = _mixed(pool[i], _hashed(word, constant, _MULT_A))
                    constant = constant * _MULT_A & _LOW
        constant = _INIT_B
        for i in range(len(words)):
            words[i] = _hashed(pool[i % _POOL], constant, _MULT_B)
            constant = constant * _MULT_B & _LOW

        high, low = words[0] | words[1] << _32, words[2] | words[3] << _32
        step_high, step_low = words[4] | words[5] << _32, words[6] | words[7] << _32
        step_high, step_low = step_high << _1 | step_low >> _63, step_low << _1 | _1
        # From a state of 0 one step comes to the increment, to which the seed is added.
        low += step_low
        high += step_high + np.uint64(low < step_low)
        for i in range(-1, keys.shape[1]):
            high = _high_of_product(low, _FACTOR_LOW) + low * _FACTOR_HIGH + high * _FACTOR_LOW
            low = low * _FACTOR_LOW + step_low
            high += step_high + np.uint64(low < step_low)
            if i >= 0:
                key, turn = high ^ low, high >> _58
                keys[row, i] = key >> turn | key << (np.uint64(64) - turn & _63)
