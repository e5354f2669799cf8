"""Permutations that depend only on a seed and a spawn key: the orders of a run.

A permutation is the order of random 64-bit keys, the raw numbers of PCG64. numpy promises that
these numbers stay the same in all its versions. Neither numpy nor torch promises this for its own
permutations.

`permutation` draws the keys with numpy, which takes 14 us of Python. A run needs one permutation an
epoch, about a thousand a second, and predictions would wait for them. So `permutations` draws the
keys of many epochs in a kernel, without Python's lock. The kernel follows numpy step by step:
O'Neill's seed_seq_fe (numpy.random.SeedSequence) spreads the seed, and the generator is PCG XSL RR
128/64 (M. E. O'Neill: PCG, a family of simple fast space-efficient statistically good algorithms
for random number generation; HMC-CS-2014-0905, 2014). The tests compare the kernel's numbers with
numpy's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import types
from numpy.typing import NDArray

from mnist37.kernels import inlined, kernel

Order: TypeAlias = NDArray[np.int64]
Word: TypeAlias = Any  # an unsigned number of 64 bits, in kernels only

_1, _16, _32, _58, _63 = map(np.uint64, (1, 16, 32, 58, 63))
_LOW = np.uint64(0xFFFF_FFFF)

# The constants of seed_seq_fe, whose words have 32 bits.
_POOL = 4  # words
_INIT_A, _MULT_A = np.uint64(0x43B0_D7E5), np.uint64(0x931E_8875)
_INIT_B, _MULT_B = np.uint64(0x8B51_F9DD), np.uint64(0x58F3_8DED)
_MIX_LEFT, _MIX_RIGHT = np.uint64(0xCA01_F9DD), np.uint64(0x4973_F715)

# The multiplier of PCG64, whose state has 128 bits, in two halves.
_FACTOR_HIGH, _FACTOR_LOW = np.uint64(0x2360_ED05_1FC6_5DA4), np.uint64(0x4385_DF64_9FCC_F645)


def permutation(count: int, seed: int, *spawn_key: int) -> Order:
    """Return a permutation of range(count).

    Args:
        count: how many items to permute.
        seed: 0 to 2**64 - 1.
        spawn_key: what the permutation is for; each key gives another permutation.
    """
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key)).random_raw(count)
    return np.argsort(keys, kind="stable")


def permutations(count: int, seed: int, prefix: int, suffixes: range) -> Order:
    """Return permutation(count, seed, prefix, suffix) for each suffix in `suffixes`.

    Args:
        count: how many items to permute.
        seed: 0 to 2**64 - 1.
        prefix: the first number of the spawn key, 0 to 2**32 - 1.
        suffixes: the second numbers of the spawn keys, 0 to 2**32 - 1, consecutive.

    Returns:
        (len(suffixes), count): a permutation a row.
    """
    keys = np.empty((len(suffixes), count), np.uint64)
    _draw(seed, prefix, suffixes.start, keys)
    return np.argsort(keys, axis=1, kind="stable")


@inlined
def _hash(word: Word, constant: Word, factor: Word) -> Word:
    product = (word ^ constant) * (constant * factor & _LOW) & _LOW
    return product ^ (product >> _16)


@inlined
def _mix(left: Word, right: Word) -> Word:
    difference = (left * _MIX_LEFT - right * _MIX_RIGHT) & _LOW
    return difference ^ (difference >> _16)


@inlined
def _high_of_product(a: Word, b: Word) -> Word:
    """Return the upper 64 of the 128 bits of a * b."""
    middle = (a >> _32) * (b & _LOW) + ((a & _LOW) * (b & _LOW) >> _32)
    other = (a & _LOW) * (b >> _32) + (middle & _LOW)
    return (a >> _32) * (b >> _32) + (middle >> _32) + (other >> _32)


@kernel(types.void(types.uint64, types.uint64, types.uint64, types.Array(types.uint64, 2, "C")))
def _draw(seed: Word, first: Word, second: Word, keys: NDArray[np.uint64]) -> None:
    """Fill each row with numpy's numbers for SeedSequence(seed, spawn_key=(first, second + row)).

    Args:
        seed: 0 to 2**64 - 1.
        first: the first number of each spawn key, 0 to 2**32 - 1.
        second: the second number of the first row's spawn key.
        keys: (rows, count), receives the numbers.
    """
    entropy = np.zeros(_POOL + 2, np.uint64)
    entropy[0], entropy[1], entropy[_POOL] = seed & _LOW, seed >> _32, first
    pool = np.empty(_POOL, np.uint64)
    words = np.empty(2 * _POOL, np.uint64)
    for row in range(len(keys)):
        entropy[_POOL + 1] = second + np.uint64(row)
        constant = _INIT_A
        for i in range(_POOL):
            pool[i] = _hash(entropy[i], constant, _MULT_A)
            constant = constant * _MULT_A & _LOW
        for source in range(len(entropy)):
            for i in range(_POOL):
                if i != source:
                    word = pool[source] if source < _POOL else entropy[source]
                    pool[i] = _mix(pool[i], _hash(word, constant, _MULT_A))
                    constant = constant * _MULT_A & _LOW
        constant = _INIT_B
        for i in range(len(words)):
            words[i] = _hash(pool[i % _POOL], constant, _MULT_B)
            constant = constant * _MULT_B & _LOW

        high, low = words[0] | words[1] << _32, words[2] | words[3] << _32
        step_high, step_low = words[4] | words[5] << _32, words[6] | words[7] << _32
        step_high, step_low = step_high << _1 | step_low >> _63, step_low << _1 | _1
        # PCG64 starts at state 0. One step from there gives the increment; then the seed is added.
        low += step_low
        high += step_high + np.uint64(low < step_low)
        for i in range(-1, keys.shape[1]):
            high = _high_of_product(low, _FACTOR_LOW) + low * _FACTOR_HIGH + high * _FACTOR_LOW
            low = low * _FACTOR_LOW + step_low
            high += step_high + np.uint64(low < step_low)
            if i >= 0:
                key, turn = high ^ low, high >> _58
                keys[row, i] = key >> turn | key << (np.uint64(64) - turn & _63)
