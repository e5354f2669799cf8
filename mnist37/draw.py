"""The normal random numbers that torch draws on a CPU, equal to the bit, without torch.

torch.randn(N), N a multiple of 16, with a seeded generator works as follows. It turns the words of
MT19937 into uniform numbers of 24 bits. Of each 16 numbers, 8 give the lengths and 8 the angles of
the Box-Muller transform (G. E. P. Box and M. E. Muller: A note on the generation of random normal
deviates; Ann. Math. Stat. 29, 1958). The transform's logarithm, sine and cosine are polynomials in
float32 from S. L. Moshier's Cephes library; torch's compiler fuses their multiplications and
additions (fma) on a processor with AVX2. For a single number torch uses another method: uniform
numbers of 53 bits, and the C library's functions in float64.

The numbers drawn here are the same on every processor; torch draws others on a processor without
AVX2. The tests compare the bits with torch's.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numpy.typing import NDArray

from mnist37.kernels import PIXELS, inlined, kernel

Floats = NDArray[np.float32]
Float: TypeAlias = Any  # a float32, in kernels only
Llvm: TypeAlias = Any

_VECTOR = 8  # numbers that torch computes together
_MASK_24 = np.uint64((1 << 24) - 1)
_MASK_53 = (1 << 53) - 1

_SQRT_HALF = np.float32(0.707106781186547524)
_LOG = np.array(
    [
        *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
        *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    ],
    np.float32,
)
_LOG_2_LOW, _LOG_2_HIGH = np.float32(-2.12194440e-4), np.float32(0.693359375)
_FOUR_OVER_PI = np.float32(1.27323954473516)
_QUARTER_PI = np.array(  # -pi/4 in three parts, so that subtracting a multiple of it is exact
    [-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8], np.float32
)
_COS = np.array([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], np.float32)
_SIN = np.array([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], np.float32)
_HALF, _ONE, _MINUS_TWO = np.float32(0.5), np.float32(1), np.float32(-2)
_TWO_PI = np.float32(2 * math.pi)


def draw_parameters(seed: int, std: float) -> Floats:
    """Return the parameters that the notes draw: torch.randn((784, 1)), then torch.randn(1).

    Args:
        seed: of the generator, 0 to 2**64 - 1.
        std: the standard deviation, a factor of all numbers.

    Returns:
        (785,) float32: the weights, then the bias.
    """
    # MT19937, seeded with 32 bits in its authors' way; numpy promises never to change RandomState.
    generator = np.random.RandomState(seed & 0xFFFF_FFFF)
    words = generator.randint(0, 2**32, PIXELS + 4, np.uint32).astype(np.uint64)
    uniform = (words[:PIXELS] & _MASK_24).astype(np.float32) * np.float32(2.0**-24)
    values = np.empty(PIXELS + 1, np.float32)
    _normal(uniform, values)
    angle, length = (
        ((int(high) << 32 | int(low)) & _MASK_53) * 2.0**-53
        for high, low in words[PIXELS:].reshape(2, 2)
    )
    values[PIXELS] = math.sqrt(-2 * math.log1p(-length)) * math.cos(2 * math.pi * angle)
    return values * np.float32(std)


def _fused_multiply_add(typing: Llvm, a: Llvm, b: Llvm, c: Llvm) -> Llvm:  # noqa: ARG001
    """Generate LLVM code for a * b + c of float32, rounded once."""

    def code(context: Llvm, builder: Llvm, signature: Llvm, arguments: Llvm) -> Llvm:  # noqa: ARG001
        single = ir.FloatType()
        function = get_or_insert_function(
            builder.module, ir.FunctionType(single, [single] * 3), "llvm.fma.f32"
        )
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32, types.float32), code


_fma: Llvm = intrinsic(_fused_multiply_add)  # _fma(a, b, c) = a * b + c, for kernels only


@inlined
def _log(x: Float) -> Float:
    """Return the natural logarithm of x, for 0 < x <= 1."""
    mantissa, exponent = math.frexp(x)  # 0.5 <= mantissa < 1
    m, e = np.float32(mantissa), np.float32(exponent)
    if m < _SQRT_HALF:
        e -= _ONE
        m = m - _ONE + m
    else:
        m -= _ONE
    square = m * m
    y = _LOG[0]
    for i in range(1, len(_LOG)):
        y = _fma(y, m, _LOG[i])
    y = _fma(y * m, square, e * _LOG_2_LOW) - square * _HALF
    return _fma(e, _LOG_2_HIGH, m + y)


@kernel(types.void(types.Array(types.float32, 1, "C"), types.Array(types.float32, 1, "C")))
def _normal(uniform: Floats, drawn: Floats) -> None:
    """Transform uniform to normal numbers by Box and Muller; of each 16, 8 are lengths, 8 angles.

    Args:
        uniform: (N,), N a multiple of 16, in [0, 1).
        drawn: (N,) or longer, receives the normal numbers.
    """
    for start in range(0, len(uniform), 2 * _VECTOR):
        for i in range(start, start + _VECTOR):
            length = np.float32(math.sqrt(_MINUS_TWO * _log(_ONE - uniform[i])))
            x = _TWO_PI * uniform[i + _VECTOR]
            octant = (np.int32(x * _FOUR_OVER_PI) + 1) & ~1
            turns = np.float32(octant)
            for part in range(3):
                x = _fma(turns, _QUARTER_PI[part], x)
            square = x * x
            cosine = _fma(_fma(_COS[0], square, _COS[1]), square, _COS[2]) * square
            cosine = _fma(cosine, square, -(square * _HALF)) + _ONE
            sine = _fma(_fma(_SIN[0], square, _SIN[1]), square, _SIN[2]) * square
            sine = _fma(sine, x, x)
            if octant & 2:
                sine, cosine = cosine, sine
            if octant & 4:
                sine = -sine
            if (octant + 2) & 4:
                cosine = -cosine
            drawn[i] = length * cosine
            drawn[i + _VECTOR] = length * sine
