"""Eight float32 numbers as one value in loops that numba compiles, so that arithmetic on them is
vector instructions on every processor.

A compiler that must find such instructions in loops over single numbers gives up where a loop has
many inputs and outputs: transforms written with these took a third of the time. Only files of
compiled loops import this one, and late: numba takes half a second to load.
"""

# pyright: reportCallIssue=false
# numba supplies the first argument of what is marked as intrinsic.

import operator
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

_VECTOR, _INTEGERS = ir.VectorType(ir.FloatType(), 8), ir.VectorType(ir.IntType(32), 8)


class Float32x8(types.Type):
    """numba's type of such a value: + - * / with another or with a float32; not a Python object, so
    it stays within compiled functions.
    """

    def __init__(self):
        super().__init__(name="Float32x8")


_EIGHT = Float32x8()


@register_model(Float32x8)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


def _arithmetic(operation: Callable, instruction: str) -> None:
    @intrinsic
    def compute(_context, a, b):
        def generate(_context, builder, _signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=("contract",))

        return _EIGHT(_EIGHT, _EIGHT), generate

    @overload(operation)
    def _typed(a, b):
        match a, b:
            case Float32x8(), Float32x8():
                return lambda a, b: compute(a, b)
            case types.Float(), Float32x8():
                return lambda a, b: compute(eight(a), b)
            case Float32x8(), types.Float():
                return lambda a, b: compute(a, eight(b))
        return None


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


@intrinsic
def eight(_context, x):
    """The float32 `x` eight times."""

    def generate(_context, builder, _signature, arguments):
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        one = builder.insert_element(nothing, arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, nothing, ir.Constant(_INTEGERS, [0] * 8))

    return _EIGHT(types.float32), generate


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def load(_context, array, index):
    """Eight neighbours of a one-dimensional float32 array, from `index` on, which is not
    checked.
    """

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=4)

    return _EIGHT(array, types.intp), generate


@intrinsic
def store(_context, array, index, value):
    """Put eight numbers into a one-dimensional float32 array, from `index` on, which is not
    checked.
    """

    def generate(context, builder, signature, arguments):
        builder.store(
            arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]), align=4
        )
        return context.get_dummy_value()

    return types.void(array, types.intp, _EIGHT), generate


@intrinsic
def larger(_context, a, b):
    """The larger of each pair; `b` where either is not a number."""

    def generate(_context, builder, _signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return _EIGHT(_EIGHT, _EIGHT), generate


# 1.5 * 2^23: a float32 of this size has no binary places left, so that adding it rounds, and its
# lowest bits are the whole number.
_ROUNDS = 12582912.0


@intrinsic
def _power_of_two(_context, x):
    """2^n of whole numbers n from -126 to 127, given as n + _ROUNDS."""

    def generate(_context, builder, _signature, arguments):
        exponent = builder.shl(
            builder.bitcast(arguments[0], _INTEGERS), ir.Constant(_INTEGERS, [23] * 8)
        )
        return builder.bitcast(
            builder.add(exponent, ir.Constant(_INTEGERS, [127 << 23] * 8)), _VECTOR
        )

    return _EIGHT(_EIGHT), generate


@njit
def exponential(x):
    """e^x to 2 parts in 10^7, of numbers from -87 to 88; of others, as of the nearer end; of what
    is not a number, that.
    """
    f = np.float32
    x = f(0) - larger(eight(f(-88)), f(0) - larger(eight(f(-87)), x))
    rounded = x * f(1.4426950408889634) + f(_ROUNDS)
    n = rounded - f(_ROUNDS)
    r = (
        x - n * f(0.693359375) + n * f(2.12194440e-4)
    )  # ln 2 in two parts, the first short: its multiples are exact
    series = f(1 / 120) + r * f(1 / 720)
    for term in (1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        series = f(term) + r * series
    return series * _power_of_two(rounded)
