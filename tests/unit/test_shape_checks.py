"""That the checks of arrays' axes are in force, and bite."""

import dataclasses

import numpy as np
import pytest
import torch
from shape_checks import checked

from dstnet.core.shapes import Image, Stack
from dstnet.movie.normalise import unit_noise

IMAGE, STACK = torch.zeros(4, 6), torch.zeros(3, 4, 6)
WRONG = [
    pytest.param(STACK, id="a stack for an image"),
    pytest.param(IMAGE.long(), id="integers for floats"),
    pytest.param(IMAGE.numpy(), id="NumPy for torch"),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_the_package_refuses_what_its_signatures_do_not_promise(wrong):
    with pytest.raises(TypeError, match=r"unit_noise: image, .* is no"):
        unit_noise(wrong)


@pytest.mark.parametrize("wrong", WRONG)
def test_results_are_checked_also_within_tuples_lists_and_dicts(wrong):
    def one(value) -> Image:
        return value

    def pair(value) -> tuple[int, Image]:
        return 1, value

    def several(value) -> list[Image]:
        return [IMAGE, value]

    def named(value) -> dict[str, Image]:
        return {"image": IMAGE, "other": value}

    def perhaps(value) -> dict[str, Image] | None:
        return {"image": value}

    for function in (one, pair, several, named, perhaps):
        checked(function)(IMAGE)
        with pytest.raises(TypeError, match=rf"{function.__name__}: the result, .* is no"):
            checked(function)(wrong)


@pytest.mark.parametrize("arguments", [(IMAGE,), (STACK,), (None,)])
def test_a_union_takes_each_of_its_members(arguments):
    def function(value: Image | Stack | None):
        return value

    assert checked(function)(*arguments) is arguments[0]
    with pytest.raises(TypeError, match="is no"):
        checked(function)(STACK[None])


def test_an_array_of_another_library_is_taken_where_it_is_named():
    def function(value: Image | np.ndarray):
        return value

    checked(function)(np.zeros((3, 4, 6)))


def test_arguments_by_name_methods_and_dataclasses_are_checked():
    @dataclasses.dataclass
    class Pair:
        image: Image

    Pair.__init__ = checked(Pair.__init__)
    Pair(image=IMAGE)
    with pytest.raises(TypeError, match="image"):
        Pair(image=STACK)


def test_a_function_without_arrays_is_left_as_it_is():
    def function(value: int) -> int:
        return value

    assert checked(function) is function


def test_numba_can_compile_what_is_not_wrapped():
    from dstnet.detector import _poisson_kernel

    kernels = [v for v in vars(_poisson_kernel).values() if hasattr(v, "py_func")]
    assert kernels and not any(hasattr(k.py_func, "__wrapped__") for k in kernels)
