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

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

_VECTOR = ir.VectorType(ir.FloatType(), 8)
_INTEGER = ir.IntType(32)
_INTEGERS = ir.VectorType(_INTEGER, 8)


def _constants(number: int) -> ir.Constant:
    """An integer eight times."""
    return ir.Constant(_INTEGERS, [number] * 8)


class Float32x8(types.Type):
    """numba's type of such a value: + - * / with another or with a float, which is rounded to
    float32; not a Python object, so it stays within compiled functions.
    """

    def __init__(self) -> None:
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
        first = ir.Constant(_INTEGER, 0)
        number = builder.insert_element(nothing, arguments[0], first)
        return builder.shuffle_vector(number, nothing, _constants(0))

    return _EIGHT(types.float32), generate


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    number = builder.gep(data, [index])
    return builder.bitcast(number, _VECTOR.as_pointer())


@intrinsic
def load(_context, array, index):
    """Eight neighbours of a one-dimensional float32 array, from `index` on, which is not
    checked.
    """

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return _EIGHT(array, types.intp), generate


@intrinsic
def store(_context, array, index, value):
    """Put eight numbers into a one-dimensional float32 array, from `index` on, which is not
    checked.
    """

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _EIGHT), generate


@intrinsic
def larger(_context, a, b):
    """The larger of each pair; `b` where either is not a number."""

    def generate(_context, builder, _signature, arguments):
        is_larger = builder.fcmp_ordered(">", *arguments)
        return builder.select(is_larger, *arguments)

    return _EIGHT(_EIGHT, _EIGHT), generate


# 1.5 * 2^23: a float32 of this size has no binary places left, so that adding it rounds, and its
# lowest bits are the integer.
_ROUNDS = 12582912.0


@intrinsic
def _power_of_two(_context, x):
    """2^n of integers n from -126 to 127, given as n + _ROUNDS."""

    def generate(_context, builder, _signature, arguments):
        bits = builder.bitcast(arguments[0], _INTEGERS)
        exponent = builder.shl(bits, _constants(23))
        biased = builder.add(exponent, _constants(127 << 23))
        return builder.bitcast(biased, _VECTOR)

    return _EIGHT(_EIGHT), generate


@njit
def exponential(x):
    """e^x to 2 parts in 10^7, of numbers from -87 to 88; of others, as of the nearer end; of what
    is not a number, that.
    """
    raised = larger(eight(-87.0), x)
    x = 0.0 - larger(eight(-88.0), 0.0 - raised)
    rounded = x * 1.4426950408889634 + _ROUNDS
    n = rounded - _ROUNDS
    # ln 2 in two parts, the first short: its multiples are exact.
    r = x - n * 0.693359375 + n * 2.12194440e-4
    series = 1 / 120 + r * (1 / 720)
    for term in (1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        series = term + r * series
    return series * _power_of_two(rounded)
